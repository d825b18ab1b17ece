package idem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Ending is how an attempt ended, for Store.End.
type Ending struct {
	// Token is the claim's.
	Token Token
	// State is what becomes of the record: Completed, Failed, Released or Held.
	State State
	// Result is the result of Completed. For the other states it is the reason, for
	// people to read. The store copies it.
	Result []byte
}

// String names the ending without disclosing its key or result.
func (e Ending) String() string {
	return fmt.Sprintf("ending(%v, %v, %d bytes)", e.Token, e.State, len(e.Result))
}

// GoString is String: %#v does not disclose the key or result either.
func (e Ending) GoString() string { return e.String() }

// LogValue logs the token, the state and the result's size.
func (e Ending) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("token", e.Token), slog.String("state", e.State.String()), slog.Int("result_bytes", len(e.Result)))
}

// Ending returns how c's attempt ended, given what the work returned. nil completes it.
// A marked error fails it (Permanent), holds it (Unknown) or releases it (Retryable).
// Any other error holds the claim if it was made with HoldUnknown, and releases it
// otherwise. The reason is err's text.
//
// Do, idemhttp and consume all use it with End, so a mark means the same in each.
func (c Claim) Ending(err error) Ending {
	e := Ending{Token: c.Token, State: Completed}
	if err == nil {
		return e
	}
	e.Result = []byte(errorText(err))
	switch markOf(err) {
	case permanent:
		e.State = Failed
	case unknown:
		e.State = Held
	case retryable:
		e.State = Released
	default:
		e.State = Released
		if c.Record.HoldUnknown {
			e.State = Held
		}
	}
	return e
}

// errPanicked stands for a panic or Goexit of the work. It has no mark.
var errPanicked = errors.New("the attempt panicked")

// End records how an attempt ended. It does what Complete, Fail, Release and Hold do,
// with one difference: a claim that the work has already settled or held is left alone.
// End is for code that runs the work and acts once it has returned.
//
// ErrHeld is returned when the claim is held and e asks for another state, ErrCompleted
// or ErrFailed when it is already final. ErrFenced is returned when the token is stale.
// ErrTooLarge is returned when the result of Completed is over Options.MaxResult: the
// operation is then recorded as completed and its result dropped. A longer reason is
// cut. ErrInvalid is returned when State is none of the four. Like everything that
// settles a claim, End ignores the end of ctx.
func (s *Store) End(ctx context.Context, e Ending) error {
	act, err := s.endAction(&e)
	if err != nil {
		return err
	}
	return s.tokenOp(ctx, e.Token, act)
}

// EndMany is End for many attempts, each on its own merits and in order, all in one
// commit. The answers are in the order of es. Those past Options.MaxBatch are
// ErrInvalid.
func (s *Store) EndMany(ctx context.Context, es []Ending) []error {
	return s.settleMany(ctx, len(es), func(i int) (Token, action, error) {
		act, err := s.endAction(&es[i])
		return es[i].Token, act, err
	})
}

// endAction converts e to an action.
func (s *Store) endAction(e *Ending) (act action, err error) {
	act.unlessHeld = true
	switch e.State {
	case Completed:
		act.kind = actComplete
		s.setBytes(&act, e.Result)
		return act, nil
	case Failed:
		act.kind = actFail
	case Released:
		act.kind = actRelease
	case Held:
		act.kind = actHold
	default:
		return act, invalid("an attempt does not end as %v; Completed, Failed, Released and Held are possible", e.State)
	}
	s.setBytes(&act, s.cut(e.Result))
	return act, nil
}

// settledItself reports whether err, returned by End, says that the work had settled or
// held its claim itself.
func settledItself(err error) bool {
	return errors.Is(err, ErrHeld) || errors.Is(err, ErrCompleted) || errors.Is(err, ErrFailed)
}
