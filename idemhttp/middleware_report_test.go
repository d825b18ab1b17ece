package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/storetest"
)

// OnResult is told once of each request with a key, before its answer is sent.
func TestOnResult(t *testing.T) {
	t.Parallel()
	b := storetest.NewRich()
	store := storeOn(t, b, idem.Options{SweepInterval: -1})
	var got []idemhttp.Result
	var sent []int // the status that was sent when OnResult was called
	w := httptest.NewRecorder()
	handler := func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		switch word, _, _ := strings.Cut(op.Key(), "-"); word {
		case "500":
			w.WriteHeader(500)
		case "429":
			w.WriteHeader(429)
		case "retryable":
			op.Retryable()
			w.WriteHeader(409)
		case "held":
			_ = store.Hold(r.Context(), op.Token(), nil)
		case "failed":
			_ = store.Fail(r.Context(), op.Token(), []byte("fraud"))
		case "released":
			_ = store.Release(r.Context(), op.Token(), nil)
		case "lost":
			b.Breaking.Store(true)
		case "panics":
			panic(http.ErrAbortHandler)
		case "flushed":
			fmt.Fprint(w, "first")
			flush(w)
		default:
			fmt.Fprint(w, "done")
		}
	}
	h := once(store, idemhttp.Options{MaxBody: 100, OnResult: func(r *http.Request, res idemhttp.Result) {
		require.Equal(t, "/payments", r.URL.Path)
		got = append(got, res)
		status := w.Code
		if w.Body.Len() == 0 && !w.Flushed {
			status = 0
		}
		sent = append(sent, status)
		panic("OnResult's own")
	}}, handler)
	// once sends a request and returns what OnResult was told.
	once := func(key string, change ...func(*http.Request)) idemhttp.Result {
		t.Helper()
		got, sent, w = nil, nil, httptest.NewRecorder()
		r := keyed(key)
		for _, f := range change {
			f(r)
		}
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(w, r)
		}()
		require.Len(t, got, 1)
		return got[0]
	}
	hash := func(key string) string { return store.KeyHash(idemhttp.StoreKey("shop", key)) }
	want := func(key string, replayed bool, o idemhttp.Outcome, attempt int) idemhttp.Result {
		return idemhttp.Result{KeyHash: hash(key), Replayed: replayed, Outcome: o, Attempt: attempt}
	}

	require.Equal(t, want("a", false, idemhttp.Stored, 1), once("a"))
	require.Equal(t, []int{0}, sent, "before the answer")
	require.Equal(t, want("a", true, idemhttp.Stored, 1), once("a"))
	require.Equal(t, []int{0}, sent)
	require.Equal(t, want("flushed", false, idemhttp.Stored, 1), once("flushed"))
	require.Equal(t, want("500", false, idemhttp.Unknown, 1), once("500"))
	require.Equal(t, want("500", false, 0, 1), once("500"), "refused: it is held")
	require.Equal(t, want("429", false, idemhttp.NotNow, 1), once("429"))
	require.Equal(t, want("retryable", false, idemhttp.Released, 1), once("retryable"))
	require.Equal(t, want("retryable", false, idemhttp.Released, 2), once("retryable"))
	require.Equal(t, want("panics", false, idemhttp.Unknown, 1), once("panics"))
	require.Equal(t, want("held", false, idemhttp.Unknown, 1), once("held"))
	require.Equal(t, want("failed", false, idemhttp.Stored, 1), once("failed"))
	require.Equal(t, want("failed", false, 0, 1), once("failed"), "refused: there is nothing to replay")
	require.Equal(t, want("released", false, 0, 1), once("released"), "it could not be recorded")

	_, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("shop", "busy")})
	require.NoError(t, err)
	require.Equal(t, want("busy", false, 0, 1), once("busy"), "in flight")
	require.Equal(t, want("a", false, 0, 0), once("a", func(r *http.Request) { r.Method = "PATCH" }), "another request")
	require.Equal(t, want("b", false, 0, 0), once("b", func(r *http.Request) { r.ContentLength = 1000 }), "too long")
	require.Equal(t, idemhttp.Result{}, once("not, a key"))
	require.Equal(t, idemhttp.Result{}, once("a", func(r *http.Request) { r.Header.Set("Tenant", "none") }))

	got = nil
	r := keyed("a")
	r.Header.Del("Idempotency-Key")
	serve(h, r)
	require.Empty(t, got, "it has no key")

	require.Equal(t, want("lost", false, 0, 1), once("lost"), "it could not be recorded")
	require.Equal(t, want("c", false, 0, 0), once("c"), "the store is broken")
}

// What OnError is told, and what it may do.

// recoverer is middleware that answers 500 to panics, but for those that are to cut the
// connection, and says what it has recovered.
func recoverer(recovered chan<- any) func(http.Handler) http.Handler {
	return around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("X-Outer", "1")
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			recovered <- p
			if p == http.ErrAbortHandler {
				panic(p)
			}
			http.Error(w, "recovered", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// An OnError that panics changes nothing: what was to be answered is, and the handler's panic
// goes on as it is.
func TestOnErrorPanics(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	recovered := make(chan any, 1)
	var results []idemhttp.Result
	h := once(store, idemhttp.Options{
		OnError:  func(*http.Request, error) { panic("the log is gone") },
		OnResult: func(_ *http.Request, res idemhttp.Result) { results = append(results, res) },
	}, func(w http.ResponseWriter, r *http.Request) {
		token := idemhttp.FromContext(r.Context()).Token()
		switch r.URL.Path {
		case "/held":
			w.WriteHeader(http.StatusInternalServerError)
		case "/streams":
			fmt.Fprint(w, "paid")
			flush(w)
			assert.NoError(t, store.Forget(r.Context(), token))
		case "/panics":
			assert.NoError(t, store.Forget(r.Context(), token))
			panic("the handler's own")
		}
	})
	server := httptest.NewUnstartedServer(recoverer(recovered)(h))
	server.Config.ErrorLog = discard
	server.Start()
	defer server.Close()
	s := &site{t: t, store: store, url: server.URL, http: server.Client()}

	t.Run("refused", func(t *testing.T) {
		require.Equal(t, 500, s.do("POST", "/held", "h", "").status)
		a := s.do("POST", "/held", "h", "")
		require.Empty(t, recovered)
		wantProblem(t, a, 500, idemhttp.TypeOutcomeUnknown)
	})
	t.Run("streams", func(t *testing.T) {
		err := s.do("POST", "/streams", "s", "").err
		require.Equal(t, http.ErrAbortHandler, <-recovered)
		require.Error(t, err, "it must not look done")
	})
	t.Run("panics", func(t *testing.T) {
		results = nil
		require.Equal(t, 500, s.do("POST", "/panics", "p", "").status)
		require.Equal(t, "the handler's own", <-recovered)
		require.Len(t, results, 1)
	})
}

// OnError is told of what is held for a client that has left: somebody may have to settle
// it.
func TestHeldForAClientThatLeftIsTold(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*http.Request){
		"silent":   func(*http.Request) {},
		"an error": func(r *http.Request) { idemhttp.FromContext(r.Context()).Returned(r.Context().Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			var told []error
			store := memoryStore(t, idem.Options{})
			h := once(store, idemhttp.Options{
				CancelWithClient: true,
				OnError:          func(_ *http.Request, err error) { told = append(told, err) },
			}, func(_ http.ResponseWriter, r *http.Request) {
				leave()
				<-r.Context().Done()
				end(r)
			})
			serve(h, keyed("k").WithContext(ctx))
			rec := wantRecord(t, store, "k", idem.Held)
			require.Len(t, told, 1)
			var p idemhttp.Problem
			require.ErrorAs(t, told[0], &p)
			require.Equal(t, idemhttp.TypeOutcomeUnknown, p.Type)
			require.Equal(t, store.KeyHash(rec.Key), p.KeyHash)
		})
	}
}
