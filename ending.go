package idem

import (
	"context"
	"errors"
)

// Ending is how an attempt ended, for Store.End.
type Ending struct {
	// Token is the claim's.
	Token Token
	// State is what becomes of the record: Completed, Failed, Released or Held.
	State State
	// Result is the result of Completed. Of the others it is the reason, for people. The
	// store copies it.
	Result []byte
}

// Ending is how c's attempt ended, by what the work returned: nil completes it. An error
// that is marked fails it (Permanent), holds it (Unknown) or releases it (Retryable).
// Any other error holds the claim if it was made with HoldUnknown, and else releases
// it. The reason is err's text.
//
// Doors use it, and End, so that a mark means the same in all of them.
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

// errPanicked stands for the panic or Goexit of work, which has no mark.
var errPanicked = errors.New("the attempt panicked")

// End records how an attempt ended. It is what Complete, Fail, Release and Hold are, but
// for one thing: a claim that the work itself has settled or held is left alone. ErrHeld
// is then returned of one that is held and was to be something else, ErrCompleted or
// ErrFailed of one that is final. Doors use it when the work has returned.
//
// ErrFenced is returned when the token is stale, ErrTooLarge when the result of
// Completed is over Options.MaxResult: the operation is then recorded as completed and
// its result dropped. A longer reason is cut. ErrInvalid is returned when State is none
// of the four. Like all that settles, it ignores the end of ctx.
func (s *Store) End(ctx context.Context, e Ending) error {
	act, err := s.endAction(&e)
	if err != nil {
		return err
	}
	return s.tokenOp(ctx, e.Token, act)
}

// EndMany is End for many, each on its own merits and in order, all in one commit. The
// answers are in the order of es; past Options.MaxBatch they are ErrInvalid.
func (s *Store) EndMany(ctx context.Context, es []Ending) []error {
	return s.settleMany(ctx, len(es), func(i int) (Token, action, error) {
		act, err := s.endAction(&es[i])
		return es[i].Token, act, err
	})
}

// endAction makes e an action.
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

// settledItself reports whether err, an answer of End, says that the work had settled or
// held its claim by itself.
func settledItself(err error) bool {
	return errors.Is(err, ErrHeld) || errors.Is(err, ErrCompleted) || errors.Is(err, ErrFailed)
}
