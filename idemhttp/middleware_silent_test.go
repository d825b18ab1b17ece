package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// Answers that nobody wrote, and frameworks that write them elsewhere.

// ginLike is a ResponseWriter as gin has it: it keeps a status until it sends it.
type ginLike struct {
	http.ResponseWriter
	status  int
	written bool
}

func (w *ginLike) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *ginLike) Status() int                 { return w.status }
func (w *ginLike) Written() bool               { return w.written }
func (w *ginLike) WriteHeader(status int) {
	if !w.written {
		w.status = status
	}
}

func (w *ginLike) Write(p []byte) (int, error) {
	w.send()
	return w.ResponseWriter.Write(p)
}

func (w *ginLike) send() {
	if !w.written {
		w.written = true
		w.ResponseWriter.WriteHeader(w.status)
	}
}

// chiLike is a ResponseWriter as chi and loggers have it: it notes the status that was sent.
type chiLike struct {
	http.ResponseWriter
	status int
}

func (w *chiLike) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *chiLike) Status() int                 { return w.status }
func (w *chiLike) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *chiLike) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

type outerKey struct{}

// outer is the ResponseWriter further out than the middleware: what a handler writes to
// that the framework has not given the middleware's.
func outer(r *http.Request) http.ResponseWriter {
	return r.Context().Value(outerKey{}).(http.ResponseWriter)
}

// framework wraps what is served in a ResponseWriter of its own.
func framework(wrap func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
	return around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		own := wrap(w)
		next.ServeHTTP(own, r.WithContext(context.WithValue(r.Context(), outerKey{}, own)))
		if g, ok := own.(*ginLike); ok {
			g.send()
		}
	})
}

var (
	likeGin = framework(func(w http.ResponseWriter) http.ResponseWriter { return &ginLike{ResponseWriter: w, status: 200} })
	likeChi = framework(func(w http.ResponseWriter) http.ResponseWriter { return &chiLike{ResponseWriter: w} })
	// likeBoth has a ResponseWriter that tells nothing around one that does.
	likeBoth = framework(func(w http.ResponseWriter) http.ResponseWriter { return passWriter{&chiLike{ResponseWriter: w}} })
)

// A handler that writes its answer to a ResponseWriter further out has not answered 200:
// what it did is not known. The client keeps what it was sent, and OnError is told.
func TestAnswerWrittenElsewhere(t *testing.T) {
	t.Parallel()
	charged := func(_ http.ResponseWriter, r *http.Request) {
		outer(r).WriteHeader(http.StatusCreated)
		fmt.Fprint(outer(r), "charged")
	}
	for name, c := range map[string]struct {
		around  func(http.Handler) http.Handler
		handler http.HandlerFunc
		retry   bool
		status  int // what the client gets; 0: a problem
		state   idem.State
	}{
		"gin":              {likeGin, charged, false, 201, idem.Held},
		"chi":              {likeChi, charged, false, 201, idem.Held},
		"chi, wrapped":     {likeBoth, charged, false, 201, idem.Held},
		"may be run again": {likeChi, charged, true, 201, idem.Released},
		"body alone":       {likeChi, func(_ http.ResponseWriter, r *http.Request) { fmt.Fprint(outer(r), "charged") }, false, 200, idem.Held},
		"status alone":     {likeGin, func(_ http.ResponseWriter, r *http.Request) { outer(r).WriteHeader(204) }, false, 0, idem.Held},
		"and said to be final": {likeChi, func(w http.ResponseWriter, r *http.Request) {
			idemhttp.FromContext(r.Context()).Final()
			charged(w, r)
		}, false, 201, idem.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{RetryUnknown: c.retry}, c.handler, c.around)
			a := s.post("k")
			if c.status == 0 {
				wantProblem(t, a, 500, idemhttp.TypeOutcomeUnknown)
			} else {
				require.Equal(t, c.status, a.status)
				require.Equal(t, "charged", a.body)
			}
			rec := s.wantRecord("k", c.state)
			require.Len(t, s.heard(), 1)
			switch c.state {
			case idem.Held:
				require.Contains(t, string(rec.Result), "another ResponseWriter")
				require.ErrorContains(t, s.heard()[0], "another ResponseWriter")
				s.wantUnknown("k")
			case idem.Completed:
				wantProblem(t, s.post("k"), 500, idemhttp.TypeNotRetained)
			}
		})
	}
}

// An empty 200 that the handler meant is one, whatever the ResponseWriter further out,
// and whatever informational answers went out before it.
func TestEmptyAnswerIsMeant(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]func(http.Handler) http.Handler{"gin": likeGin, "chi": likeChi, "both": likeBoth} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				w.WriteHeader(http.StatusEarlyHints)
				idemhttp.FromContext(r.Context()).Returned(nil)
			}, around)
			first, replay := s.replayOf("k")
			require.Equal(t, 200, first.status)
			require.Equal(t, 200, replay.status)
			require.Equal(t, "text/plain", replay.header.Get("Content-Type"))
			require.Empty(t, s.heard())
		})
	}
}

// returning wraps handlers that return errors as the adaptor of a framework should: it
// tells the operation, and then answers, or leaves that to someone further out.
func returning(h func(w http.ResponseWriter, r *http.Request) error, answers bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		idemhttp.FromContext(r.Context()).Returned(err)
		if err != nil && answers {
			http.Error(w, "an error page", http.StatusUnprocessableEntity)
		}
	}
}

// A handler that has returned an error, of which nobody has made an answer, has not
// answered 200. The marks of errors say what it was.
func TestErrorReturned(t *testing.T) {
	t.Parallel()
	plain := errors.New("the bank said no")
	for name, c := range map[string]struct {
		err     error
		answers bool
		retry   bool
		state   idem.State
		kind    string // of the problem that the first client gets; "": the handler's answer
		again   string // of that which retries get; "": they run, or replay
	}{
		"silent":                   {plain, false, false, idem.Held, idemhttp.TypeOutcomeUnknown, idemhttp.TypeOutcomeUnknown},
		"silent, may be run again": {plain, false, true, idem.Released, idemhttp.TypeNotDone, ""},
		"silent, retryable":        {idem.Retryable(plain), false, false, idem.Released, idemhttp.TypeNotDone, ""},
		"silent, unknown":          {idem.Unknown(plain), false, true, idem.Held, idemhttp.TypeOutcomeUnknown, idemhttp.TypeOutcomeUnknown},
		"silent, permanent":        {fmt.Errorf("pay: %w", idem.Permanent(plain)), false, false, idem.Failed, idemhttp.TypeFailed, idemhttp.TypeFailed},
		"answered":                 {plain, true, false, idem.Completed, "", ""},
		"answered, retryable":      {idem.Retryable(plain), true, false, idem.Released, "", ""},
		"answered, unknown":        {idem.Unknown(plain), true, true, idem.Held, "", idemhttp.TypeOutcomeUnknown},
		"answered, permanent":      {idem.Permanent(plain), true, false, idem.Completed, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{RetryUnknown: c.retry},
				returning(func(w http.ResponseWriter, _ *http.Request) error { w.Header().Set("X-Half", "1"); return c.err }, c.answers))
			want := func(a answer, kind string) {
				t.Helper()
				if kind == "" {
					require.Equal(t, 422, a.status)
					return
				}
				status := 500
				if kind == idemhttp.TypeNotDone {
					status = 503
				}
				wantProblem(t, a, status, kind)
				require.NotContains(t, a.header, "X-Half")
				require.NotContains(t, a.body, "bank")
			}
			want(s.post("k"), c.kind)
			rec := s.wantRecord("k", c.state)
			if c.state != idem.Completed {
				require.Equal(t, c.err.Error(), string(rec.Result))
			}
			if c.kind != "" {
				require.Len(t, s.heard(), 1)
			}
			if c.again != "" {
				want(s.post("k"), c.again)
				require.EqualValues(t, 1, s.runs.Load())
			} else if c.kind == "" && c.state == idem.Completed {
				require.True(t, s.post("k").replayed())
			}
		})
	}
}

// The last word of the handler and its adaptor counts. Of an operation that is not done
// an empty 200 is not sent, though nobody wrote anything else.
func TestSilentAfterAWord(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle func(op *idemhttp.Operation)
		status int
		kind   string
		state  idem.State
	}{
		"retryable":            {func(op *idemhttp.Operation) { op.Retryable() }, 503, idemhttp.TypeNotDone, idem.Released},
		"unknown":              {func(op *idemhttp.Operation) { op.Unknown() }, 500, idemhttp.TypeOutcomeUnknown, idem.Held},
		"final":                {func(op *idemhttp.Operation) { op.Final() }, 200, "", idem.Completed},
		"final after an error": {func(op *idemhttp.Operation) { op.Returned(errors.New("x")); op.Final() }, 500, idemhttp.TypeNotRetained, idem.Completed},
		"unknown after a permanent error": {func(op *idemhttp.Operation) {
			op.Returned(idem.Permanent(errors.New("x")))
			op.Unknown()
		}, 500, idemhttp.TypeOutcomeUnknown, idem.Held},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
				c.handle(idemhttp.FromContext(r.Context()))
			})
			a := s.post("k")
			if c.kind == "" {
				require.Equal(t, c.status, a.status)
			} else {
				wantProblem(t, a, c.status, c.kind)
			}
			s.wantRecord("k", c.state)
		})
	}
}

// echoLike is a ResponseWriter as echo has it, which writes the errors of handlers when
// the middleware has returned.
type echoLike struct{ http.ResponseWriter }

func (w *echoLike) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *echoLike) Before(func())               {}
func (w *echoLike) After(func())                {}

// Where a framework may still make an answer of an error, a handler that wrote nothing has
// not answered 200, unless an adaptor tells that it returned no error.
func TestFrameworkMayAnswerLater(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		state   idem.State
	}{
		"silent":  {does(), idem.Held},
		"adapted": {returning(func(http.ResponseWriter, *http.Request) error { return nil }, false), idem.Completed},
		"final":   {func(_ http.ResponseWriter, r *http.Request) { idemhttp.FromContext(r.Context()).Final() }, idem.Completed},
		"writes":  {does(code(200)), idem.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, c.handler, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				next.ServeHTTP(passWriter{&echoLike{w}}, r)
			}))
			a := s.post("k")
			s.wantRecord("k", c.state)
			if c.state == idem.Completed {
				require.Equal(t, 200, a.status)
				require.True(t, s.post("k").replayed())
				return
			}
			wantProblem(t, a, 500, idemhttp.TypeOutcomeUnknown)
			require.ErrorContains(t, s.heard()[0], "Operation.Returned")
			s.wantUnknown("k")
		})
	}
}

// A framework that writes errors outside of the middleware answers too late: an empty 200
// is recorded and sent by then. OnError is told.
func TestAnswerWrittenBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, nil)
	var told []error
	var inner http.ResponseWriter
	h := idemhttp.New(s.store, scopeOf, idemhttp.Options{OnError: func(_ *http.Request, err error) { told = append(told, err) }})(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { inner = w }))
	w := serve(h, keyed("k"))
	require.Empty(t, told)
	http.Error(inner, "no money", http.StatusPaymentRequired)
	http.Error(inner, "no money", http.StatusPaymentRequired)
	require.Equal(t, 200, w.status)
	require.Empty(t, w.body)
	require.Len(t, told, 1)
	var p idemhttp.Problem
	require.ErrorAs(t, told[0], &p)
	require.Equal(t, idemhttp.TypeMisconfigured, p.Type)
	require.NotEmpty(t, p.KeyHash)
}

// An error that the handler writes when its context has ended may tell of nothing but
// that: the work may be done. A success is one, and the handler's word counts.
func TestAnswerAfterTheContextEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		say    func(*idemhttp.Operation)
		want   idem.State
	}{
		"success":               {201, nil, idem.Completed},
		"redirect":              {303, nil, idem.Completed},
		"bad request":           {400, nil, idem.Held},
		"client closed request": {499, nil, idem.Held},
		"not now":               {429, nil, idem.Held},
		"retryable":             {499, (*idemhttp.Operation).Retryable, idem.Released},
		"final":                 {400, (*idemhttp.Operation).Final, idem.Completed},
	} {
		for _, after := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", after), func(t *testing.T) {
				t.Parallel()
				store := memoryStore(t, idem.Options{})
				ctx, leave := context.WithCancelCause(t.Context())
				left := errors.New("the client has left")
				h := once(store, idemhttp.Options{CancelWithClient: true}, func(w http.ResponseWriter, r *http.Request) {
					if c.say != nil {
						c.say(idemhttp.FromContext(r.Context()))
					}
					if !after {
						w.WriteHeader(c.status)
					}
					leave(left)
					<-r.Context().Done()
					w.WriteHeader(c.status)
				})
				serve(h, keyed("k").WithContext(ctx))
				rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
				switch {
				case after || c.say != nil || c.status == 499:
					require.NoError(t, err)
					require.Equal(t, c.want, rec.State)
					if c.want == idem.Held && after {
						require.Equal(t, fmt.Sprintf("the handler answered with status %d after it was stopped: %v", c.status, left), string(rec.Result))
					}
				case c.status == 429:
					require.Equal(t, idem.ErrNotFound, err)
				default:
					require.NoError(t, err)
					require.Equal(t, idem.Completed, rec.State)
				}
			})
		}
	}
}
