package idemhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// Deploys: a store that shuts down under its handlers, and a next release with other options.

// begins to shut down: it records the first one, which they have seen.
func TestWaitDuringShutdown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status   int
		settle   func(*idem.Store, *http.Request) error
		retries  int
		replayed bool
	}{
		"stored":  {status: 201, retries: 201, replayed: true},
		"held":    {status: 500, retries: 500},
		"not now": {status: 429, retries: 503},
		"failed": {status: 201, retries: 402, replayed: true, settle: func(s *idem.Store, r *http.Request) error {
			return s.Fail(r.Context(), idemhttp.FromContext(r.Context()).Token(), must(idemhttp.Answer{Status: 402}.MarshalBinary()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, err := idem.New(memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
				require.NoError(t, err)
				leave := make(chan struct{})
				h := idemhttp.New(store, scopeOf, idemhttp.Options{Wait: time.Minute})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-leave
					if c.settle != nil {
						assert.NoError(t, c.settle(store, r))
					}
					w.WriteHeader(c.status)
				}))
				answers := make(chan *httptest.ResponseRecorder, 3)
				for range 3 {
					go func() {
						w := httptest.NewRecorder()
						h.ServeHTTP(w, keyed("k"))
						answers <- w
					}()
				}
				synctest.Wait()
				down := make(chan error, 1)
				go func() { down <- store.Shutdown(context.Background()) }()
				synctest.Wait()
				close(leave)
				replayed := 0
				for range 3 {
					w := <-answers
					if w.Header().Get("Idempotent-Replayed") == "true" {
						replayed++
						require.Equal(t, c.retries, w.Code)
					} else {
						require.Contains(t, []int{c.status, c.retries}, w.Code)
					}
				}
				if c.replayed {
					require.Equal(t, 2, replayed)
				} else {
					require.Zero(t, replayed)
				}
				require.NoError(t, <-down)
			})
		})
	}
}
