package idemhttp

import (
	"context"
	"errors"
	"mime/multipart"
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
	// Buffers for the bodies of requests that are not granted, and for answers on their
	// way into the store. Nobody else keeps them.
	bodies, answers sync.Pool
}

// New returns the middleware. It runs each operation that a client has named with a key
// once, and answers retries as the first request was answered. The handlers it wraps share
// one space of keys, also with those of other middlewares on the same store. The store
// remains the caller's to shut down and close, after the server.
//
// scope returns the tenant or principal behind the request, whose keys nobody else sees or
// blocks. Take it from what the service has authenticated, such as the account of the
// credentials, never from what the client merely claims. If it is "", the handler does not
// run and the client gets TypeScopeMissing. If scope returns a Problem, that is the answer.
// Any other error means that scope could not find out, which is TypeUnavailable. A service
// with one tenant passes GlobalScope.
//
// New panics if store or scope is nil or an option is out of range: a server with a wrong
// middleware must not start.
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
	if m.o.Key != nil {
		m.serveByBody(w, r, next)
		return
	}
	lines := r.Header[m.o.Header]
	if len(lines) == 0 {
		m.serveWithoutKey(w, r, next)
		return
	}
	key, wrong := parseKey(lines, m.o.StrictKey)
	if wrong != "" {
		m.refuse(w, r, reason(wrong, problem(TypeKeyInvalid, http.StatusBadRequest, keyFaults[wrong]+" See the header "+m.o.Header+".")))
		return
	}
	m.serveKey(w, r, next, key, nil)
}

// serveByBody finds the key with Options.Key, which may want the body.
func (m *middleware) serveByBody(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body := m.bodies.Get().(*requestBody)
	if err := m.read(r, body); err != nil {
		m.recycle(body)
		m.refuse(w, r, unreadable(err))
		return
	}
	parsed := r.WithContext(r.Context()) // what it parses, and reads, the handler does again
	parsed.Body = body.reader()
	key, err := m.findKey(parsed, body.bytes(), r.MultipartForm)
	switch {
	case err != nil:
		m.refuse(w, r, asProblem(err, problem(TypeKeyInvalid, http.StatusBadRequest, "The request does not name its key as it must.")))
	case key == "":
		r.Body = body.reader()
		m.serveWithoutKey(w, r, next)
	case len(key) > MaxKey:
		m.refuse(w, r, reason("length", problem(TypeKeyInvalid, http.StatusBadRequest, keyFaults["length"])))
	default:
		m.serveKey(w, r, next, key, body)
	}
}

// findKey calls Options.Key. It then removes the files of a form that Key parsed, even if it
// panicked, because the server does not know of them.
func (m *middleware) findKey(r *http.Request, body []byte, before *multipart.Form) (string, error) {
	defer func() {
		if form := r.MultipartForm; form != nil && form != before {
			_ = form.RemoveAll() // files that are left are in the system's place for such
		}
	}()
	return m.o.Key(r, body)
}

func (m *middleware) serveWithoutKey(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !m.o.RequireKey {
		next.ServeHTTP(w, r)
		return
	}
	advice := "The request has to name a key, and the same one when you try again."
	if m.o.Key == nil {
		advice = "Send a key of your own making in the header " + m.o.Header + ", and the same one when you try again."
	}
	m.answer(w, r, problem(TypeKeyMissing, http.StatusBadRequest, advice))
}

// serveKey serves a request with a key. body is nil if it was not read yet.
func (m *middleware) serveKey(w http.ResponseWriter, r *http.Request, next http.Handler, key string, body *requestBody) {
	scope, err := m.scope(r)
	if err != nil || scope == "" {
		m.refuse(w, r, noScope(err))
		return
	}
	req := idem.Request{
		Key: StoreKey(scope, key), Lease: m.o.Lease, Retention: m.o.Retention, HoldUnknown: !m.o.RetryUnknown,
		MaxAttempts: m.o.MaxAttempts,
	}
	if m.o.IssuedAt != nil {
		if req.IssuedAt, err = m.o.IssuedAt(r, key); err != nil {
			m.report(r, req.Key, Result{})
			m.answer(w, r, asProblem(err, reason("issued-at", problem(TypeKeyInvalid, http.StatusBadRequest, "When the key was made cannot be read."))))
			return
		}
	}
	if body == nil {
		body = m.bodies.Get().(*requestBody)
		err = m.read(r, body)
	}
	if err == nil {
		req.Fingerprint, err = m.fingerprint(r, body)
	}
	if err != nil {
		m.recycle(body)
		m.report(r, req.Key, Result{})
		m.answer(w, r, unreadable(err))
		return
	}
	claim, err := m.store.Claim(r.Context(), req)
	if m.o.Wait > 0 && err == idem.ErrInFlight && !m.nested(r, req.Key) {
		claim, err = m.await(r.Context(), req)
	}
	if ended := r.Context().Err(); err == nil && ended != nil { // in the claim's commit
		err = errors.Join(ended, m.store.Unclaim(r.Context(), claim.Token))
		claim = idem.Claim{}
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
		m.report(r, req.Key, Result{Attempt: claim.Record.Attempt})
		m.answer(w, r, m.refusal(req.Key, err))
	}
}

// refuse answers a request whose key is not known.
func (m *middleware) refuse(w http.ResponseWriter, r *http.Request, p Problem) {
	m.report(r, "", Result{})
	m.answer(w, r, p)
}

// read reads the body.
func (m *middleware) read(r *http.Request, body *requestBody) error {
	// Make room at once for what is digested before the body, and for the body.
	body.buf = body.buf[:0]
	body.grow(len(r.Method) + len(r.RequestURI) + 3*8 + int(min(max(r.ContentLength, 511), keepBuffer)) + 1)
	return body.read(r, m.o.MaxBody)
}

func (m *middleware) fingerprint(r *http.Request, body *requestBody) (idem.Fingerprint, error) {
	if m.o.Fingerprint == nil {
		return body.fingerprint(), nil
	}
	return m.o.Fingerprint(r, body.bytes())
}

// unreadable is the problem for a body that could not be read or fingerprinted.
func unreadable(err error) Problem {
	return asProblem(err, reason("fingerprint", problem(TypeBodyUnreadable, http.StatusBadRequest, "The body could not be fingerprinted.")))
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
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := m.store.Options().Clock.AfterFunc(m.o.Wait, cancel)
	defer stop()
	for {
		ended, err := m.store.Wait(waiting, req.Key)
		if err != nil && !errors.Is(err, idem.ErrNotFound) {
			if waiting.Err() != nil && ctx.Err() == nil {
				err = idem.ErrInFlight
			}
			return idem.Claim{}, err
		}
		claim, err := m.store.Claim(ctx, req)
		if errors.Is(err, idem.ErrClosed) && endings[ended.State] != nil && ended.Fingerprint == req.Fingerprint {
			// The store shuts down and answers no claim. How the first one ended is known.
			return idem.Claim{Record: ended}, endings[ended.State]
		}
		if err != idem.ErrInFlight {
			return claim, err
		}
	}
}

// endings are what a claim hears of an operation that has ended.
var endings = map[idem.State]error{idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed, idem.Held: idem.ErrHeld}

// replay answers with what is stored.
func (m *middleware) replay(w http.ResponseWriter, r *http.Request, rec *idem.Record) {
	a, p, ok := m.stored(rec)
	if !ok {
		m.report(r, rec.Key, Result{Attempt: rec.Attempt})
		m.answer(w, r, p)
		return
	}
	m.report(r, rec.Key, Result{Replayed: true, Outcome: Stored, Attempt: rec.Attempt})
	a.replay(w, m.o.ReplayedHeader)
}

// stored returns the answer that a final record replays, or if there is none the
// problem that is answered in its place.
func (m *middleware) stored(rec *idem.Record) (a storedAnswer, p Problem, ok bool) {
	a, err := openAnswer(rec.Result)
	switch {
	case err == nil && !a.notRetained:
		return a, p, true
	case err != nil && rec.State == idem.Failed && isNotAnswer(err):
		p = problem(TypeFailed, http.StatusInternalServerError, "It will not be run again under this key.")
	case err != nil && len(rec.Result) > 0:
		p = because(err, problem(TypeUnreadable, http.StatusInternalServerError, "The operation was not run again."))
	default:
		detail := "The operation is done and was not run again. Its response was too large, streamed or cut off, and cannot be shown again."
		if a.notRetained && a.status != 0 {
			detail += " Its status was " + strconv.Itoa(a.status) + "."
		}
		p = problem(TypeNotRetained, http.StatusInternalServerError, detail)
	}
	return a, m.about(rec.Key, p), false
}
