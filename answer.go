package idem

import (
	"context"
	"fmt"
	"time"

	"github.com/idemkv/idem/engine"
)

// claimed turns an applied claim into its answer, with c filled in.
func (s *Store) claimed(ctx context.Context, op *operation, c *Claim) error {
	switch {
	case op.late != nil:
		return op.late
	case op.err != nil:
		c.Record = s.record(op.key, disclosed(op.prev, op.err), op.at, op.toWall)
		s.observeRefused(ctx, &c.Record, op.err)
		return op.err
	}
	if s.observed() {
		s.observe(ctx, Event{Kind: op.grantKind(), KeyHash: s.KeyHash(op.key), Fence: op.next.Fence, Attempt: int(op.next.Attempt)})
	}
	c.Token = Token{Key: op.key, Fence: op.next.Fence}
	c.Record = s.record(op.key, op.next, op.at, op.toWall)
	return nil
}

// grantKind tells a takeover from other grants.
func (o *operation) grantKind() EventKind {
	if o.next.Attempt > 1 && o.prev.State == InFlight {
		return ClaimTakeover
	}
	return ClaimGranted
}

// disclosed returns what a refused claim may show of the record in the way: all of it if
// it is of the same request, otherwise nil. ErrFull may be about another request's record.
func disclosed(cur *engine.Entry, refusal error) *engine.Entry {
	switch refusal {
	case ErrCompleted, ErrFailed, ErrInFlight, ErrHeld, ErrExhausted:
		return cur
	}
	return nil
}

// settled turns an applied token operation into its answer.
func (s *Store) settled(ctx context.Context, op *operation) error {
	if !s.observed() {
		return op.answer()
	}
	e := Event{Fence: op.act.fence}
	if op.err == ErrFenced && !op.failed {
		e.Kind = TokenRefused
	} else if op.changed {
		e.Kind = settledKinds[op.act.kind]
		if op.failed {
			e.Kind = effectKinds[op.next.State]
		}
		if op.next != nil {
			e.Attempt = int(op.next.Attempt)
		}
		if op.next != nil && op.act.kind != actExtend && op.act.kind != actCheckpoint {
			e.Duration = time.Duration(op.at - op.next.ClaimedAt)
		}
	}
	if e.Kind != 0 {
		e.KeyHash = s.KeyHash(op.key)
		s.observe(ctx, e)
	}
	return op.answer()
}

// answer returns op.err for the caller. If the bytes of a completion or failure were
// dropped, it says so.
func (o *operation) answer() error {
	if o.failed || o.err != ErrTooLarge {
		return o.err
	}
	return fmt.Errorf("%w: key %s is recorded as final, but its result or reason is over Options.MaxResult (%d bytes) and was not kept; duplicates get no result either",
		ErrTooLarge, o.store.KeyHash(o.key), o.store.opts.MaxResult)
}

var settledKinds = [...]EventKind{
	actComplete: OperationCompleted, actFail: OperationFailed, actRelease: OperationReleased,
	actUnclaim: OperationUnclaimed, actHold: OperationHeld, actExtend: LeaseExtended,
	actCheckpoint: CheckpointSaved, actForget: RecordForgotten,
}
