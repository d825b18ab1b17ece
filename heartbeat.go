package idem

import (
	"context"
	"time"

	"github.com/idemkv/idem/engine"
)

// Heartbeat keeps a claim granted by Claim or ClaimMany: it extends the lease each time
// a third of it has passed, until stop is called. If half of the lease or more is over
// already, it extends it at once.
//
// Run the work under kept. It derives from ctx and is cancelled if the claim is lost,
// with Extend's error as its cause: ErrFenced after a takeover. Stop working then. Work
// that settles its claim itself (bolt.Complete, Hold) has not lost it and may go on.
//
// Only claim's Token matters, so a saved token can be kept as well.
//
// Call stop when the work has ended, before Complete or any other call that settles the
// claim. It cancels kept, waits for an extension under way, and may be called again.
// Cancelling ctx does not end the heartbeat, because the work it interrupts is still
// running. Do does all of this for you.
func (s *Store) Heartbeat(ctx context.Context, claim Claim) (kept context.Context, stop func()) {
	marked, work := s.mark(ctx, claim.Token.Key)
	kept, lost := context.WithCancelCause(marked)
	beat, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.beat(beat, claim.Token, lost)
	}()
	return kept, func() {
		cancel()
		<-done
		work.over.Store(true)
		lost(nil)
	}
}

// beat extends the lease of t's claim until ctx ends, or the claim is settled or lost.
func (s *Store) beat(ctx context.Context, t Token, lost context.CancelCauseFunc) {
	lease, left := s.leaseOf(ctx, t)
	wait := lease / 3
	if left <= lease/2 {
		wait = 0
	}
	for ; ; wait = lease / 3 {
		due := make(chan struct{})
		stop := s.opts.Clock.AfterFunc(max(wait, 1), func() { close(due) })
		select {
		case <-due:
		case <-ctx.Done():
			stop()
			return
		}
		switch err := s.Extend(ctx, t, 0); {
		case err == nil || err == ErrHeld || ctx.Err() != nil: // held ones can still be lost
		case err == ErrCompleted || err == ErrFailed:
			return // settled with this very token: nobody else can have the claim
		default:
			lost(err)
			return
		}
	}
}

// leaseOf returns the lease of t's claim and how much of it is left. If the claim is
// gone, nothing is left and Extend will report it.
func (s *Store) leaseOf(ctx context.Context, t Token) (lease, left time.Duration) {
	now, _ := s.time.now()
	snap := s.tracker.claimed(t)
	e := snap.entry
	if !snap.current() {
		e, _ = s.read(ctx, t.Key)
	}
	switch {
	case e == nil || e.Fence != t.Fence:
		return s.opts.Lease, 0
	case e.LeaseUntil == engine.Never:
		return e.Lease, Forever
	}
	return e.Lease, time.Duration(e.LeaseUntil - now)
}
