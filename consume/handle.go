package consume

import (
	"context"
	"errors"
	"fmt"

	"github.com/idemkv/idem"
)

// Handle claims the message, runs the handler if the claim is granted, records how
// it ended, and returns what to tell the broker. A message that is in flight elsewhere is
// a Retry, at once or after Options.Wait.
//
// Cancelling ctx reaches the handler, but does not keep what it did from being recorded.
// If ctx ends before the handler begins, the claim is undone and does not count as an
// attempt. After a panic or Goexit of the handler the claim is released, or held with
// Options.HoldUnknown, and the panic or Goexit continues in the caller. If the handler
// settles or holds its claim itself (Operation.Token), the record stays as it is, whatever
// the handler returns.
func (c *Consumer[M]) Handle(ctx context.Context, m M) Verdict {
	return c.HandleBatch(ctx, []M{m})[0]
}

// refused returns the verdict on a delivery whose claim was not granted.
func (c *Consumer[M]) refused(r idem.Record, err error) Verdict {
	v := Verdict{Decision: Dead, Err: err, Attempt: r.Attempt}
	switch {
	case errors.Is(err, idem.ErrCompleted):
		v.Decision, v.Reason, v.Err = Ack, Duplicate, nil
	case errors.Is(err, idem.ErrFailed):
		v.Reason, v.Err = Permanent, because(err, r.Result)
	case errors.Is(err, idem.ErrHeld):
		v.Reason = Held
		if r.State == idem.Held { // if its lease ended, the text is of an earlier attempt
			v.Err = because(err, r.Result)
		}
	case errors.Is(err, idem.ErrMismatch):
		v.Reason = Mismatch
	case errors.Is(err, idem.ErrTooLate):
		v.Reason = TooLate
	case errors.Is(err, idem.ErrExhausted):
		v.Reason, v.Err = Exhausted, because(err, r.Result) // how the last attempt failed
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

// judge returns the verdict on an attempt that ended as state. err is what the handler
// returned, and answer what the store said when that was recorded.
func (c *Consumer[M]) judge(ctx context.Context, claim idem.Claim, state idem.State, err, answer error) Verdict {
	v := Verdict{Err: err, Attempt: claim.Record.Attempt}
	if answer != nil {
		r := c.left(ctx, claim.Token, answer)
		if r.State == 0 {
			v.Reason, v.Err = Unrecorded, answer
			if err != nil {
				v.Err = errors.Join(err, answer)
			}
			return v
		}
		state = r.State
		if r.Fence != 0 {
			v.Attempt = r.Attempt
		}
		if refusal := settledAs[state]; err == nil && refusal != nil {
			v.Err = because(refusal, r.Result)
		}
	}
	v.Decision, v.Reason = outcome(state)
	if v.Reason != Failed || c.maxAttempts == 0 || v.Attempt < c.maxAttempts {
		return v
	}
	if r, err := c.store.Get(context.WithoutCancel(ctx), claim.Token.Key); err == nil && r.Token() == claim.Token && r.Attempt < c.maxAttempts {
		v.Attempt = r.Attempt // the handler has undone its claim
		return v
	}
	v.Decision, v.Reason, v.Err = Dead, Exhausted, fmt.Errorf("%w: %w", idem.ErrExhausted, v.Err) // as the next delivery would hear
	return v
}

// left returns the record of a handler that completed, failed, held or released its claim
// itself, as the handler left it. Its State is 0 if that is unknown, because the claim was
// lost or the store gave no answer.
func (c *Consumer[M]) left(ctx context.Context, t idem.Token, answer error) (left idem.Record) {
	switch answer {
	case idem.ErrCompleted:
		left.State = idem.Completed
	case idem.ErrFailed:
		left.State = idem.Failed
	case idem.ErrHeld:
		left.State = idem.Held
	case idem.ErrFenced: // a token is stale once its claim is released, too
	default:
		return left
	}
	r, err := c.store.Get(context.WithoutCancel(ctx), t.Key)
	if err == nil && r.Token() == t && (r.State == left.State || r.State == idem.Released) {
		return r
	}
	return left
}

// settledAs says why a message is not processed although its handler returned no error.
var settledAs = map[idem.State]error{
	idem.Failed: idem.ErrFailed, idem.Held: idem.ErrHeld, idem.Released: errReleased,
}

var errReleased = errors.New("idem: the handler released the message")

// outcome returns what an attempt that ended as state means for the delivery.
func outcome(state idem.State) (Decision, Reason) {
	switch state {
	case idem.Completed:
		return Ack, Processed
	case idem.Failed:
		return Dead, Permanent
	case idem.Held:
		return Dead, Held
	}
	return Retry, Failed
}

// unprotected returns the verdict on a delivery that was run without a claim. The decision
// is what it would be with one.
func (c *Consumer[M]) unprotected(err error) Verdict {
	would := idem.Claim{Record: idem.Record{HoldUnknown: c.opts.HoldUnknown}}.Ending(err)
	v := Verdict{Reason: Unprotected, Err: err}
	v.Decision, _ = outcome(would.State)
	return v
}

// because returns err with the text that a record has for people, if it has one.
func because(err error, text []byte) error {
	if len(text) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}
