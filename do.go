package idem

import (
	"context"
	"errors"
)

// Do runs fn at most once at a time per key. Later calls with the key replay its
// value until the retention ends. replayed is true if value, ErrFailed or
// ErrTooLarge comes from an earlier call.
//
// A []byte is stored as it is. A replayed one is shared: do not change it. Any other
// T is stored as JSON, and the first caller gets what duplicates get: the value
// decoded from that JSON. Fields that encoding/json leaves out are zero for all of
// them, and a number in an any is a float64.
//
// If a duplicate is in flight, Do waits for it as long as ctx allows. While fn runs,
// Do extends its lease. If the claim is lost anyway, fn's context is cancelled with
// Extend's error as its cause (ErrFenced after a takeover). fn's value is then not
// recorded, and Do returns that error.
//
// An error of fn is returned, and its mark decides what happens to the claim.
// Permanent records it as final, and duplicates get ErrFailed with its text. Unknown
// holds the claim. Retryable releases it. Without a mark, the claim is held if
// r.HoldUnknown is set and released otherwise. A panic or Goexit of fn counts as an
// error without a mark, and then continues in the caller. If fn settled or held its
// claim itself, the claim stays as it is. If fn then returns no error, Do returns
// what duplicates get, ErrHeld if the claim is held, and ErrFenced if it is
// released.
//
// Cancelling ctx reaches fn but does not keep its outcome from being recorded. If
// ctx ends before fn begins, the claim is undone (Unclaim).
//
// A Do inside fn, with fn's context, needs a different key. With the same key it
// would wait for itself, so ErrInvalid is returned.
//
// If JSON does not preserve the value, Do returns it as fn returned it, with an
// error that says so. This happens when the value cannot be encoded, does not decode
// again, or decodes to something else: an integer beyond 2^53 in an any, or a string
// that is not UTF-8. The operation is then recorded as completed without its result
// and never runs again. Duplicates get ErrTooLarge, and the first caller's error
// matches it too. The same happens to a value over Options.MaxResult. Other errors
// are Claim's.
func Do[T any](ctx context.Context, s *Store, r Request, fn func(context.Context, Claim) (T, error)) (value T, replayed bool, err error) {
	for {
		claim, err := s.Claim(ctx, r)
		switch {
		case err == nil:
			if err := ctx.Err(); err != nil { // it ended during the claim's commit
				return value, false, errors.Join(err, s.Unclaim(ctx, claim.Token))
			}
			value, err = run(ctx, s, claim, fn)
			return value, false, err
		case err == ErrInFlight:
			if claim.Record, err = s.waitFor(ctx, &r); err != nil {
				return value, false, err
			}
			switch claim.Record.State {
			case Completed:
			case Failed:
				return value, true, failedErr(claim.Record)
			case Held:
				return value, false, ErrHeld
			default:
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
		// fn panicked or called Goexit, and continues to once this returns.
		stopHeartbeat()
		_ = s.End(ctx, claim.Ending(errPanicked))
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
	return completeValue(ctx, s, claim.Token, value)
}
