package idem

import (
	"context"
	"time"
)

// Heartbeat keeps a claim that Claim or ClaimMany granted: each time a third of its
// lease has passed it extends the lease, until stop is called. If half of the lease or
// more is over already, it extends it at once. The work runs under kept, which comes
// from ctx and is cancelled if the claim is lost, with the answer of Extend as its
// cause: ErrFenced after a takeover. Stop working then. Work that settles its claim by
// itself (bolt.Complete, Hold) has not lost it, and may go on.
//
// A claim that was saved can be kept as well: of a Claim with nothing but its Token the
// lease is looked up.
//
// Call stop when the work has ended, before Complete or any other word on it. It
// cancels kept, waits for an extension under way, and may be called again. A
// cancelled ctx does not end the heartbeat: what it interrupts has not ended yet. Do
// does all this by itself.
func (s *Store) Heartbeat(ctx context.Context, claim Claim) (kept context.Context, stop func()) {
	kept, lost := context.WithCancelCause(s.mark(ctx, claim.Token.Key))
	beat, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.beat(beat, claim, lost)
	}()
	return kept, func() {
		cancel()
		<-done
		lost(nil)
	}
}

// beat extends the lease of claim until ctx ends, or the claim is settled or lost.
func (s *Store) beat(ctx context.Context, claim Claim, lost context.CancelCauseFunc) {
	r := claim.Record
	if r.ClaimedAt.IsZero() {
		// What is not found or not ours any more, Extend tells below.
		r, _ = s.Get(ctx, claim.Token.Key)
	}
	lease := s.leaseOf(r)
	wait := lease / 3
	if now, toWall := s.time.now(); lease != Forever && r.LeaseUntil.Sub(wallTime(now, toWall)) <= lease/2 {
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
		switch err := s.Extend(ctx, claim.Token, lease); {
		case err == nil || err == ErrHeld || ctx.Err() != nil: // held ones can still be lost
		case err == ErrCompleted || err == ErrFailed:
			return // settled with this very token: nobody else can have the claim
		default:
			lost(err)
			return
		}
	}
}

// leaseOf is the lease that the claim of r was granted.
func (s *Store) leaseOf(r Record) time.Duration {
	if r.LeaseUntil.IsZero() && !r.ClaimedAt.IsZero() {
		return Forever
	}
	if lease := r.LeaseUntil.Sub(r.ClaimedAt); lease > 0 {
		return lease
	}
	return s.opts.Lease // a wall clock past what can be told shows both alike
}
