package idemhttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// Middlewares inside of one another, in one process and over a proxy.

// A request that a handler makes in-process is not its answer: that it was refused
// says nothing of the operation, which is done and must not be run again.
func TestRefusedSubRequest(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	inner := once(store, idemhttp.Options{}, echo)
	s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		sub := httptest.NewRequest(http.MethodPost, "/mails", strings.NewReader("paid")).WithContext(r.Context())
		sub.Header.Set("Idempotency-Key", "not, a key")
		recorder := serve(inner, sub)
		assert.Equal(t, 400, recorder.status)
		fmt.Fprint(w, "charged")
	})
	first, replay := s.replayOf("k")
	require.Equal(t, "charged", first.body)
	require.Equal(t, "charged", replay.body)
	require.EqualValues(t, 1, s.runs.Load())
	s.wantRecord("k", idem.Completed)
}

// passWriter is a ResponseWriter between two middlewares.
type passWriter struct{ http.ResponseWriter }

func (w passWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A refusal by a middleware further in, that is the answer, is none of the operation,
// also where a ResponseWriter lies between.
func TestRefusedFurtherIn(t *testing.T) {
	t.Parallel()
	inner := once(memoryStore(t, idem.Options{}), idemhttp.Options{Header: "Inner-Key"}, echo)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(passWriter{w}, r) })
	for range 2 {
		wantProblem(t, s.post("k", "Inner-Key", "not, a key"), 400, idemhttp.TypeKeyInvalid)
	}
	require.EqualValues(t, 2, s.runs.Load())
	s.wantNoRecord("k")
	require.Equal(t, "12.50 <nil>", s.post("k", "Inner-Key", "a-key").body)
}

// A handler that has done its work, and said so or answered, is not run again because a
// middleware further in refuses what it passes on.
func TestRefusedAfterTheWork(t *testing.T) {
	t.Parallel()
	inner := once(memoryStore(t, idem.Options{}), idemhttp.Options{Header: "Inner-Key", RequireKey: true}, echo)
	for name, c := range map[string]struct {
		do    func(w http.ResponseWriter, r *http.Request)
		state idem.State
	}{
		"final":    {func(_ http.ResponseWriter, r *http.Request) { idemhttp.FromContext(r.Context()).Final() }, idem.Completed},
		"unknown":  {func(_ http.ResponseWriter, r *http.Request) { idemhttp.FromContext(r.Context()).Unknown() }, idem.Held},
		"answered": {does(put("charged")), idem.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
				c.do(w, r)
				inner.ServeHTTP(w, r)
			})
			s.post("k")
			s.wantRecord("k", c.state)
			s.post("k")
			require.EqualValues(t, 1, s.runs.Load())
		})
	}
}

// Behind a proxy another idemhttp service answers, and what it answers until its first
// request is done is no answer for the retention.
func TestPassingProblemsOfAProxy(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	upstream := newSite(t, nil, idemhttp.Options{}, g.ServeHTTP)
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(upstream.url)))
	s := newSite(t, nil, idemhttp.Options{}, proxy.ServeHTTP)
	first := make(chan answer)
	go func() { first <- upstream.post("k") }() // it did not come by this proxy
	<-g.entered
	wantProblem(t, s.post("k"), 409, idemhttp.TypeInFlight)
	s.wantNoRecord("k")
	close(g.leave)
	require.Equal(t, "done", (<-first).body)
	upstream.settled("k")
	require.Equal(t, "done", s.post("k").body)
	require.EqualValues(t, 2, s.runs.Load())
	require.Equal(t, "done", s.post("k").body)
	require.EqualValues(t, 2, s.runs.Load(), "that one is final")
}

// Which answers say themselves that they are not final, by status and header alone: what
// a proxy passes on of another middleware like this one does.
func TestPassingAnswers(t *testing.T) {
	t.Parallel()
	problem := func(kind string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			p := idemhttp.Problem{Type: kind, Status: status}
			if kind == idemhttp.TypeInFlight {
				p.RetryAfter = time.Second
			}
			idemhttp.WriteProblem(w, r, p)
		}
	}
	busy := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusConflict)
		switch idemhttp.FromContext(r.Context()).Key() {
		case "final":
			idemhttp.FromContext(r.Context()).Final()
		case "flushed":
			flush(w)
		}
	}
	own := func(int, http.Header) idemhttp.Outcome { return idemhttp.Stored }
	for name, c := range map[string]struct {
		key     string
		handler http.HandlerFunc
		outcome func(int, http.Header) idemhttp.Outcome
		want    idem.State
	}{
		"409 with Retry-After":        {"k", busy, nil, idem.Released},
		"flushed":                     {"flushed", busy, nil, idem.Released},
		"the handler's word":          {"final", busy, nil, idem.Completed},
		"the service's policy":        {"k", busy, own, idem.Completed},
		"in flight":                   {"k", problem(idemhttp.TypeInFlight, 409), nil, idem.Released},
		"of nobody":                   {"k", problem(idemhttp.TypeScopeMissing, 403), nil, idem.Released},
		"body broke off":              {"k", problem(idemhttp.TypeBodyUnreadable, 408), nil, idem.Released},
		"mismatch":                    {"k", problem(idemhttp.TypeMismatch, 422), nil, idem.Completed},
		"key invalid":                 {"k", problem(idemhttp.TypeKeyInvalid, 400), nil, idem.Completed},
		"outcome unknown":             {"k", problem(idemhttp.TypeOutcomeUnknown, 500), nil, idem.Held},
		"somebody else's problem":     {"k", problem("urn:sold-out", 409), nil, idem.Completed},
		"success that names the type": {"k", problem(idemhttp.TypeInFlight, 200), nil, idem.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{Outcome: c.outcome}, c.handler)
			s.post(c.key)
			if c.want == idem.Released {
				s.wantNoRecord(c.key)
				return
			}
			s.wantRecord(c.key, c.want)
		})
	}
}

// Wrapped twice, by mistake or at two levels, the middleware does not wait for itself, however
// many others lie between, and has one thing to tell. An answer of the inner one is not taken
// for the handler's.
func TestNested(t *testing.T) {
	t.Parallel()
	scope := func(name string) func(*http.Request) (string, error) {
		return func(*http.Request) (string, error) { return name, nil }
	}
	seven := func(*http.Request, []byte) (idem.Fingerprint, error) { return idem.Fingerprint{7}, nil }
	store := memoryStore(t, idem.Options{})
	wrap := idemhttp.New(store, scopeOf, idemhttp.Options{Wait: time.Hour, OnResult: func(*http.Request, idemhttp.Result) {
		t.Error("it has nothing to tell of its own request")
	}})
	for name, inner := range map[string]http.Handler{
		"at once":                  wrap(http.HandlerFunc(echo)),
		"another between":          idemhttp.New(store, scope("between"), idemhttp.Options{})(wrap(http.HandlerFunc(echo))),
		"another fingerprint":      once(store, idemhttp.Options{Fingerprint: seven}, echo),
		"another scope, and print": idemhttp.New(store, scope("inner"), idemhttp.Options{Fingerprint: seven})(http.HandlerFunc(echo)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := make(chan idemhttp.Result, 2)
			s := newSite(t, store, idemhttp.Options{
				Wait: time.Hour, OnResult: func(_ *http.Request, r idemhttp.Result) { results <- r },
			}, inner.ServeHTTP)
			key := strings.ReplaceAll(name, " ", "-")
			_, replay := s.replayOf(`"` + key + `"`)
			require.Equal(t, "12.50 <nil>", replay.body)
			require.Len(t, results, 2, "one of each request")
		})
	}

	other := idemhttp.New(store, scope("inner"), idemhttp.Options{Fingerprint: seven})
	s := newSite(t, store, idemhttp.Options{}, other(http.HandlerFunc(echo)).ServeHTTP)
	_, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("inner", "busy")})
	require.NoError(t, err)
	wantProblem(t, s.post("busy"), 409, idemhttp.TypeInFlight)
	s.wantNoRecord("busy")
}
