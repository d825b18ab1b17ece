package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
)

// Deploys: a store that shuts down under its handlers, and a next release with other options.

// Requests that wait for the first one get its answer also if the store begins to shut down:
// it records the first one, which they have seen.
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
				store := memoryStore(t, idem.Options{SweepInterval: -1})
				leave := make(chan struct{})
				h := once(store, idemhttp.Options{Wait: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
					<-leave
					if c.settle != nil {
						assert.NoError(t, c.settle(store, r))
					}
					w.WriteHeader(c.status)
				})
				answers := make(chan answer, 3)
				for range 3 {
					go func() {
						answers <- serve(h, keyed("k"))
					}()
				}
				synctest.Wait()
				down := make(chan error, 1)
				go func() { down <- store.Shutdown(context.Background()) }()
				synctest.Wait()
				close(leave)
				replayed := 0
				for range 3 {
					a := <-answers
					if a.replayed() {
						replayed++
						require.Equal(t, c.retries, a.status)
					} else if c.settle == nil { // else the store may be closed before the first one's handler returns
						require.Contains(t, []int{c.status, c.retries}, a.status)
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

// A handler that runs on past MaxRun keeps no store from shutting down. What it answers then
// is not shown as done, and the next process holds the operation.
func TestShutdownWithAHandlerPastMaxRun(t *testing.T) {
	t.Parallel()
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	path := filepath.Join(t.TempDir(), "idem.db")
	open := func() *idem.Store {
		b, err := bolt.Open(path, bolt.Options{MinFree: -1})
		require.NoError(t, err)
		return storeOn(t, b, idem.Options{Clock: clock, SweepInterval: -1, Lease: time.Minute})
	}
	g := newGate(t)
	store := open()
	s := newSite(t, store, idemhttp.Options{MaxRun: time.Second}, g.ServeHTTP)
	first := make(chan answer)
	go func() { first <- s.post("k") }()
	inner := <-g.entered
	down := make(chan error)
	go func() { down <- store.Shutdown(context.Background()) }()
	clock.BlockUntil(3) // the heartbeat, MaxRun and Shutdown
	clock.Advance(time.Second)
	<-inner.Context().Done()
	require.Equal(t, idemhttp.ErrMaxRun, context.Cause(inner.Context()))
	for clock.Pending() > 1 { // until the heartbeat has ended too: Shutdown's timer is left
		runtime.Gosched()
	}
	clock.Advance(2 * time.Minute)
	require.NoError(t, <-down)
	close(g.leave)
	wantProblem(t, <-first, 503, idemhttp.TypeNotRecorded)

	next := newSite(t, open(), idemhttp.Options{}, echo)
	for range 2 {
		wantProblem(t, next.post("k"), 500, idemhttp.TypeOutcomeUnknown)
	}
	require.Zero(t, next.runs.Load())
}

// A handler that panics while the store shuts down is recorded like any other.
func TestPanicDuringShutdown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "idem.db")
	open := func() *idem.Store {
		b, err := bolt.Open(path, bolt.Options{MinFree: -1})
		require.NoError(t, err)
		return storeOn(t, b, idem.Options{SweepInterval: -1})
	}
	store := open()
	g := newGate(t)
	s := newSite(t, store, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
		g.entered <- r
		g.wait()
		panic("in the middle of a deploy")
	})
	first := make(chan answer)
	go func() { first <- s.post("k") }()
	<-g.entered
	down := make(chan error)
	go func() { down <- store.Shutdown(context.Background()) }()
	for store.Health(t.Context()) == nil { // it has not begun
	}
	close(g.leave)
	require.Error(t, (<-first).err)
	require.NoError(t, <-down)
	next := newSite(t, open(), idemhttp.Options{}, echo)
	next.wantUnknown("k")
	require.Equal(t, "the handler panicked", string(next.wantRecord("k", idem.Held).Result))
}

// The next release has other options. What the one before has left keeps its meaning.
func TestOptionsChangeBetweenDeploys(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		header := idemhttp.Options{KeepHeader: func(string) bool { return true }, Retention: time.Hour, Lease: time.Hour}
		before := newSite(t, store, header, func(w http.ResponseWriter, r *http.Request) {
			switch idemhttp.FromContext(r.Context()).Key() {
			case "done":
				w.Header().Set("X-Old", "1")
				w.WriteHeader(201)
				fmt.Fprint(w, repeat("long ", 1000))
			case "held":
				w.WriteHeader(500)
			case "again":
				idemhttp.FromContext(r.Context()).Retryable()
				w.WriteHeader(409)
			}
		})
		first := before.post("done")
		require.Equal(t, 500, before.post("held").status)
		for range 3 {
			require.Equal(t, 409, before.post("again").status)
		}

		after := newSite(t, store, idemhttp.Options{
			Key:         func(r *http.Request, _ []byte) (string, error) { return r.Header.Get("X-Request-Id"), nil },
			KeepHeader:  func(string) bool { return false },
			MaxResponse: 10, RetryUnknown: true, MaxAttempts: 2, Retention: time.Second, Lease: time.Second,
		}, echo)
		post := func(key string) answer { return after.post("", "X-Request-Id", key) }
		a := post("done")
		require.True(t, a.replayed())
		require.Equal(t, first.status, a.status)
		require.Equal(t, first.body, a.body)
		require.Equal(t, "1", a.header.Get("X-Old"))
		wantProblem(t, post("held"), 500, idemhttp.TypeOutcomeUnknown)
		wantProblem(t, post("again"), 500, idemhttp.TypeExhausted)
		require.Zero(t, after.runs.Load())

		held := after.wantRecord("held", idem.Held)
		require.NoError(t, store.Complete(t.Context(), held.Token(), must(idemhttp.Answer{Status: 200, Body: []byte("found out")}.MarshalBinary())))
		a = post("held")
		require.Equal(t, "found out", a.body)
		require.True(t, a.replayed())
	})
}

// Clients that leave in crowds, and come again, cost no second run, no fault that is
// told, and no goroutine. Whoever stays hears the one answer.
func TestClientsLeaveInCrowds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore(t, idem.Options{SweepInterval: -1})
		var runs, told, results atomic.Int32
		leave := make(chan struct{})
		h := once(store, idemhttp.Options{
			Wait:     time.Hour,
			OnError:  func(*http.Request, error) { told.Add(1) },
			OnResult: func(*http.Request, idemhttp.Result) { results.Add(1) },
		}, func(w http.ResponseWriter, r *http.Request) {
			runs.Add(1)
			<-leave
			assert.NoError(t, r.Context().Err())
			fmt.Fprint(w, "done")
		})
		var crowd sync.WaitGroup
		come := func(ctx context.Context, n int, want int) {
			for range n {
				crowd.Go(func() {
					a := serve(h, keyed("k").WithContext(ctx))
					if want != 0 {
						assert.Equal(t, want, a.status)
					}
				})
			}
		}
		for range 5 {
			ctx, gone := context.WithCancel(t.Context())
			come(ctx, 100, 0)
			synctest.Wait()
			gone()
			synctest.Wait()
		}
		come(t.Context(), 10, 200)
		synctest.Wait()
		close(leave)
		crowd.Wait()
		require.EqualValues(t, 1, runs.Load())
		require.Zero(t, told.Load())
		require.EqualValues(t, 510, results.Load())
		rec := wantRecord(t, store, "k", idem.Completed)
		require.Equal(t, 1, rec.Attempt)
	})
}

// Logs and metrics that block keep the request that they are told of, and no store that
// shuts down: the outcome is recorded before they are told.
func TestShutdownWithObserversThatBlock(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"result", "error"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memoryStore(t, idem.Options{SweepInterval: -1})
				leave := make(chan struct{})
				o := idemhttp.Options{OnResult: func(*http.Request, idemhttp.Result) { <-leave }}
				if key == "error" {
					o = idemhttp.Options{OnError: func(*http.Request, error) { <-leave }}
				}
				h := once(store, o, func(_ http.ResponseWriter, r *http.Request) {
					if key == "error" {
						idemhttp.FromContext(r.Context()).Returned(errors.New("no answer"))
					}
				})
				answered := make(chan int, 1)
				go func() {
					w := serve(h, keyed(key))
					answered <- w.status
				}()
				synctest.Wait()
				require.Empty(t, answered)
				require.NoError(t, store.Shutdown(t.Context()))
				close(leave)
				require.Equal(t, map[string]int{"result": 200, "error": 500}[key], <-answered)
			})
		})
	}
}
