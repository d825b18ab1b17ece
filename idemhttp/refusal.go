package idemhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/idemkv/idem"
)

// How long Retry-After tells clients to wait. A handler takes about a second at most; a
// store that has to be opened again takes longer.
const (
	soon  = time.Second
	later = 5 * time.Second
)

// refusal returns the problem for a claim that was not granted and has nothing to replay.
func (m *middleware) refusal(key string, err error) Problem {
	var p Problem
	switch {
	case err == idem.ErrInFlight:
		p = problem(TypeInFlight, http.StatusConflict, "Ask again with the same key.")
		p.RetryAfter = soon
		return m.about(key, p)
	case err == idem.ErrMismatch:
		return m.about(key, problem(TypeMismatch, http.StatusUnprocessableEntity,
			"A key names one request: its method, target and body stay the same. Use a new key for a new request."))
	case err == idem.ErrTooLate:
		return m.about(key, problem(TypeTooLate, http.StatusConflict,
			"The request was made so long ago that its answer may have been forgotten. It was not run now. Find out whether it was done before: another key would do it again."))
	case err == idem.ErrHeld:
		p = problem(TypeOutcomeUnknown, http.StatusInternalServerError,
			"An earlier attempt ended without saying whether the operation was done. It is not run again until that is known. Asking with another key could do it twice.")
	case err == idem.ErrExhausted:
		p = problem(TypeExhausted, http.StatusInternalServerError, "It was tried as often as is allowed, and is not run again under this key.")
	case errors.Is(err, idem.ErrCorrupt), errors.Is(err, idem.ErrVersion):
		p = problem(TypeUnreadable, http.StatusInternalServerError, "The operation was not run again.")
	case errors.Is(err, idem.ErrFull):
		p = problem(TypeFull, http.StatusServiceUnavailable, "The operation was not run. Ask again with the same key.")
		p.RetryAfter = later
	default:
		p = reason("store", problem(TypeUnavailable, http.StatusServiceUnavailable, "The operation was not run. Ask again with the same key."))
		p.RetryAfter = later
	}
	return because(err, m.about(key, p))
}

// notRecorded returns the problem for a handler whose outcome could not be recorded.
func notRecorded() Problem {
	p := problem(TypeNotRecorded, http.StatusServiceUnavailable,
		"The operation was run, and how it ended could not be recorded. Ask again with the same key: another one could do it twice.")
	p.RetryAfter = later
	return p
}

// cutShort returns the problem for a handler that stopped without an answer, by what was
// recorded about it.
func cutShort(o Outcome) Problem {
	if o == Unknown {
		return problem(TypeOutcomeUnknown, http.StatusInternalServerError,
			"The operation was begun and stopped before it was known to be done. Asking with another key could do it twice.")
	}
	p := problem(TypeNotDone, http.StatusServiceUnavailable,
		"The operation was begun and stopped before it was known to be done, and may be run again. Ask again with the same key: another one could do it twice.")
	p.RetryAfter = later
	return p
}

// about names the key of a problem by its hash.
func (m *middleware) about(key string, p Problem) Problem {
	p.KeyHash = m.store.KeyHash(key)
	return p
}

// noScope returns the problem for a request whose scope function returned err, or "". An
// error is not the client's fault: a session store that is down must not turn clients away
// for good.
func noScope(err error) Problem {
	if err == nil {
		return problem(TypeScopeMissing, http.StatusForbidden, "An idempotency key belongs to a client, and this request is of none that is known.")
	}
	p, ok := given(err, http.StatusForbidden)
	if !ok {
		p = reason("scope", problem(TypeUnavailable, http.StatusServiceUnavailable, "Whose request this is could not be found out. The operation was not run. Ask again with the same key."))
		p.RetryAfter, p.Err = later, err
	}
	return p
}

// because gives a problem its cause.
func because(err error, p Problem) Problem {
	p.Err = err
	return p
}

// asProblem returns the Problem that err is, or otherwise.
func asProblem(err error, otherwise Problem) Problem {
	if p, ok := given(err, otherwise.Status); ok {
		return p
	}
	return because(err, otherwise)
}

// given returns the Problem that err is, with its empty fields filled in.
func given(err error, status int) (p Problem, ok bool) {
	var pointer *Problem
	if errors.As(err, &pointer) && pointer != nil {
		p = *pointer
	} else if !errors.As(err, &p) {
		return p, false
	}
	setDefault(&p.Type, "about:blank")
	if p.Status < 400 || p.Status > 599 {
		p.Status = status
	}
	setDefault(&p.Title, http.StatusText(p.Status))
	return p, true
}

// answer answers with a problem, which is not the operation's own answer. If this
// middleware runs inside another one, that one must not store it. But if a handler makes a
// request in-process, with a ResponseWriter of its own, only the handler knows what the
// answer means for its operation.
func (m *middleware) answer(w http.ResponseWriter, r *http.Request, p Problem) {
	if op := FromContext(r.Context()); op != nil && writesTo(w, op.answer) {
		op.refused(p.Type == TypeNotRecorded || p.Type == TypeNotDone)
	}
	// A client that leaves before its operation begins is no fault. One that leaves later is
	// reported, because someone may have to settle the operation.
	begun := p.Type == TypeOutcomeUnknown || p.Type == TypeNotRecorded
	if p.Status >= 500 && (begun || !errors.Is(p.Err, context.Canceled)) {
		m.tell(r, p)
	}
	m.o.WriteProblem(w, r, p)
}

// tell reports what failed to Options.OnError. A panic in it must not replace the
// handler's, or the one that cuts the connection: middleware that recovers from it would
// end the answer as if it were whole.
func (m *middleware) tell(r *http.Request, p Problem) {
	if m.o.OnError == nil {
		return
	}
	defer func() { _ = recover() }()
	m.o.OnError(r, p)
}
