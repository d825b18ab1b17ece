package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// What OnError is told, and what it may do.

// cut the connection.
func recoverer(recovered chan<- any) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				p := recover()
				recovered <- p
				if p == http.ErrAbortHandler {
					panic(p)
				}
				if p != nil {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}

// goes on as it is.
func TestOnErrorPanics(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	recovered := make(chan any, 1)
	var results []idemhttp.Result
	h := idemhttp.New(store, scopeOf, idemhttp.Options{
		OnError:  func(*http.Request, error) { panic("the log is gone") },
		OnResult: func(_ *http.Request, res idemhttp.Result) { results = append(results, res) },
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	}))
	server := httptest.NewUnstartedServer(recoverer(recovered)(h))
	server.Config.ErrorLog = discard
	server.Start()
	defer server.Close()
	s := &site{t: t, store: store, url: server.URL, http: server.Client()}

	t.Run("refused", func(t *testing.T) {
		require.Equal(t, 500, s.do("POST", "/held", "h", "").status)
		require.Nil(t, <-recovered)
		a := s.do("POST", "/held", "h", "")
		require.Nil(t, <-recovered)
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

// settle it.
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
			h := idemhttp.New(store, scopeOf, idemhttp.Options{
				CancelWithClient: true,
				OnError:          func(_ *http.Request, err error) { told = append(told, err) },
			})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				leave()
				<-r.Context().Done()
				end(r)
			}))
			h.ServeHTTP(httptest.NewRecorder(), keyed("k").WithContext(ctx))
			rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
			require.NoError(t, err)
			require.Equal(t, idem.Held, rec.State)
			require.Len(t, told, 1)
			var p idemhttp.Problem
			require.ErrorAs(t, told[0], &p)
			require.Equal(t, idemhttp.TypeOutcomeUnknown, p.Type)
			require.Equal(t, store.KeyHash(rec.Key), p.KeyHash)
		})
	}
}
