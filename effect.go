package idem

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// DoEffect is Do for effects in the same commit, for engines to build on: it
// claims r, has the engine run effect inside the commit, and completes the claim
// with the effect's result, all in that one commit. effect is a function of the
// engine's own type, which gets it from Op.Effect. See bolt.Do and pebble.Do.
//
// It waits for a duplicate in flight and replays what it finds: replayed is then
// true. The effect's own error is returned as it is and leaves the record as it
// was, also with HoldUnknown, because what it wrote is undone. Marked Permanent it is
// recorded as the operation's failure, marked Unknown the operation is held, and where
// the request limits its attempts the record is released with the attempt counted. Other
// errors are Claim's; ErrTooLarge is returned when the result is over Options.MaxResult:
// the effect and the completion are then recorded, the result is not.
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

// tryEffect is one go of DoEffect, without waiting.
func (s *Store) tryEffect(ctx context.Context, r *Request, effect any) (result []byte, c Claim, err error) {
	var act action
	saw, toWall, err := s.readClaim(ctx, r, &act)
	if err != nil {
		c.Record = record(r.Key, disclosed(saw.entry, err), toWall)
		s.tellRefused(ctx, &c.Record, err)
		return nil, c, err
	}
	op := s.newOp(r.Key, act)
	defer op.free()
	op.saw = saw
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
		s.emit(ctx, e)
		e.Kind = effectKinds[op.next.State]
		s.emit(ctx, e)
	}
	if op.failed {
		return nil, Claim{}, op.err
	}
	return slices.Clip(op.next.Result), Claim{}, op.answer()
}

var effectKinds = [...]EventKind{
	Completed: OperationCompleted, Failed: OperationFailed, Released: OperationReleased, Held: OperationHeld,
}

// CompleteEffect is Complete with an effect in the same commit, for engines to
// build on: effect runs only if the record is InFlight or Held with t's fence, and
// returns the result to record. See DoEffect, bolt.Complete and pebble.Complete.
// A Permanent error of the effect fails the operation, an Unknown one holds it.
func (s *Store) CompleteEffect(ctx context.Context, t Token, effect any) error {
	if err := s.admitToken(ctx, t, false); err != nil {
		return err
	}
	op := s.newTokenOp(t, action{kind: actComplete, fence: t.Fence, opening: s.time.opening})
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

// runsNoEffects answers for an engine that left an effect alone.
func (s *Store) runsNoEffects() error {
	return invalid("%T runs no functions in its commits; nothing was changed", s.backend)
}

// waitFor waits until the duplicate of r that is in flight is not any more. A
// record that vanished meanwhile, or that is of another request by now, comes
// back as not completed: the caller claims again and hears what there is.
func (s *Store) waitFor(ctx context.Context, r *Request) (Record, error) {
	rec, err := s.Wait(ctx, r.Key)
	if errors.Is(err, ErrNotFound) || err == nil && !agree(rec.Fingerprint, r.Fingerprint) {
		return Record{}, nil
	}
	return rec, err
}

// isCompleted reports whether err is the refusal of a claim whose operation is
// completed, and not an error of the caller's own that wraps ErrCompleted.
func isCompleted(err error, c Claim) bool {
	return errors.Is(err, ErrCompleted) && c.Record.State == Completed
}

// failedErr is ErrFailed with the recorded reason.
func failedErr(r Record) error { return fmt.Errorf("%w: %s", ErrFailed, r.Result) }

// droppedErr says that a completed operation has no result to replay.
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

// errorText is err's text. That of a nil pointer in an error panics: in a commit it would
// break the store, and after the work has failed nothing would be recorded.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "the error's text panicked"
		}
	}()
	return err.Error()
}
