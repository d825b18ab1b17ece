package idem

import (
	"context"
	"time"
)

// Heartbeat keeps a claim that Claim or ClaimMany granted: each time a third of its
// lease has passed it extends the lease, until stop is called. The work runs under
// kept, which comes from ctx and is cancelled if the claim is lost all the same, with
// the answer of Extend as its cause: ErrFenced after a takeover. Stop working then. Work
// that settles its claim by itself (bolt.Complete, Hold) has not lost it, and may go on.
//
// Call stop when the work has ended, before Complete or any other word on it. It
// cancels kept, waits for an extension under way, and may be called again. A
// cancelled ctx does not end the heartbeat: what it interrupts has not ended yet. Do
// does all this by itself.
func (s *Store) Heartbeat(ctx context.Context, claim Claim) (kept context.Context, stop func()) {
	kept, cancel := context.WithCancelCause(ctx)
	end := s.heartbeat(claim.Token, s.leaseOf(claim.Record), cancel)
	return kept, func() {
		end()
		cancel(nil)
	}
}

// leaseOf is the lease that the claim of r was granted.
func (s *Store) leaseOf(r Record) time.Duration {
	if r.LeaseUntil.IsZero() {
		return Forever
	}
	if lease := r.LeaseUntil.Sub(r.ClaimedAt); lease > 0 {
		return lease
	}
	return s.opts.Lease // a wall clock past what can be told shows both alike
}

// heartbeat extends the lease of t, at a third of its length, until stop is called;
// stop waits until it has ended. If the claim is lost, lost is called with why. It ends
// too when the claim is settled.
func (s *Store) heartbeat(t Token, lease time.Duration, lost context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			beat := make(chan struct{})
			stopTimer := s.opts.Clock.AfterFunc(max(lease/3, 1), func() { close(beat) })
			select {
			case <-beat:
			case <-ctx.Done():
				stopTimer()
				return
			}
			switch err := s.Extend(ctx, t, lease); {
			case err == nil || err == ErrHeld || ctx.Err() != nil: // held ones can still be lost
			case err == ErrCompleted || err == ErrFailed:
				return // settled with this very token: nobody else can have the claim
			default:
				lost(err)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
