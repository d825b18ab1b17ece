package idem

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// DoEffect is Do for effects in the same commit, for engines to build on. In one commit
// it claims r, has the engine run effect, and completes the claim with the effect's
// result. effect is a function of the engine's own type; the engine gets it from
// Op.Effect. See bolt.Do and pebble.Do.
//
// It waits for a duplicate in flight and replays its outcome; replayed is then true.
// The effect's own error is returned as it is. It leaves the record as it was, even
// with HoldUnknown, because what the effect wrote is undone. An error marked Permanent
// is recorded as the operation's failure, and one marked Unknown holds the operation.
// If the request limits its attempts, any other error releases the record and the
// attempt counts.
//
// ErrTooLarge is returned when the result is over Options.MaxResult: the effect and the
// completion are then recorded, the result is not. Other errors are Claim's.
func (s *Store) DoEffect(ctx context.Context, r Request, effect any) (result []byte, replayed bool, err error) {
	for {
		result, claim, err := s.tryEffect(ctx, &r, effect)
		switch {
		case errors.Is(err, ErrInFlight) && claim.Record.State == InFlight:
			if claim.Record, err = s.waitFor(ctx, &r); err != nil {
				return nil, false, err
			}
			switch claim.Record.State {
			case Completed:
			case Failed:
				return nil, true, failedErr(claim.Record)
			case Held:
				return nil, false, ErrHeld
			default:
				continue
			}
		case errors.Is(err, ErrFailed) && claim.Record.State == Failed:
			return nil, true, failedErr(claim.Record)
		case !isCompleted(err, claim):
			return result, false, err
		}
		if err := s.droppedErr(claim.Record); err != nil {
			return nil, true, err
		}
		return claim.Record.Result, true, nil
	}
}

// tryEffect is one round of DoEffect, without waiting.
func (s *Store) tryEffect(ctx context.Context, r *Request, effect any) (result []byte, c Claim, err error) {
	var act action
	snap, now, toWall, err := s.readClaim(ctx, r, &act)
	if err != nil {
		c.Record = s.record(r.Key, disclosed(snap.entry, err), now, toWall)
		s.observeRefused(ctx, &c.Record, err)
		return nil, c, err
	}
	op := s.newOp(r.Key, act)
	defer op.free()
	op.before = snap
	op.effect = effect
	if err := s.applyClaims(ctx, op.one()); err != nil {
		return nil, Claim{}, err
	}
	if op.late != nil {
		return nil, Claim{}, op.late
	}
	if op.granted == nil { // refused before the effect could run
		err = s.claimed(ctx, op, &c)
		return nil, c, err
	}
	if op.wants {
		return nil, Claim{}, s.runsNoEffects()
	}
	if op.changed && s.observed() {
		e := Event{Kind: op.grantKind(), KeyHash: s.KeyHash(op.key), Fence: op.next.Fence, Attempt: int(op.next.Attempt)}
		s.observe(ctx, e)
		e.Kind = effectKinds[op.next.State]
		s.observe(ctx, e)
	}
	if op.failed {
		return nil, Claim{}, op.err
	}
	return slices.Clip(op.next.Result), Claim{}, op.answer()
}

var effectKinds = [...]EventKind{
	Completed: OperationCompleted, Failed: OperationFailed, Released: OperationReleased, Held: OperationHeld,
}

// CompleteEffect is Complete with an effect in the same commit, for engines to build
// on. effect runs only if the record is InFlight or Held with t's fence, and returns
// the result to record. A Permanent error of the effect fails the operation, an Unknown
// one holds it. See DoEffect, bolt.Complete and pebble.Complete.
func (s *Store) CompleteEffect(ctx context.Context, t Token, effect any) error {
	if err := s.admitToken(ctx, t, false); err != nil {
		return err
	}
	op := s.newTokenOp(t, action{kind: actComplete, fence: t.Fence, epoch: s.time.epoch})
	defer op.free()
	op.effect = effect
	if err := s.apply(ctx, op.one()); err != nil {
		return err
	}
	if op.wants {
		return s.runsNoEffects()
	}
	return s.settled(ctx, op)
}

// runsNoEffects is the error for an engine that did not run the effect.
func (s *Store) runsNoEffects() error {
	return invalid("%T runs no functions in its commits; nothing was changed", s.backend)
}

// waitFor waits until the duplicate of r is no longer in flight. If the record is gone
// or now belongs to another request, waitFor returns an empty record. The caller then
// claims again and gets the current answer.
func (s *Store) waitFor(ctx context.Context, r *Request) (Record, error) {
	rec, err := s.Wait(ctx, r.Key)
	if errors.Is(err, ErrNotFound) || err == nil && !agree(rec.Fingerprint, r.Fingerprint) {
		return Record{}, nil
	}
	return rec, err
}

// isCompleted reports whether err refuses a claim because its operation is completed.
// An error of the caller's own may wrap ErrCompleted, too.
func isCompleted(err error, c Claim) bool {
	return errors.Is(err, ErrCompleted) && c.Record.State == Completed
}

// failedErr is ErrFailed with the recorded reason.
func failedErr(r Record) error { return fmt.Errorf("%w: %s", ErrFailed, r.Result) }

// droppedErr is the error for a completed operation that has no result to replay.
func (s *Store) droppedErr(r Record) error {
	if !r.ResultDropped {
		return nil
	}
	return fmt.Errorf("%w: key %s is completed, its result was not kept and cannot be replayed; the work must not be run again",
		ErrTooLarge, s.KeyHash(r.Key))
}

// reason is the text recorded for an error, cut to what fits.
func (s *Store) reason(cause error) []byte {
	text := errorText(cause)
	return []byte(text[:min(len(text), s.opts.MaxResult)])
}

// errorText returns err's text. A nil pointer in an error may panic here. In a commit
// that would break the store, and after failed work nothing would be recorded.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "the error's text panicked"
		}
	}()
	return err.Error()
}
