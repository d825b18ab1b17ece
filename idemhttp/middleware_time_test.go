package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
)

// Handlers that take their time, requests that wait for them, and middleware inside of
// middleware.

// clocked is a store in memory on a clock that stands still, and a way to serve
// requests without a server.
func clocked(t *testing.T, o idemhttp.Options, h http.HandlerFunc) (*idemtest.Clock, *idem.Store, func(key string) answer) {
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	store := memoryStore(t, idem.Options{Clock: clock, SweepInterval: -1})
	wrapped := idemhttp.New(store, scopeOf, o)(h)
	return clock, store, func(key string) answer {
		return serve(wrapped, keyed(key))
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o     idemhttp.Options
		every time.Duration
	}{
		"a third of the store's lease": {idemhttp.Options{RetryUnknown: true}, 10 * time.Second},
		"a third of its own":           {idemhttp.Options{Lease: 3 * time.Minute}, time.Minute},
		"where unknown is run again":   {idemhttp.Options{RetryUnknown: true, Lease: time.Hour}, 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			clock, store, serve := clocked(t, c.o, g.ServeHTTP)
			first := make(chan answer)
			go func() { first <- serve("k") }()
			<-g.entered
			lease := map[bool]time.Duration{true: 30 * time.Second, false: c.o.Lease}[c.o.Lease == 0]
			for range 10 {
				clock.BlockUntil(1)
				clock.Advance(c.every)
				clock.BlockUntil(1) // the beat has been, and set the next
				rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
				require.NoError(t, err)
				now, _ := clock.Now()
				require.Equal(t, lease, rec.LeaseUntil.Sub(now))
				require.Equal(t, !c.o.RetryUnknown, rec.HoldUnknown)
				require.Equal(t, 409, serve("k").status)
			}
			close(g.leave)
			require.Equal(t, 200, (<-first).status)
			require.Zero(t, clock.Pending())
			require.True(t, serve("k").replayed())
		})
	}
}

func TestClaimLost(t *testing.T) {
	t.Parallel()
	cause := make(chan error)
	var attempt atomic.Int32
	second := newGate(t)
	clock, store, serve := clocked(t, idemhttp.Options{RetryUnknown: true}, func(w http.ResponseWriter, r *http.Request) {
		if attempt.Add(1) == 1 {
			<-r.Context().Done()
			cause <- context.Cause(r.Context())
			fmt.Fprint(w, "late")
			return
		}
		second.ServeHTTP(w, r)
	})
	key := idemhttp.StoreKey("shop", "k")
	first := make(chan answer)
	go func() { first <- serve("k") }()
	clock.BlockUntil(1)
	require.NoError(t, store.Forget(t.Context(), idem.Token{Key: key}))
	took := make(chan answer)
	go func() { took <- serve("k") }()
	<-second.entered
	clock.Advance(10 * time.Second)
	require.Equal(t, idem.ErrFenced, <-cause)
	late := <-first
	wantProblem(t, late, 503, idemhttp.TypeNotRecorded)
	close(second.leave)
	require.Equal(t, "done", (<-took).body)
	require.Equal(t, "done", serve("k").body, "the late one changed nothing")
	require.Zero(t, clock.Pending())
}

// A handler that has completed its operation by itself has lost nothing: what it does
// after that is not cancelled. One that holds it can still lose it.
func TestWorkAfterSettlingIsNotCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore(t, idem.Options{SweepInterval: -1})
		h := once(store, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
			ctx, op := r.Context(), idemhttp.FromContext(r.Context())
			if op.Key() == "completes" {
				answer, err := idemhttp.Answer{Status: 201}.MarshalBinary()
				assert.NoError(t, err)
				assert.NoError(t, store.Complete(ctx, op.Token(), answer))
				time.Sleep(time.Hour)
				assert.NoError(t, context.Cause(ctx))
				return
			}
			assert.NoError(t, store.Hold(ctx, op.Token(), nil))
			time.Sleep(time.Hour)
			assert.NoError(t, context.Cause(ctx))
			assert.NoError(t, store.Forget(ctx, idem.Token{Key: op.Token().Key}))
			<-ctx.Done()
			assert.Equal(t, idem.ErrFenced, context.Cause(ctx))
		})
		for key, status := range map[string]int{"completes": 201, "holds": 503} {
			w := serve(h, keyed(key))
			require.Equal(t, status, w.status)
		}
	})
}

// Beats that race the end of the handler are waited for, and do it no harm.
func TestBeatRacesEnd(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	h := once(store, idemhttp.Options{Lease: time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		for rec, err := store.Get(r.Context(), op.Token().Key); err == nil && rec.LeaseUntil.Sub(rec.ClaimedAt) <= time.Millisecond; {
			rec, err = store.Get(r.Context(), op.Token().Key) // until the first beat
		}
		echo(w, r)
	})
	for n := range 300 {
		w := serve(h, keyed(fmt.Sprint("k", n)))
		require.Equal(t, "12.50 <nil>", w.body)
	}
}

// Wait is counted on the store's clock.
func TestWaitIsOnTheStoresClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock, store, post := clocked(t, idemhttp.Options{Wait: 10 * time.Second}, echo)
		_, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("shop", "k")})
		require.NoError(t, err)
		answers := make(chan answer, 1)
		go func() { answers <- post("k") }()
		synctest.Wait()
		clock.Advance(10*time.Second - 1)
		synctest.Wait()
		require.Empty(t, answers)
		clock.Advance(1)
		synctest.Wait()
		require.Len(t, answers, 1)
		wantProblem(t, <-answers, 409, idemhttp.TypeInFlight)
	})
}

// With Wait, requests that come while the first is being worked on get its answer.
func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore(t, idem.Options{SweepInterval: -1})
		g := newGate(t)
		var status atomic.Int32
		h := once(store, idemhttp.Options{Wait: 10 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
			g.entered <- r
			<-g.leave
			w.WriteHeader(int(status.Load()))
			fmt.Fprint(w, "done")
		})
		serve := func(ctx context.Context, key string, answers chan<- answer) {
			answers <- serve(h, keyed(key).WithContext(ctx))
		}
		answers := make(chan answer, 8)
		race := func(key string) {
			for range 4 {
				go serve(t.Context(), key, answers)
			}
			synctest.Wait()
			require.Empty(t, answers)
			require.Len(t, g.entered, 1)
			<-g.entered
		}

		race("done")
		status.Store(200)
		g.leave <- struct{}{}
		replays := 0
		for range 4 {
			a := <-answers
			require.Equal(t, 200, a.status)
			require.Equal(t, "done", a.body)
			if a.replayed() {
				replays++
			}
		}
		require.Equal(t, 3, replays)

		race("turned-away") // then one of those that waited runs it
		status.Store(429)
		g.leave <- struct{}{}
		require.Equal(t, 429, (<-answers).status)
		<-g.entered
		status.Store(201)
		g.leave <- struct{}{}
		for range 3 {
			require.Equal(t, 201, (<-answers).status)
		}

		race("slow") // for ten seconds and no longer
		began := time.Now()
		for range 3 {
			wantProblem(t, <-answers, 409, idemhttp.TypeInFlight)
		}
		require.Equal(t, 10*time.Second, time.Since(began))
		g.leave <- struct{}{}
		require.Equal(t, 201, (<-answers).status)

		race("left") // by a client that waits
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan answer, 1)
		go serve(ctx, "left", left)
		synctest.Wait()
		leave()
		require.Equal(t, 503, (<-left).status) // to nobody
		require.NoError(t, store.Close())      // wakes the others
		for range 3 {
			wantProblem(t, <-answers, 503, idemhttp.TypeUnavailable)
		}
		g.leave <- struct{}{}
		wantProblem(t, <-answers, 503, idemhttp.TypeNotRecorded)
	})
}

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
				h := once(store, idemhttp.Options{RetryUnknown: retry}, func(w http.ResponseWriter, r *http.Request) {
					if attempts++; attempts > 1 {
						fmt.Fprint(w, "done")
						return
					}
					<-r.Context().Done()
					assert.Equal(t, 5*time.Second, time.Since(began))
					assert.Equal(t, context.DeadlineExceeded, context.Cause(r.Context()))
				})
				serve := func(ctx context.Context) answer { return serve(h, keyed("k").WithContext(ctx)) }
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
		inner := once(store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(time.Second) // it was charging
			w.WriteHeader(http.StatusCreated)
		})
		h := http.TimeoutHandler(inner, time.Minute, "too slow")
		serve := func() answer { return serve(h, keyed("k")) }
		require.Equal(t, 503, serve().status)
		time.Sleep(time.Second)
		synctest.Wait()
		again := serve()
		require.Equal(t, 201, again.status)
		require.True(t, again.replayed())
	})
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
			late := make(chan answer, 1)
			go func() { late <- serve("k") }()
			runOut(clock, 1)
			require.Equal(t, idemhttp.ErrMaxRun, <-stopped)
			for clock.Pending() > 0 { // until the last heartbeat has ended
				runtime.Gosched()
			}
			require.Equal(t, 409, serve("k").status, "the lease is not over")
			clock.Advance(30 * time.Second)
			wantRecord(t, store, "k", idem.InFlight)
			if retry {
				require.Equal(t, "attempt 2", serve("k").body)
				close(let)
				wantProblem(t, <-late, 503, idemhttp.TypeNotRecorded)
				require.Equal(t, "attempt 2", serve("k").body, "the late one changed nothing")
				return
			}
			wantProblem(t, serve("k"), 500, idemhttp.TypeOutcomeUnknown)
			close(let)
			require.Equal(t, "attempt 1", (<-late).body)
			require.True(t, serve("k").replayed())
			require.Zero(t, clock.Pending())
		})
	}
}

// MaxRun of a middleware reaches a handler that runs under another one, too.
func TestMaxRunOfAnOuterMiddleware(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	inner := once(memoryStore(t, idem.Options{}), idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		fmt.Fprint(w, context.Cause(r.Context()))
	})
	clock, _, serve := clocked(t, idemhttp.Options{MaxRun: time.Second}, inner.ServeHTTP)
	served := make(chan answer)
	go func() { served <- serve("k") }()
	<-entered
	clock.BlockUntil(2)
	clock.Advance(time.Second)
	require.Equal(t, idemhttp.ErrMaxRun.Error(), (<-served).body)
}

// Handlers that end in time, or panic, leave no heartbeat and no timer of MaxRun.
func TestLeavesNoTimer(t *testing.T) {
	t.Parallel()
	for _, maxRun := range []time.Duration{0, time.Minute} {
		clock, _, serve := clocked(t, idemhttp.Options{MaxRun: maxRun}, func(_ http.ResponseWriter, r *http.Request) {
			if idemhttp.FromContext(r.Context()).Key() == "panics" {
				panic("at once")
			}
		})
		require.Equal(t, 200, serve("k").status)
		require.Zero(t, clock.Pending())
		require.Panics(t, func() { serve("panics") })
		require.Zero(t, clock.Pending())
	}
}
