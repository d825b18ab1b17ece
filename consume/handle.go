package consume

import (
	"context"
	"errors"
	"fmt"

	"github.com/idemkv/idem"
)

// Handle claims the message, runs the handler if the claim is granted, records how
// it ended, and returns what to tell the broker. It waits for nobody: a message that
// is in flight elsewhere is a Retry.
//
// ctx's cancellation reaches the handler, and does not keep what the handler did from
// being recorded. If ctx ends before the handler begins, the claim is undone, and does
// not count as an attempt. A panic or Goexit of the handler goes on in the caller after
// the claim is released, or held with Options.HoldUnknown.
func (c *Consumer[M]) Handle(ctx context.Context, m M) Verdict {
	return c.HandleBatch(ctx, []M{m})[0]
}

// refused is the verdict over a delivery whose claim was not granted.
func (c *Consumer[M]) refused(r idem.Record, err error) Verdict {
	v := Verdict{Decision: Dead, Err: err, Attempt: r.Attempt}
	switch {
	case errors.Is(err, idem.ErrCompleted):
		v.Decision, v.Reason, v.Err = Ack, Duplicate, nil
	case errors.Is(err, idem.ErrFailed):
		v.Reason, v.Err = Permanent, fmt.Errorf("%w: %s", err, r.Result)
	case errors.Is(err, idem.ErrHeld):
		v.Reason = Held
	case errors.Is(err, idem.ErrMismatch):
		v.Reason = Mismatch
	case errors.Is(err, idem.ErrExhausted):
		v.Reason = Exhausted
		if len(r.Result) > 0 { // how the last attempt failed
			v.Err = fmt.Errorf("%w: %s", err, r.Result)
		}
	case errors.Is(err, idem.ErrInFlight):
		v.Decision, v.Reason = Retry, InFlight
		if now, _ := c.limits.Clock.Now(); !r.LeaseUntil.IsZero() {
			v.After = max(r.LeaseUntil.Sub(now), 0)
		}
	default:
		v.Decision, v.Reason = Retry, Unavailable
	}
	return v
}

// failed records that the handler ended with err, and is the verdict over it.
func (c *Consumer[M]) failed(ctx context.Context, claim idem.Claim, err error) Verdict {
	v := Verdict{Decision: Dead, Err: err, Attempt: claim.Record.Attempt}
	note := func() []byte {
		text := err.Error()
		return []byte(text[:min(len(text), c.limits.MaxResult)])
	}
	var recordErr error
	switch {
	case errors.Is(err, ErrUnknown):
		v.Reason, recordErr = Held, c.store.Hold(ctx, claim.Token, note())
	case idem.IsPermanent(err):
		v.Reason, recordErr = Permanent, c.store.Fail(ctx, claim.Token, note())
	default:
		v.Decision, v.Reason, recordErr = Retry, Failed, c.store.Release(ctx, claim.Token, note())
		if c.maxAttempts > 0 && v.Attempt >= c.maxAttempts { // the next delivery would hear so
			v.Decision, v.Reason, v.Err = Dead, Exhausted, fmt.Errorf("%w: %w", idem.ErrExhausted, err)
		}
	}
	if recordErr == nil {
		return v
	}
	settled := c.completed(claim, recordErr)
	settled.Err = err
	if settled.Reason == Unrecorded {
		settled.Err = errors.Join(err, recordErr)
	}
	return settled
}

// completed is the verdict over a delivery that was handled, where err is the store's
// answer to recording that. A handler may have settled its claim by itself.
func (c *Consumer[M]) completed(claim idem.Claim, err error) Verdict {
	v := Verdict{Attempt: claim.Record.Attempt}
	switch {
	case err == nil || errors.Is(err, idem.ErrCompleted):
		v.Decision, v.Reason = Ack, Processed
	case errors.Is(err, idem.ErrFailed):
		v.Decision, v.Reason, v.Err = Dead, Permanent, err
	default:
		v.Decision, v.Reason, v.Err = Retry, Unrecorded, err
	}
	return v
}

// unprotected is the verdict over a delivery that was run without a claim.
func unprotected(err error) Verdict {
	v := Verdict{Reason: Unprotected, Err: err}
	switch {
	case err == nil:
		v.Decision = Ack
	case idem.IsPermanent(err) || errors.Is(err, ErrUnknown):
		v.Decision = Dead
	}
	return v
}
