package idemtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

var sweepCases = []testCase{
	{"replay in mid-sweep", replayInMidSweep},
	{"expired and unswept is absent", expiredUnswept},
	{"sweep races the key's own operations", sweepRaces},
	{"sweeps in a storm", sweepStorm},
	{"at most limit, in time order", sweepOrder},
	{"tens of thousands expired", sweepMany},
	{"background sweep", backgroundSweep},
	{"an idle store does nothing", idle},
}

func replayInMidSweep(t *testing.T, e *env) {
	s := e.spied()
	e.open(idem.Options{Retention: time.Hour, Lease: time.Minute})
	e.expirer()
	for i := range 20 {
		e.completed(idem.Request{Key: fmt.Sprint("k", i), Retention: time.Duration(i) * time.Minute}, fmt.Append(nil, i))
	}
	check := func(from int) {
		for i := range 20 {
			key := fmt.Sprint("k", i)
			if i < from && i > 0 {
				e.absent(key)
			} else { // Retention zero means the store's default, an hour
				require.Equal(t, fmt.Sprint(i), string(e.refused(idem.ErrCompleted, idem.Request{Key: key}).Result))
			}
		}
	}
	e.clock.Advance(10*time.Minute - 1)
	looked := 0
	s.afterExpiring = func([]engine.Due) { looked++; check(10) }
	require.Equal(t, 9, e.sweepAll())
	require.Positive(t, looked)
	e.clock.Advance(1)
	s.afterExpiring = func([]engine.Due) { check(11) }
	require.Equal(t, 1, e.sweepAll())
	check(11)
}

func expiredUnswept(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	done, open := e.claim(idem.Request{Key: "done", Fingerprint: printA}), e.claim(idem.Request{Key: "open", Lease: time.Hour, Retention: 1})
	require.NoError(t, e.s.Complete(e.ctx, done.Token, []byte("old")))
	e.get("done") // into the cache
	e.refused(idem.ErrCompleted, idem.Request{Key: "done"})
	e.clock.Advance(time.Hour + 1)
	for _, key := range []string{"done", "open"} {
		require.NotNil(t, e.entry(key), "unswept")
		e.absent(key)
	}
	if e.canScan() {
		require.Empty(t, e.records(idem.Filter{}))
	}
	c := e.claim(idem.Request{Key: "done", Fingerprint: printB})
	require.Equal(t, 1, c.Record.Attempt)
	require.Equal(t, printB, c.Record.Fingerprint)
	require.Nil(t, c.Record.Result)
	require.Greater(t, e.claim(idem.Request{Key: "open"}).Token.Fence, open.Token.Fence)
	require.Zero(t, e.sweepAll(), "both live again")
	e.refused(idem.ErrInFlight, idem.Request{Key: "done"})
}

// sweepRaces puts each operation between the sweep's read of the expiry index and its
// commit.
func sweepRaces(t *testing.T, e *env) {
	s := e.spied()
	e.open(idem.Options{Lease: 10 * time.Second, Retention: 10 * time.Second})
	e.expirer()
	tokens := map[string]idem.Token{}
	for _, key := range []string{"complete", "extend", "fail", "hold", "release", "forget", "forget and claim", "none"} {
		tokens[key] = e.claim(idem.Request{Key: key}).Token
	}
	for _, key := range []string{"claim", "expired"} {
		e.completed(idem.Request{Key: key}, []byte("old"))
	}
	e.clock.Advance(15 * time.Second) // every place in the index may be due, few records are gone
	raced := false
	s.afterExpiring = func([]engine.Due) {
		if raced {
			return
		}
		raced = true
		require.NoError(t, e.s.Complete(e.ctx, tokens["complete"], []byte("r")))
		require.NoError(t, e.s.Extend(e.ctx, tokens["extend"], time.Hour))
		require.NoError(t, e.s.Fail(e.ctx, tokens["fail"], []byte("r")))
		require.NoError(t, e.s.Hold(e.ctx, tokens["hold"], []byte("r")))
		require.NoError(t, e.s.Release(e.ctx, tokens["release"], nil))
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forget"}))
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forget and claim"}))
		e.claim(idem.Request{Key: "forget and claim", Lease: time.Hour})
		e.claim(idem.Request{Key: "claim", Lease: time.Hour})
	}
	require.Equal(t, 1, e.sweepAll(), "one has expired")
	require.True(t, raced)
	states := map[string]idem.State{
		"complete": idem.Completed, "extend": idem.InFlight, "fail": idem.Failed, "hold": idem.Held,
		"release": idem.Released, "forget and claim": idem.InFlight, "claim": idem.InFlight, "none": idem.InFlight,
	}
	check := func() {
		t.Helper()
		for key, state := range states {
			require.Equal(t, state, e.get(key).State, key)
		}
		e.absent("forget")
		require.Nil(t, e.entry("expired"), "swept")
	}
	check()
	require.Zero(t, e.sweepAll())
	check()

	// None of them fell out of the index: each is swept in its time.
	e.clock.Advance(5*time.Second - 1)
	require.Zero(t, e.sweepAll())
	e.clock.Advance(1)
	require.Equal(t, 1, e.sweepAll(), "in flight, from its lease end")
	require.Nil(t, e.entry("none"))
	e.clock.Advance(5 * time.Second)
	require.Equal(t, 3, e.sweepAll(), "completed, failed, released, from then")
	e.clock.Advance(2 * time.Hour)
	require.Equal(t, 3, e.sweepAll(), "extended and claimed, from lease end")
	require.NoError(t, e.s.Release(e.ctx, tokens["hold"], nil))
	e.clock.Advance(10 * time.Second)
	require.Equal(t, 1, e.sweepAll(), "held, from when it was settled")
	places, err := e.expirer().Expiring(e.ctx, engine.Due{}, engine.Never, 100)
	require.NoError(t, err)
	for _, p := range places {
		require.Nil(t, e.entry(p.Key), "%q is left", p.Key)
	}
}

// sweepStorm: sweeps run at once with everything else, and what is live stays.
func sweepStorm(t *testing.T, e *env) {
	const workers, rounds = 4, 25
	e.open(idem.Options{Lease: 2 * time.Second, Retention: 3 * time.Second})
	e.expirer()
	var stop atomic.Bool
	var wg sync.WaitGroup
	var sweepErr error
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !stop.Load() && sweepErr == nil {
			e.clock.Advance(10 * time.Millisecond)
			_, sweepErr = e.s.Sweep(e.ctx, 3)
		}
	}()
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { stop.Store(true) })
	errs := make([]error, workers)
	e.together(workers, func(w int) {
		for i := range rounds {
			// A record that never lapses: it must be there at each look.
			key := fmt.Sprintf("%d %d", w, i%5)
			c, err := e.s.Claim(e.ctx, idem.Request{Key: key, Lease: 1000 * time.Hour})
			if err == nil {
				err = e.s.Extend(e.ctx, c.Token, 2000*time.Hour)
			}
			if err == nil {
				err = e.s.Complete(e.ctx, c.Token, []byte("r"))
			}
			if err != nil && err != idem.ErrCompleted {
				errs[w] = fmt.Errorf("%q: %w", key, err)
				return
			}
			live := fmt.Sprintf("live %d %d", w, i)
			c, err = e.s.Claim(e.ctx, idem.Request{Key: live, Retention: 1000 * time.Hour})
			if err == nil {
				err = e.s.Complete(e.ctx, c.Token, []byte("r"))
			}
			for n := 0; n <= i && err == nil; n++ {
				_, err = e.s.Get(e.ctx, fmt.Sprintf("live %d %d", w, n))
			}
			if err != nil {
				errs[w] = fmt.Errorf("%q: %w", live, err)
				return
			}
		}
	})
	stop.Store(true)
	e.within("the sweep", wg.Wait)
	require.NoError(t, sweepErr)
	for _, err := range errs {
		require.NoError(t, err)
	}
	e.clock.Advance(time.Minute)
	e.sweepAll()
	for w := range workers {
		for i := range rounds {
			e.refused(idem.ErrCompleted, idem.Request{Key: fmt.Sprintf("live %d %d", w, i)})
			require.Nil(t, e.entry(fmt.Sprintf("%d %d", w, i%5)), "swept")
		}
	}
}

func sweepOrder(t *testing.T, e *env) {
	const n = 40
	e.open(idem.Options{SweepSlice: 4})
	e.expirer()
	key := func(i int) string { return fmt.Sprintf("k%02d", (i*17)%n) } // not in the order of time
	for i := range n {
		e.completed(idem.Request{Key: key(i), Retention: time.Duration(i+1) * time.Second}, nil)
	}
	e.clock.Advance(30 * time.Second)
	next := 0
	for _, limit := range []int{1, 3, 4, 5, 9, 100} {
		removed, err := e.s.Sweep(e.ctx, limit)
		require.NoError(t, err)
		want := min(limit, 30-next)
		require.Equal(t, want, removed, "a sweep of %d", limit)
		next += want
		for i := range n {
			require.Equal(t, i < next, e.entry(key(i)) == nil, "the longest due first: %d after %d", i, next)
		}
	}
	removed, err := e.s.Sweep(e.ctx, 100)
	require.NoError(t, err)
	require.Zero(t, removed, "the rest is live")
	for i := 30; i < n; i++ {
		e.refused(idem.ErrCompleted, idem.Request{Key: key(i)})
	}
	e.reopenDurable() // the index survives it
	e.clock.Advance(10 * time.Second)
	require.Equal(t, n-next, e.sweepAll())
}

// sweepMany: many expired records are removed in bounded slices, and claims are granted
// throughout.
func sweepMany(t *testing.T, e *env) {
	const batch, slice = 1000, 256
	batches := 30 / race.Share
	s := e.spied()
	e.open(idem.Options{Retention: time.Hour, SweepSlice: slice})
	e.expirer()
	for b := range batches {
		rs := make([]idem.Request, batch)
		for i := range rs {
			rs[i].Key = fmt.Sprintf("%d/%d", b, i)
			rs[i].Lease = time.Duration(i+1) * time.Second
		}
		for _, c := range e.s.ClaimMany(e.ctx, rs) {
			require.NoError(t, c.Err)
		}
	}
	e.clock.Advance(2 * time.Hour)
	e.claim(idem.Request{Key: "live"})
	s.takeApplies()

	var swept atomic.Int64
	var done atomic.Bool
	sweep := async(func() error {
		defer done.Store(true)
		for {
			n, err := e.s.Sweep(e.ctx, 3*slice)
			swept.Add(int64(n))
			if err != nil || n == 0 {
				return err
			}
			if n > 3*slice {
				return fmt.Errorf("a sweep of %d removed %d", 3*slice, n)
			}
		}
	})
	granted := 0
	for i := 0; !done.Load() || i == 0; i++ {
		e.completed(idem.Request{Key: fmt.Sprint("new ", i)}, []byte("r"))
		old := e.claim(idem.Request{Key: fmt.Sprintf("%d/%d", i%batches, batch-1-i/batches%batch)}) // perhaps just being swept
		require.Equal(t, 1, old.Record.Attempt)
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: old.Token.Key}))
		granted++
	}
	require.NoError(t, sweep.wait(e, "the sweep"))
	t.Logf("%d claims granted while %d records were swept", 2*granted, swept.Load())
	for _, n := range s.takeApplies() {
		require.LessOrEqual(t, n, slice, "one commit of a sweep")
	}
	for _, limit := range s.expiring {
		require.LessOrEqual(t, limit, slice, "one look of a sweep")
	}
	e.get("live")
	if e.canScan() {
		st := e.stats()
		require.Zero(t, st.Expired)
		require.Equal(t, granted, st.Completed)
		require.Equal(t, 1, st.InFlight)
	}
}

// watch returns the events of one kind, and makes o send them.
func watch(o *idem.Options, kind idem.EventKind) <-chan idem.Event {
	events := make(chan idem.Event, 10_000)
	o.Observer = func(_ context.Context, ev idem.Event) {
		if ev.Kind == kind {
			events <- ev
		}
	}
	return events
}

// next returns the next event. The test fails if nothing is working on one.
func (e *env) next(what string, events <-chan idem.Event) idem.Event {
	e.t.Helper()
	stall := e.watch()
	defer stall.Stop()
	select {
	case ev := <-events:
		return ev
	case <-stall.Stalled():
		e.t.Fatalf("no %s, and nobody works on one", what)
		return idem.Event{}
	}
}

func backgroundSweep(t *testing.T, e *env) {
	o := idem.Options{SweepInterval: time.Second, SweepSlice: 10, Lease: time.Minute, Retention: time.Hour}
	events := watch(&o, idem.SweepDone)
	e.open(o)
	e.expirer()
	for i := range 35 {
		e.completed(idem.Request{Key: fmt.Sprint("k", i)}, nil)
	}
	e.claim(idem.Request{Key: "stays", Lease: 100 * time.Hour})
	e.timers(1)
	e.clock.Advance(time.Hour + 5*time.Minute)
	for removed := 0; removed < 35; {
		ev := e.next("sweep", events)
		require.Positive(t, ev.Count)
		require.LessOrEqual(t, ev.Count, 10, "in slices")
		require.Zero(t, ev.Corrupt)
		require.Equal(t, 5*time.Minute, ev.Duration, "the lag")
		removed += ev.Count
	}
	for i := range 35 {
		require.Nil(t, e.entry(fmt.Sprint("k", i)))
	}
	e.get("stays")

	// Records that are due when a store is opened are swept without being asked for.
	if !e.h.Volatile {
		e.completed(idem.Request{Key: "left"}, nil)
		e.close()
		e.clock.Advance(2 * time.Hour)
		e.open(o)
		require.Equal(t, 1, e.next("sweep", events).Count)
		require.Nil(t, e.entry("left"))
	}
}

// idle: a store in which nothing is due does not wake, however much time passes.
func idle(t *testing.T, e *env) {
	o := idem.Options{SweepInterval: time.Second}
	events := watch(&o, idem.SweepDone)
	e.open(o)
	e.expirer()
	e.completed(idem.Request{Key: "soon", Retention: time.Minute}, nil)
	e.completed(idem.Request{Key: "late", Retention: 1000 * time.Hour}, nil)
	e.timers(1)
	e.clock.Advance(2 * time.Minute)
	e.next("sweep", events)
	e.timers(1) // for the next record due, in a thousand hours
	fired := e.clock.fake.Timers().Fired
	for range 900 {
		e.clock.Advance(time.Hour)
		require.Equal(t, fired, e.clock.fake.Timers().Fired, "the store woke up for nothing")
	}
	e.clock.Advance(200 * time.Hour)
	e.next("sweep", events)
	require.Equal(t, fired+1, e.clock.fake.Timers().Fired)
}
