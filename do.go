package idem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Do runs fn at most once at a time per key and replays its value to every later
// call with the key, until the retention ends. replayed is true if fn was not run
// by this call. The value is stored raw if T is []byte, as JSON otherwise; a
// replayed []byte is shared: do not change it.
//
// A duplicate in flight is waited for, as long as ctx allows. While fn runs, its
// lease is extended; if the claim is lost all the same, fn's context is cancelled
// with the answer of Extend as its cause (ErrFenced after a takeover), its value is
// not recorded, and Do returns that error.
//
// An error of fn is returned, and its mark says what becomes of the claim. Permanent
// records it as final, and duplicates get ErrFailed with its text. Unknown holds the
// claim, Retryable releases it. Without a mark the claim is held if r.HoldUnknown, and
// else released. So it is when fn panics or calls Goexit, which goes on in the caller.
// A claim that fn has settled or held itself stays as it is; if fn then returns no
// error, Do returns ErrHeld, or what the record says. ctx's cancellation reaches fn and does not keep its outcome from
// being recorded. If ctx ends before fn begins, the claim is undone (Unclaim).
//
// Do within fn, with the context that fn was given, needs a key of its own: of the same
// key it would wait for itself. ErrInvalid is returned instead.
//
// A value that cannot be encoded, or is over Options.MaxResult, is returned with
// an error that says so (ErrTooLarge for the latter): the operation is recorded as
// completed without its result, and is never run again for that. Its duplicates
// get ErrTooLarge. Other errors are Claim's.
func Do[T any](ctx context.Context, s *Store, r Request, fn func(context.Context, Claim) (T, error)) (value T, replayed bool, err error) {
	for {
		claim, err := s.Claim(ctx, r)
		switch {
		case err == nil:
			if err := ctx.Err(); err != nil { // it ended in the claim's commit
				return value, false, errors.Join(err, s.Unclaim(ctx, claim.Token))
			}
			value, err = run(ctx, s, claim, fn)
			return value, false, err
		case err == ErrInFlight:
			if claim.Record, err = s.waitFor(ctx, &r); err != nil {
				return value, false, err
			}
			if claim.Record.State != Completed {
				continue
			}
		case err == ErrFailed:
			return value, true, failedErr(claim.Record)
		case err != ErrCompleted:
			return value, false, err
		}
		value, err = decode[T](s, claim.Record)
		return value, true, err
	}
}

// run runs fn under the claim and records how it ended.
func run[T any](ctx context.Context, s *Store, claim Claim, fn func(context.Context, Claim) (T, error)) (value T, err error) {
	fnCtx, stopHeartbeat := s.Heartbeat(ctx, claim)
	defer stopHeartbeat()

	returned := false
	defer func() {
		if returned {
			return
		}
		// fn panicked or called Goexit, and goes on doing so when this returns.
		stopHeartbeat()
		_ = s.End(ctx, claim.panicked())
	}()
	value, err = fn(fnCtx, claim)
	returned = true
	stopHeartbeat()

	if err != nil {
		if endErr := s.End(ctx, claim.Ending(err)); endErr != nil && !settledItself(endErr) {
			err = errors.Join(err, endErr)
		}
		return value, err
	}
	return value, completeValue(ctx, s, claim.Token, value)
}

func completeValue[T any](ctx context.Context, s *Store, t Token, value T) error {
	b, encodeErr := encode(value)
	if encodeErr == nil {
		return s.End(ctx, Ending{Token: t, State: Completed, Result: b})
	}
	err := s.tokenOp(ctx, t, action{kind: actComplete, dropped: true, unlessHeld: true})
	if err != nil && !errors.Is(err, ErrTooLarge) {
		return errors.Join(encodeErr, err)
	}
	return fmt.Errorf("idem: key %s is completed, but its value cannot be encoded and will not replay: %w", s.KeyHash(t.Key), encodeErr)
}

// encode goes by T, as decode must: a []byte in an interface is JSON. A panic of
// the value's own encoder is an error like any other: the work is done by then.
func encode[T any](value T) (b []byte, err error) {
	if p, ok := any(&value).(*[]byte); ok {
		return *p, nil
	}
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("encoding panicked: %v", p)
		}
	}()
	return json.Marshal(value)
}

func decode[T any](s *Store, r Record) (value T, err error) {
	if err := s.droppedErr(r); err != nil {
		return value, err
	}
	if p, ok := any(&value).(*[]byte); ok {
		*p = r.Result
		return value, nil
	}
	if err := json.Unmarshal(r.Result, &value); err != nil {
		return value, fmt.Errorf("idem: key %s is completed, but its result is not JSON of a %T: %w", s.KeyHash(r.Key), value, err)
	}
	return value, nil
}
