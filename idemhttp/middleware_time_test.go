package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

// Handlers that take their time, requests that wait for them, and middleware inside of
// middleware.

// clocked is a store in memory on a clock that stands still, and a way to serve
// requests without a server.
func clocked(t *testing.T, o idemhttp.Options, h http.HandlerFunc) (*idemtest.Clock, *idem.Store, func(key string) *httptest.ResponseRecorder) {
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	store := memoryStore(t, idem.Options{Clock: clock, SweepInterval: -1})
	wrapped := idemhttp.New(store, scopeOf, o)(h)
	return clock, store, func(key string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		wrapped.ServeHTTP(w, keyed(key))
		return w
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
			first := make(chan *httptest.ResponseRecorder)
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
				require.Equal(t, 409, serve("k").Code)
			}
			close(g.leave)
			require.Equal(t, 200, (<-first).Code)
			require.Zero(t, clock.Pending())
			require.Equal(t, "true", serve("k").Header().Get("Idempotent-Replayed"))
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
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- serve("k") }()
	clock.BlockUntil(1)
	require.NoError(t, store.Forget(t.Context(), idem.Token{Key: key}))
	took := make(chan *httptest.ResponseRecorder)
	go func() { took <- serve("k") }()
	<-second.entered
	clock.Advance(10 * time.Second)
	require.Equal(t, idem.ErrFenced, <-cause)
	late := <-first
	wantProblem(t, answer{status: late.Code, header: late.Header(), body: late.Body.String()}, 503, idemhttp.TypeNotRecorded)
	close(second.leave)
	require.Equal(t, "done", (<-took).Body.String())
	require.Equal(t, "done", serve("k").Body.String(), "the late one changed nothing")
	require.Zero(t, clock.Pending())
}

// A handler that has completed its operation by itself has lost nothing: what it does
// after that is not cancelled. One that holds it can still lose it.
func TestWorkAfterSettlingIsNotCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore(t, idem.Options{SweepInterval: -1})
		h := idemhttp.New(store, scopeOf, idemhttp.Options{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
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
		}))
		for key, status := range map[string]int{"completes": 201, "holds": 503} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, keyed(key))
			require.Equal(t, status, w.Code)
		}
	})
}

// A handler that panics leaves no heartbeat, and one that is over before the first beat
// has none under way.
func TestStops(t *testing.T) {
	t.Parallel()
	clock, _, serve := clocked(t, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
		if idemhttp.FromContext(r.Context()).Key() == "panics" {
			panic("at once")
		}
	})
	require.Panics(t, func() { serve("panics") })
	require.Zero(t, clock.Pending())
	serve("returns")
	require.Zero(t, clock.Pending())
}

// Beats that race the end of the handler are waited for, and do it no harm.
func TestBeatRacesEnd(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	h := idemhttp.New(store, scopeOf, idemhttp.Options{Lease: time.Millisecond})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		for rec, err := store.Get(r.Context(), op.Token().Key); err == nil && rec.LeaseUntil.Sub(rec.ClaimedAt) <= time.Millisecond; {
			rec, err = store.Get(r.Context(), op.Token().Key) // until the first beat
		}
		echo(w, r)
	}))
	for n := range 300 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, keyed(fmt.Sprint("k", n)))
		require.Equal(t, "12.50 <nil>", w.Body.String())
	}
}

// An attempt whose process died is held; with RetryUnknown it is taken over.
func TestLapsed(t *testing.T) {
	t.Parallel()
	for _, retry := range []bool{false, true} {
		clock, store, serve := clocked(t, idemhttp.Options{RetryUnknown: retry}, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "attempt ", idemhttp.FromContext(r.Context()).Attempt())
		})
		// As the middleware of a process that is gone has claimed it.
		r := keyed("k")
		print := must(idemhttp.RequestFingerprint(r, []byte("12.50")))
		_, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("shop", "k"), Fingerprint: print, HoldUnknown: !retry})
		require.NoError(t, err)
		require.Equal(t, 409, serve("k").Code)
		clock.Advance(30 * time.Second)
		w := serve("k")
		if retry {
			require.Equal(t, "attempt 2", w.Body.String())
		} else {
			wantProblem(t, answer{status: w.Code, header: w.Header(), body: w.Body.String()}, 500, idemhttp.TypeOutcomeUnknown)
		}
	}
}

// With Wait, requests that come while the first is being worked on get its answer.
func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, err := idem.New(memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
		require.NoError(t, err)
		defer store.Close()
		g := newGate(t)
		var status atomic.Int32
		h := idemhttp.New(store, scopeOf, idemhttp.Options{Wait: 10 * time.Second})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.entered <- r
			<-g.leave
			w.WriteHeader(int(status.Load()))
			fmt.Fprint(w, "done")
		}))
		serve := func(ctx context.Context, key string, answers chan<- answer) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, keyed(key).WithContext(ctx))
			answers <- answer{status: w.Code, header: w.Header(), body: w.Body.String()}
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

// Wrapped twice, by mistake or at two levels, the middleware does not wait for itself,
// and an answer of the inner one is not taken for the handler's.
func TestNested(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	wrap := idemhttp.New(store, scopeOf, idemhttp.Options{Wait: time.Hour})
	s := newSite(t, store, idemhttp.Options{Wait: time.Hour}, wrap(http.HandlerFunc(echo)).ServeHTTP)
	_, replay := s.replayOf("k")
	require.Equal(t, "12.50 <nil>", replay.body)

	other := idemhttp.New(store, func(*http.Request) (string, error) { return "inner", nil },
		idemhttp.Options{Fingerprint: func(*http.Request, []byte) (idem.Fingerprint, error) { return idem.Fingerprint{7}, nil }})
	s = newSite(t, store, idemhttp.Options{}, other(http.HandlerFunc(echo)).ServeHTTP)
	_, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("inner", "busy")})
	require.NoError(t, err)
	wantProblem(t, s.post("busy"), 409, idemhttp.TypeInFlight)
	s.wantNoRecord("busy")
	_, replay = s.replayOf("free")
	require.Equal(t, "12.50 <nil>", replay.body)

	// The same scope with another fingerprint.
	wrap = idemhttp.New(store, scopeOf, idemhttp.Options{Fingerprint: func(*http.Request, []byte) (idem.Fingerprint, error) { return idem.Fingerprint{7}, nil }})
	s = newSite(t, store, idemhttp.Options{}, wrap(http.HandlerFunc(echo)).ServeHTTP)
	_, replay = s.replayOf("k2")
	require.Equal(t, "12.50 <nil>", replay.body)
}
