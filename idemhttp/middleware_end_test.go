package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
)

// What ends a handler's context: a deadline further out and MaxRun, and not the client.

// A deadline of middleware further out reaches the handler; the client's leaving does
// not. Without an answer since, nobody knows whether the operation was done.
func TestOuterDeadline(t *testing.T) {
	t.Parallel()
	for name, retry := range map[string]bool{"held": false, "run again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memoryStore(t, idem.Options{SweepInterval: -1})
				attempts := 0
				began := time.Now()
				h := idemhttp.New(store, scopeOf, idemhttp.Options{RetryUnknown: retry})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if attempts++; attempts > 1 {
						fmt.Fprint(w, "done")
						return
					}
					<-r.Context().Done()
					assert.Equal(t, 5*time.Second, time.Since(began))
					assert.Equal(t, context.DeadlineExceeded, context.Cause(r.Context()))
				}))
				serve := func(ctx context.Context) answer {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, keyed("k").WithContext(ctx))
					return answer{status: w.Code, header: w.Header(), body: w.Body.String()}
				}
				client, leave := context.WithCancel(t.Context())
				ctx, cancel := context.WithTimeout(client, 5*time.Second)
				defer cancel()
				time.AfterFunc(time.Second, leave)
				first := serve(ctx)
				rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
				require.NoError(t, err)
				require.Equal(t, "the handler was stopped and did not answer: context deadline exceeded", string(rec.Result))
				if !retry {
					wantProblem(t, first, 500, idemhttp.TypeOutcomeUnknown)
					wantProblem(t, serve(t.Context()), 500, idemhttp.TypeOutcomeUnknown)
					return
				}
				wantProblem(t, first, 503, idemhttp.TypeNotDone)
				require.Equal(t, 1, rec.Attempt)
				require.Equal(t, "done", serve(t.Context()).body)
			})
		})
	}
}

// http.TimeoutHandler outside of the middleware stops the handler. What that answers
// after all is what retries get.
func TestTimeoutHandlerOutside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore(t, idem.Options{SweepInterval: -1})
		once := idemhttp.New(store, scopeOf, idemhttp.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(time.Second) // it was charging
			w.WriteHeader(http.StatusCreated)
		}))
		h := http.TimeoutHandler(once, time.Minute, "too slow")
		serve := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, keyed("k"))
			return w
		}
		require.Equal(t, 503, serve().Code)
		time.Sleep(time.Second)
		synctest.Wait()
		again := serve()
		require.Equal(t, 201, again.Code)
		require.Equal(t, "true", again.Header().Get("Idempotent-Replayed"))
	})
}

// With CancelWithClient a handler that stops for its client, and says nothing, has not
// answered 200.
func TestSilentAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	ctx, leave := context.WithCancel(t.Context())
	h := idemhttp.New(store, scopeOf, idemhttp.Options{CancelWithClient: true})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leave()
		<-r.Context().Done()
	}))
	h.ServeHTTP(httptest.NewRecorder(), keyed("k").WithContext(ctx))
	rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
	require.NoError(t, err)
	require.Equal(t, idem.Held, rec.State)
}

const maxRun = 45 * time.Second

// runOut lets maxRun pass, with n heartbeats of the store's default lease.
func runOut(clock *idemtest.Clock, n int) {
	for range 4 {
		clock.BlockUntil(1 + n)
		clock.Advance(10 * time.Second)
	}
	clock.BlockUntil(1 + n)
	clock.Advance(5 * time.Second)
}

// A handler that hangs keeps its key for MaxRun and one lease. Nothing is released while
// it runs, and what it answers then is recorded if nobody has taken over.
func TestMaxRun(t *testing.T) {
	t.Parallel()
	for _, retry := range []bool{false, true} {
		t.Run(map[bool]string{false: "held", true: "run again"}[retry], func(t *testing.T) {
			t.Parallel()
			let, stopped := make(chan struct{}), make(chan error, 1)
			clock, store, serve := clocked(t, idemhttp.Options{RetryUnknown: retry, MaxRun: maxRun}, func(w http.ResponseWriter, r *http.Request) {
				op := idemhttp.FromContext(r.Context())
				if op.Attempt() == 1 {
					<-r.Context().Done()
					stopped <- context.Cause(r.Context())
					<-let
				}
				fmt.Fprint(w, "attempt ", op.Attempt())
			})
			late := make(chan *httptest.ResponseRecorder, 1)
			go func() { late <- serve("k") }()
			runOut(clock, 1)
			require.Equal(t, idemhttp.ErrMaxRun, <-stopped)
			for clock.Pending() > 0 { // until the last heartbeat has ended
				runtime.Gosched()
			}
			require.Equal(t, 409, serve("k").Code, "the lease is not over")
			clock.Advance(30 * time.Second)
			rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
			require.NoError(t, err)
			require.Equal(t, idem.InFlight, rec.State)
			if retry {
				require.Equal(t, "attempt 2", serve("k").Body.String())
				close(let)
				w := <-late
				wantProblem(t, answer{status: w.Code, header: w.Header(), body: w.Body.String()}, 503, idemhttp.TypeNotRecorded)
				require.Equal(t, "attempt 2", serve("k").Body.String(), "the late one changed nothing")
				return
			}
			w := serve("k")
			wantProblem(t, answer{status: w.Code, header: w.Header(), body: w.Body.String()}, 500, idemhttp.TypeOutcomeUnknown)
			close(let)
			require.Equal(t, "attempt 1", (<-late).Body.String())
			require.Equal(t, "true", serve("k").Header().Get("Idempotent-Replayed"))
			require.Zero(t, clock.Pending())
		})
	}
}

// Handlers that end in time, or panic, leave no timer.
func TestMaxRunLeavesNoTimer(t *testing.T) {
	t.Parallel()
	clock, _, serve := clocked(t, idemhttp.Options{MaxRun: time.Minute}, func(_ http.ResponseWriter, r *http.Request) {
		if idemhttp.FromContext(r.Context()).Key() == "panics" {
			panic("at once")
		}
	})
	require.Equal(t, 200, serve("k").Code)
	require.Zero(t, clock.Pending())
	require.Panics(t, func() { serve("panics") })
	require.Zero(t, clock.Pending())
}

// MaxRun of a middleware reaches a handler that runs under another one, too.
func TestMaxRunOfAnOuterMiddleware(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	inner := idemhttp.New(memoryStore(t, idem.Options{}), scopeOf, idemhttp.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		fmt.Fprint(w, context.Cause(r.Context()))
	}))
	clock, _, serve := clocked(t, idemhttp.Options{MaxRun: time.Second}, inner.ServeHTTP)
	served := make(chan *httptest.ResponseRecorder)
	go func() { served <- serve("k") }()
	<-entered
	clock.BlockUntil(2)
	clock.Advance(time.Second)
	require.Equal(t, idemhttp.ErrMaxRun.Error(), (<-served).Body.String())
}

// A middleware does not wait for its own request, however many others lie between.
func TestNestedTwice(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	wrap := idemhttp.New(store, scopeOf, idemhttp.Options{Wait: time.Hour})
	between := idemhttp.New(store, func(*http.Request) (string, error) { return "between", nil }, idemhttp.Options{})
	s := newSite(t, store, idemhttp.Options{}, between(wrap(http.HandlerFunc(echo))).ServeHTTP)
	_, replay := s.replayOf("k")
	require.Equal(t, "12.50 <nil>", replay.body)
}
