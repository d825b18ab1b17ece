package idemadmin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// order is what an operator wants done.
type order struct {
	target
	action  operator.Action
	state   idem.State // as it was shown; zero if unknown
	payload []byte
}

// carryOut does what o says, and logs it whatever becomes of it. flaw is what is wrong with
// the request itself; nil if nothing is.
func (a *admin) carryOut(r *request, o order, flaw error) (done operator.Settled, err error) {
	who, ok := a.may(r, o.action)
	switch {
	case !ok:
		err = notAllowed(o.action)
	case flaw != nil:
		err = flaw
	default:
		done, err = a.settleNow(r.Context(), o)
	}
	a.log(r, who, o, err)
	return done, err
}

// log writes who wanted o done, and what became of it. Of a request that was refused early
// it is not known what it wanted.
func (a *admin) log(r *request, who string, o order, err error) {
	outcome, level := "done", slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("who", who), slog.String("action", string(o.action)),
		slog.String("key_hash", o.hash), slog.String("fence", o.fence), slog.Int("payload_bytes", len(o.payload)),
	}
	if err != nil {
		p := problemOf(err)
		level = slog.LevelWarn
		switch p.Type {
		case operator.TypeNotAllowed:
			outcome = "not allowed"
		case operator.TypeCrossOrigin:
			outcome = "from another site"
		case operator.TypeLost:
			outcome = "lost"
		case operator.TypeInvalid, operator.TypeTooLarge, operator.TypeMedia, operator.TypeNotReached:
			outcome = "refused"
		default:
			outcome = "failed"
			attrs = append(attrs, slog.Any("err", err))
		}
	}
	a.o.Logger.LogAttrs(r.Context(), level, "idemadmin: settle", append(attrs, slog.String("outcome", outcome))...)
}

// settles reports whether r asks for a change.
func (r *request) settles() bool {
	if r.Method != http.MethodPost {
		return false
	}
	return r.api && len(r.path) == 4 && r.path[0] == "records" || !r.api && len(r.path) == 1 && r.path[0] == "settle"
}

func (a *admin) settleNow(ctx context.Context, o order) (done operator.Settled, err error) {
	f, err := a.lookup(ctx, o.target)
	if err != nil {
		return done, err
	}
	if !f.exact {
		if f.next != "" {
			return done, notReached(o.target, f.next, a.o.Look)
		}
		return done, a.lost(f.records)
	}
	rec := f.records[0]
	fence, err := strconv.ParseUint(o.fence, 10, 64)
	if err != nil {
		return done, err
	}
	err = operator.Settle(ctx, a.store, operator.Order{
		Token: idem.Token{Key: rec.Key, Fence: fence}, Action: o.action, Payload: o.payload, State: o.state,
	})
	// What is there now is shown even to those who left: they may read the log.
	now, getErr := a.byKey(context.WithoutCancel(ctx), rec.Key)
	switch {
	case errors.Is(err, operator.ErrLost), o.action == operator.Forget && errors.Is(err, idem.ErrNotFound):
		if getErr != nil {
			return done, a.lost(nil)
		}
		return done, a.lost([]idem.Listed{now})
	case err != nil:
		return done, err
	}
	done = operator.Settled{Action: o.action, KeyHash: o.hash, Fence: o.fence}
	if getErr == nil {
		shown := show(a.view(rowLimit), now)
		done.Record = &shown
	}
	return done, nil
}

func notAllowed(action operator.Action) operator.Problem {
	return operator.NewProblem(operator.TypeNotAllowed, "Ask someone who may "+string(action)+" operations.")
}

// lost says that an order came too late, and what is there now.
func (a *admin) lost(now []idem.Listed) operator.Problem {
	if len(now) == 0 {
		return operator.NewProblem(operator.TypeLost, "Nothing is there any more. Nothing was changed.")
	}
	p := operator.NewProblem(operator.TypeLost, "Somebody or something was faster. Nothing was changed. This is what is there now.")
	shown := showAll(a.view(rowLimit), now)
	p.KeyHash, p.Record = shown[0].KeyHash, &shown[0]
	return p
}

// notReached says that a search ended at its bound.
func notReached(t target, next string, look int) operator.Problem {
	p := operator.NewProblem(operator.TypeNotReached, "It is not among the first "+strconv.Itoa(look)+" records looked at. Search on.")
	p.KeyHash, p.Next = t.hash, next
	return p
}
