package idemhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/idemkv/idem"
)

// verdict is what a handler that has returned leaves: what is to be recorded, and
// whether there is an answer to send.
type verdict struct {
	outcome Outcome
	ending  idem.Ending // of all outcomes but NotNow
	// unanswered is why there is no answer, nil if there is one.
	unanswered error
	elsewhere  bool // something was sent behind the middleware's back
	silent     bool // the answer is the empty 200 of a handler that wrote nothing
}

var (
	errNoAnswer  = errors.New("the handler has written no answer")
	errElsewhere = errors.New("the handler has written its answer to another ResponseWriter than the middleware's")
	errLater     = errors.New("the handler has written no answer, and its framework may write one after the middleware has returned: have an adaptor call Operation.Returned")
	errHeld      = errors.New("the operation was held while its handler ran")
)

// judge says what the handler leaves. ctx is the context that it ran under.
func (x *run) judge(ctx context.Context) verdict {
	c := &x.capture
	said, returned, _ := x.op.heard()
	v := verdict{outcome: said}
	if c.status == 0 && !c.hijacked {
		v.unanswered, v.elsewhere = x.unanswered(ctx)
		v.silent = v.unanswered == nil
	}
	c.end()
	status, header := c.status, c.header
	if c.hijacked && status == 0 {
		status, header = http.StatusSwitchingProtocols, x.w.Header()
	}
	late := c.late && status >= 400
	if said == 0 {
		v.outcome = Unknown
		if v.unanswered == nil && !late {
			v.outcome = x.m.policy(status, header)
		}
		if v.outcome == Unknown && x.m.o.RetryUnknown {
			v.outcome = Released
		}
	}
	switch {
	case v.outcome == NotNow:
	case v.outcome == Stored && said == 0 && c.written > 0 && !c.late && c.declared < 0 && ctx.Err() != nil:
		// It may have been stopped halfway through its answer, and nothing says how long
		// that was to be.
		v.ending = notRetained(x.op.token, status)
	case v.outcome == Stored && v.unanswered == nil:
		v.ending = x.answered(status)
	case v.outcome == Stored && !idem.IsPermanent(returned):
		v.ending = notRetained(x.op.token, http.StatusInternalServerError)
	case returned != nil:
		v.ending = x.claim.Ending(returned)
		v.ending.State = v.outcome.state(idem.Failed)
	default:
		v.ending = idem.Ending{Token: x.op.token, State: v.outcome.state(0), Result: []byte(note(ctx, status, late, v.unanswered))}
	}
	return v
}

// state is the state that o leaves a record in. done is that of Stored.
func (o Outcome) state(done idem.State) idem.State {
	switch o {
	case Stored:
		return done
	case Released:
		return idem.Released
	}
	return idem.Held
}

// note is the reason that is recorded of an operation that is not done.
func note(ctx context.Context, status int, late bool, unanswered error) string {
	switch {
	case unanswered != nil:
		return unanswered.Error()
	case late:
		return fmt.Sprintf("the handler answered with status %d after it was stopped: %v", status, context.Cause(ctx))
	}
	return fmt.Sprintf("the handler answered with status %d", status)
}

// unanswered returns why a handler that has written nothing has not answered, nil if it
// has: net/http makes an empty 200 of nothing. That is what a handler meant that returned
// without an error, in time, and did not say that the operation is not done. sent tells
// that something was sent to the client in another way.
func (x *run) unanswered(ctx context.Context) (why error, sent bool) {
	said, returned, adapted := x.op.heard()
	changed, sent := x.outside.changed(x.w)
	switch {
	case changed:
		return errElsewhere, sent
	case returned != nil:
		return returned, false
	case said == Stored:
		return nil, false
	case ctx.Err() != nil:
		return fmt.Errorf("the handler was stopped and did not answer: %w", context.Cause(ctx)), false
	case said != 0:
		return errNoAnswer, false
	case !adapted && answersLater(x.w):
		return errLater, false
	}
	return nil, false
}

// policy is what an answer means where the handler has not said.
func (m *middleware) policy(status int, header http.Header) Outcome {
	if o := m.o.Outcome(status, header); o >= Stored && o <= Unknown {
		return o
	}
	return Unknown
}

// answered is the ending of an operation whose answer is in the capture.
func (x *run) answered(status int) idem.Ending {
	c := &x.capture
	if c.lost {
		return notRetained(x.op.token, status)
	}
	x.result = x.m.answers.Get().(*[]byte)
	*x.result, _ = appendAnswer((*x.result)[:0], status, false, x.m.changes(c.before, c.header), c.body) // the capture takes no bad status
	return idem.Ending{Token: x.op.token, State: idem.Completed, Result: *x.result}
}

// notRetained is the ending of an operation that is done and whose answer cannot be kept.
func notRetained(t idem.Token, status int) idem.Ending {
	result, _ := appendAnswer(nil, status, true, nil, nil) // cannot fail
	return idem.Ending{Token: t, State: idem.Completed, Result: result}
}

// settle records v. What the handler has settled or held by itself stays:
// idem.ErrHeld, ErrCompleted or ErrFailed is then returned.
func (m *middleware) settle(ctx context.Context, t idem.Token, v *verdict) error {
	if v.outcome == NotNow {
		return m.store.Unclaim(ctx, t)
	}
	err := m.store.End(ctx, v.ending)
	if errors.Is(err, idem.ErrTooLarge) {
		return nil // recorded, without the answer
	}
	return err
}

// settlePanic records what a handler that panicked leaves. Of what it has written
// nothing is kept: it may be half an answer.
func (x *run) settlePanic() {
	m, t, c := x.m, x.op.token, &x.capture
	o, _, _ := x.op.heard()
	if o == NotNow || o == 0 && m.o.RetryUnknown {
		o = Released // the attempt counts: it had begun
	} else if o == 0 {
		o = Unknown
	}
	v := verdict{outcome: o, ending: idem.Ending{Token: t, State: o.state(0), Result: []byte("the handler panicked")}}
	if o == Stored {
		setDefault(&c.status, http.StatusInternalServerError)
		v.ending = notRetained(t, c.status)
	}
	if err := m.settle(x.r.Context(), t, &v); err != nil {
		var p Problem
		_, p, o = x.overruled(err)
		if p.Type == TypeUnreadable || p.Type == TypeNotRecorded {
			m.tell(x.r, p)
		}
	}
	m.report(x.r, t.Key, Result{Outcome: o, Attempt: x.op.attempt})
}

// overruled says what retries hear where a verdict was not recorded, for the reason err:
// the answer a, or the problem p if that has a type. The handler, or an operator, has
// settled or held the operation with its token, or there is no telling.
func (x *run) overruled(err error) (a storedAnswer, p Problem, o Outcome) {
	m, t := x.m, x.op.token
	switch err {
	case idem.ErrHeld:
		return a, because(errHeld, m.about(t.Key, cutShort(Unknown))), Unknown
	case idem.ErrCompleted, idem.ErrFailed:
		rec, getErr := m.store.Get(context.WithoutCancel(x.r.Context()), t.Key)
		if getErr == nil && rec.Fence == t.Fence && rec.State.Final() {
			a, p, _ = m.stored(&rec)
			return a, p, Stored
		}
	}
	return a, because(err, m.about(t.Key, notRecorded())), 0
}

// finish answers the first request, now that err says whether v is recorded. It must not
// look done to the client if it is not. Where the record says something else than the
// handler's answer, the client hears what retries hear.
func (x *run) finish(v *verdict, err error) {
	m, c := x.m, &x.capture
	own, outcome := v.unanswered == nil, v.outcome
	var a storedAnswer
	var p Problem
	switch {
	case err != nil:
		a, p, outcome = x.overruled(err)
		switch p.Type {
		case "", TypeNotRetained: // done, and the handler's answer is the only one there is
		case TypeOutcomeUnknown:
			own = own && (c.hijacked || c.status/100 != 2)
		default:
			own = false
		}
	case own:
	case outcome == Stored:
		_, p, _ = m.stored(&idem.Record{Key: x.op.token.Key, State: v.ending.State, Result: v.ending.Result})
	default:
		p = because(v.unanswered, m.about(x.op.token.Key, cutShort(outcome)))
	}
	m.report(x.r, x.op.token.Key, Result{Outcome: outcome, Attempt: x.op.attempt})
	switch {
	case err != nil && p.Type == "" && !v.elsewhere && c.discard():
		a.replay(x.w, "")
	case own:
		if v.silent && m.o.OnError != nil {
			c.behind = x.writtenBehind
		}
		c.send()
	case v.elsewhere:
		if p.Type != "" {
			m.tell(x.r, p)
		}
	case c.discard():
		m.answer(x.w, x.r, p)
	default:
		m.tell(x.r, p)
		if !c.hijacked {
			panic(http.ErrAbortHandler) // all that is left to say, once the header is out
		}
	}
}

// writtenBehind tells of an answer that comes when nothing was recorded as an empty 200.
func (x *run) writtenBehind() {
	x.m.tell(x.r, x.m.about(x.op.token.Key, problem(TypeMisconfigured, http.StatusInternalServerError,
		"The handler returned without an answer, and an empty 200 was recorded and sent. Then an answer was written: what writes it, such as a framework's handler of errors, belongs inside of the middleware.")))
}
