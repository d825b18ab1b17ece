package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/idemkv/idem"
)

// Action is what an operator does with an operation.
type Action string

// The actions. They do what the methods of idem.Store by these names do.
const (
	Complete Action = "complete"
	Fail     Action = "fail"
	Release  Action = "release"
	Hold     Action = "hold"
	Forget   Action = "forget"
)

// Actions lists all actions.
func Actions() []Action { return []Action{Complete, Fail, Release, Hold, Forget} }

// ParseAction returns the action named text. idem.ErrInvalid is returned when there is
// none.
func ParseAction(text string) (Action, error) {
	for _, a := range Actions() {
		if string(a) == text {
			return a, nil
		}
	}
	return "", invalid("the action is %q; complete, fail, release, hold and forget are possible", Line(text, 40))
}

// ActionsOn lists what may be done with a record in this state.
func ActionsOn(s idem.State) []Action {
	switch s {
	case idem.InFlight:
		return Actions()
	case idem.Held:
		return []Action{Complete, Fail, Release, Forget}
	}
	return []Action{Forget}
}

// Effect says in a sentence what a does.
func (a Action) Effect() string {
	switch a {
	case Complete:
		return "Records the operation as done. Retries get the result given here."
	case Fail:
		return "Records the operation as failed for good. Retries get the reason given here, and never run it."
	case Release:
		return "Says that the work was not done. The next retry runs it again."
	case Hold:
		return "Says that the outcome is unknown. Retries are refused until someone settles the operation."
	case Forget:
		return "Removes the record with its result. The next request with the key runs the work, even if it was done before."
	}
	return ""
}

// Takes reports whether a takes a payload: a result, reason or note.
func (a Action) Takes() bool { return a != Forget }

// ErrLost is returned when an order came too late: the record is no longer as the
// operator saw it. Nothing was changed.
var ErrLost = errors.New("idem: the record has changed since it was shown")

// Order is what an operator has decided about an operation.
type Order struct {
	// Token is the record's, as it was shown. Fence zero forgets a record that cannot be
	// read, and is refused otherwise.
	Token idem.Token
	// Action is what to do.
	Action Action
	// Payload is the result, reason or note.
	Payload []byte
	// State is the state that the operator saw; zero if unknown. Forget then refuses a
	// record in another state. Other actions need it not: the store's own rules refuse
	// what is final.
	State idem.State
}

// Settle carries out o. ErrLost is returned, wrapped with the store's own answer, when
// somebody else was faster; idem.ErrInvalid when the payload is over Options.MaxResult or
// the action is unknown, idem.ErrNotFound when there is nothing to forget. Nothing was
// changed by any of these.
//
// A record that becomes final between Forget's look at it and the removal is removed
// all the same. Only its fence is compared in the commit.
func Settle(ctx context.Context, store *idem.Store, o Order) error {
	if limit := store.Options().MaxResult; len(o.Payload) > limit {
		return invalid("the %s has %d bytes, over Options.MaxResult, %d; give a shorter one", o.Action.Noun(), len(o.Payload), limit)
	}
	var err error
	switch o.Action {
	case Complete:
		err = store.Complete(ctx, o.Token, o.Payload)
	case Fail:
		err = store.Fail(ctx, o.Token, o.Payload)
	case Release:
		err = store.Release(ctx, o.Token, o.Payload)
	case Hold:
		err = store.Hold(ctx, o.Token, o.Payload)
	case Forget:
		err = forget(ctx, store, o)
	default:
		_, err = ParseAction(string(o.Action))
	}
	for _, lost := range []error{idem.ErrFenced, idem.ErrCompleted, idem.ErrFailed, idem.ErrHeld} {
		if errors.Is(err, lost) {
			return fmt.Errorf("%w (%w)", ErrLost, err)
		}
	}
	return err
}

func forget(ctx context.Context, store *idem.Store, o Order) error {
	rec, err := store.Get(ctx, o.Token.Key)
	unreadable := errors.Is(err, idem.ErrCorrupt) || errors.Is(err, idem.ErrVersion)
	switch {
	case o.Token.Fence == 0 && !unreadable:
		if err == nil {
			err = idem.ErrFenced
		}
		return err
	case unreadable && o.Token.Fence == 0:
		return store.Forget(ctx, o.Token)
	case err != nil:
		return err
	case o.State != 0 && rec.State != o.State:
		return idem.ErrFenced
	}
	return store.Forget(ctx, o.Token)
}

// Noun names the payload of a: result, note or reason.
func (a Action) Noun() string {
	switch a {
	case Complete:
		return "result"
	case Hold:
		return "note"
	}
	return "reason"
}
