package idemhttp

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/idemkv/idem"
)

// middleware is what New makes: one for all handlers that it wraps.
type middleware struct {
	store *idem.Store
	scope func(*http.Request) (string, error)
	o     Options
	// Buffers for the bodies of requests that are not granted and for answers on
	// their way into the store. Nobody else keeps them.
	bodies, answers sync.Pool
}

// New returns the middleware: it makes each operation that a client has named with a
// key run once, and answers retries as the first request was answered. The handlers
// it wraps share one space of keys, as do those of other middlewares on the same
// store. The store stays the caller's to shut down and close, after the server.
//
// scope names the tenant or principal that the request is of, whose keys nobody else
// sees or blocks. It comes from what the service has checked, such as the account of
// the credentials, never from what the client merely says. A request without one is
// not for the handler: "" is answered with TypeScopeMissing. A Problem that scope returns
// is answered as it is; any other error means that scope could not find out, which is
// TypeUnavailable. A service with one tenant says so: GlobalScope.
//
// New panics if store or scope is nil or an option is out of range, so that a server
// that is put together wrongly does not start.
func New(store *idem.Store, scope func(*http.Request) (string, error), o Options) func(http.Handler) http.Handler {
	if store == nil {
		refuse("the store is nil; open one with idem.New")
	}
	if scope == nil {
		refuse("the scope function is nil; use idemhttp.GlobalScope if all clients are one tenant")
	}
	m := &middleware{store: store, scope: scope, o: o.withDefaults(store.Options())}
	m.bodies.New = func() any { return new(requestBody) }
	m.answers.New = func() any { return new([]byte) }
	return func(next http.Handler) http.Handler {
		if next == nil {
			refuse("the handler to wrap is nil")
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !slices.Contains(m.o.Methods, r.Method) {
		next.ServeHTTP(w, r)
		return
	}
	lines := r.Header[m.o.Header]
	if len(lines) == 0 {
		if !m.o.RequireKey {
			next.ServeHTTP(w, r)
			return
		}
		m.answer(w, r, problem(TypeKeyMissing, http.StatusBadRequest,
			"Send a key of your own making in the header "+m.o.Header+", and the same one when you try again."))
		return
	}
	key, wrong := parseKey(lines, m.o.StrictKey)
	if wrong != "" {
		m.answer(w, r, reason(wrong, problem(TypeKeyInvalid, http.StatusBadRequest, keyFaults[wrong]+" See the header "+m.o.Header+".")))
		return
	}
	scope, err := m.scope(r)
	if err != nil || scope == "" {
		m.answer(w, r, noScope(err))
		return
	}
	body := m.bodies.Get().(*requestBody)
	req := idem.Request{
		Key: StoreKey(scope, key), Lease: m.o.Lease, Retention: m.o.Retention, HoldUnknown: !m.o.RetryUnknown,
		MaxAttempts: m.o.MaxAttempts,
	}
	if err := m.read(r, body, &req); err != nil {
		m.recycle(body)
		m.answer(w, r, asProblem(err, reason("fingerprint", problem(TypeBodyUnreadable, http.StatusBadRequest, "The body could not be fingerprinted."))))
		return
	}
	claim, err := m.store.Claim(r.Context(), req)
	if m.o.Wait > 0 && err == idem.ErrInFlight && !m.nested(r, req.Key) {
		claim, err = m.await(r.Context(), req)
	}
	if ended := r.Context().Err(); err == nil && ended != nil { // in the claim's commit
		err = errors.Join(ended, m.store.Unclaim(r.Context(), claim.Token))
	}
	switch {
	case err == nil:
		m.run(w, r, next, key, claim, body)
	case err == idem.ErrCompleted || err == idem.ErrFailed:
		m.recycle(body)
		m.replay(w, r, &claim.Record)
	case (err == idem.ErrInFlight || err == idem.ErrMismatch) && m.nested(r, req.Key):
		r.Body = body.reader()
		next.ServeHTTP(w, r)
	default:
		m.recycle(body)
		m.answer(w, r, m.refusal(req.Key, err))
	}
}

// read reads the body and fingerprints the request.
func (m *middleware) read(r *http.Request, body *requestBody, req *idem.Request) (err error) {
	if err := body.read(r, m.o.MaxBody); err != nil {
		return err
	}
	if m.o.Fingerprint == nil {
		req.Fingerprint = body.fingerprint()
		return nil
	}
	req.Fingerprint, err = m.o.Fingerprint(r, body.bytes())
	return err
}

func (m *middleware) recycle(body *requestBody) {
	if cap(body.buf) <= 2*keepBuffer {
		m.bodies.Put(body)
	}
}

// nested reports whether the request is being worked on by this very request: the
// middleware was wrapped around its handler twice.
func (m *middleware) nested(r *http.Request, key string) bool {
	for op := FromContext(r.Context()); op != nil; op = op.outer {
		if op.store == m.store && op.token.Key == key {
			return true
		}
	}
	return false
}

// await waits until the operation is not in flight, or for Options.Wait, and claims.
func (m *middleware) await(ctx context.Context, req idem.Request) (idem.Claim, error) {
	waiting, cancel := context.WithTimeout(ctx, m.o.Wait)
	defer cancel()
	for {
		_, err := m.store.Wait(waiting, req.Key)
		if err != nil && !errors.Is(err, idem.ErrNotFound) {
			if waiting.Err() != nil && ctx.Err() == nil {
				err = idem.ErrInFlight
			}
			return idem.Claim{}, err
		}
		claim, err := m.store.Claim(ctx, req)
		if err != idem.ErrInFlight {
			return claim, err
		}
	}
}

// replay answers with what is stored.
func (m *middleware) replay(w http.ResponseWriter, r *http.Request, rec *idem.Record) {
	a, err := openAnswer(rec.Result)
	switch {
	case err == nil && !a.notRetained:
		a.replay(w, m.o.ReplayedHeader)
		return
	case err != nil && rec.State == idem.Failed && isNotAnswer(err):
		m.answer(w, r, m.about(rec.Key, problem(TypeFailed, http.StatusInternalServerError,
			"It will not be run again under this key.")))
	case err != nil && len(rec.Result) > 0:
		m.answer(w, r, because(err, m.about(rec.Key, problem(TypeUnreadable, http.StatusInternalServerError,
			"The operation was not run again."))))
	default:
		detail := "The operation is done and was not run again. Its response was too large, streamed or cut off, and cannot be shown again."
		if a.notRetained && a.status != 0 {
			detail += " Its status was " + strconv.Itoa(a.status) + "."
		}
		m.answer(w, r, m.about(rec.Key, problem(TypeNotRetained, http.StatusInternalServerError, detail)))
	}
}

// run runs the handler under the claim, records how it ended, and then answers.
func (m *middleware) run(w http.ResponseWriter, r *http.Request, next http.Handler, key string, claim idem.Claim, body *requestBody) {
	rec := claim.Record
	op := &Operation{store: m.store, key: key, token: claim.Token, attempt: rec.Attempt, checkpoint: rec.Checkpoint}
	c := newCapture(w, m.o.MaxResponse)
	op.answer, op.outer = c, FromContext(r.Context())
	ctx, stop := m.handlerContext(r.Context(), op, claim)
	inner := r.WithContext(ctx)
	inner.Body = body.reader()

	settled := false
	defer func() {
		if settled {
			return
		}
		// The handler panicked or called Goexit, and goes on doing so after this.
		carry(r, inner)
		stop()
		m.settlePanic(r, c, op)
		c.discard()
	}()
	next.ServeHTTP(c, inner)
	carry(r, inner)
	var stopped error // a handler that heeds this and writes nothing has not answered
	if c.status == 0 && !c.hijacked && op.heard() == 0 {
		stopped = context.Cause(ctx)
	}
	c.end()
	outcome, result, err := m.outcome(c, op, stopped)
	stop()
	settled = true
	if err == nil {
		err = m.settle(r.Context(), outcome, op.token, result)
	}
	if outcome == Stored && cap(result) <= keepBuffer {
		m.answers.Put(&result) // the store has its own copy
	}
	if err == nil && stopped != nil && c.discard() {
		m.answer(w, r, because(stopped, m.about(op.token.Key, cutShort(outcome))))
		return
	}
	m.finish(w, r, c, op, err)
}

// carry makes r what it were if the handler had been given it instead of inner: the
// server removes the files of forms, and middleware further out may ask for the pattern.
func carry(r, inner *http.Request) {
	r.MultipartForm, r.Pattern = inner.MultipartForm, inner.Pattern
}

// policy is what an answer means where the handler has not said.
func (m *middleware) policy(status int, header http.Header) Outcome {
	if o := m.o.Outcome(status, header); o >= Stored && o <= Unknown {
		return o
	}
	return Unknown
}

// outcome is what the answer in c means, and what is to be stored for it. stopped is why
// the handler's context ended, if it has said and written nothing since.
func (m *middleware) outcome(c *capture, op *Operation, stopped error) (o Outcome, result []byte, err error) {
	status, header := c.status, c.header
	if c.hijacked && status == 0 {
		status, header = http.StatusSwitchingProtocols, c.w.Header()
	}
	note := "the handler answered with status " + strconv.Itoa(status)
	if o = op.heard(); o == 0 {
		if stopped != nil {
			o, note = Unknown, "the handler was stopped and did not answer: "+stopped.Error()
		} else {
			o = m.policy(status, header)
		}
		if o == Unknown && m.o.RetryUnknown {
			o = Released
		}
	}
	switch o {
	case Stored:
		result = *m.answers.Get().(*[]byte)
		if c.lost {
			result, err = appendAnswer(result[:0], status, true, nil, nil)
		} else {
			result, err = appendAnswer(result[:0], status, false, m.changes(c.before, c.header), c.body)
		}
	case Released, Unknown:
		result = []byte(note)
	}
	return o, result, err
}

// settle records the outcome.
func (m *middleware) settle(ctx context.Context, o Outcome, t idem.Token, result []byte) error {
	switch o {
	case Stored:
		err := m.store.Complete(ctx, t, result)
		if errors.Is(err, idem.ErrTooLarge) {
			return nil // recorded, without the answer
		}
		return err
	case NotNow:
		err := m.store.Unclaim(ctx, t)
		if err == idem.ErrHeld {
			return nil // the handler has held it by itself, and that counts for more
		}
		return err
	case Released:
		return m.store.Release(ctx, t, result)
	}
	return m.store.Hold(ctx, t, result)
}

// settlePanic records what a handler that panicked leaves. Of what it has written
// nothing is kept: it may be half an answer.
func (m *middleware) settlePanic(r *http.Request, c *capture, op *Operation) {
	o := op.heard()
	if o == NotNow || o == 0 && m.o.RetryUnknown {
		o = Released // the attempt counts: it had begun
	}
	result := []byte("the handler panicked")
	if o == Stored {
		setDefault(&c.status, http.StatusInternalServerError)
		result, _ = appendAnswer(nil, c.status, true, nil, nil) // cannot fail
	}
	err := m.settle(r.Context(), o, op.token, result)
	if _, ok := m.settledBefore(r.Context(), op.token, err); err != nil && !ok {
		m.tell(r, because(err, m.about(op.token.Key, notRecorded())))
	}
}

// finish answers the first request, now that err says whether its outcome is
// recorded. It must not look done to the client if it is not.
func (m *middleware) finish(w http.ResponseWriter, r *http.Request, c *capture, op *Operation, err error) {
	if err == nil {
		c.send()
		return
	}
	if rec, ok := m.settledBefore(r.Context(), op.token, err); ok {
		if a, err := openAnswer(rec.Result); err == nil && !a.notRetained && c.discard() {
			a.replay(w, "")
			return
		}
		c.send()
		return
	}
	p := because(err, m.about(op.token.Key, notRecorded()))
	if c.discard() {
		m.answer(w, r, p)
		return
	}
	m.tell(r, p)
	if !c.hijacked {
		panic(http.ErrAbortHandler) // all that is left to say, once the header is out
	}
}

// settledBefore returns the record of a claim that was settled with its own token
// before the middleware came to it: by the handler, or by an operator. What it says is
// what retries will hear.
func (m *middleware) settledBefore(ctx context.Context, t idem.Token, err error) (idem.Record, bool) {
	if err != idem.ErrCompleted && err != idem.ErrFailed {
		return idem.Record{}, false
	}
	rec, err := m.store.Get(context.WithoutCancel(ctx), t.Key)
	return rec, err == nil && rec.Fence == t.Fence && rec.State.Final()
}
