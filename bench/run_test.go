package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	c "github.com/idemkv/idem/bench/contenders"
)

func TestOrderGivesEachPlaceInTurn(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		places := map[[2]int]bool{} // contender and place
		for round := range n {
			for place, i := range order(n, round) {
				places[[2]int{i, place}] = true
			}
		}
		assert.Len(t, places, n*n)
	}
	assert.Empty(t, order(0, 3))
}

// For an even number nobody follows the same one twice.
func TestOrderChangesNeighbours(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 4, 8, 14, 20} {
		followed := map[[2]int]bool{}
		for round := range n {
			o := order(n, round)
			for i := 1; i < n; i++ {
				followed[[2]int{o[i-1], o[i]}] = true
			}
		}
		assert.Len(t, followed, n*(n-1))
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	return &bench{results: &results{}, dir: dir, filled: c.Filled{Dir: dir}, log: t.Logf}
}

// recorder notes who ran when.
type recorder struct {
	mu     sync.Mutex
	slices []string
	procs  map[int]bool
	seen   map[string]bool // worker and n
	twice  []string
}

func newRecorder() *recorder { return &recorder{procs: map[int]bool{}, seen: map[string]bool{}} }

// contender is one that notes its slices. A slice ends by its number of operations:
// nothing depends on time.
func (r *recorder) contender(name string, op func(total uint64) error) c.Contender {
	return c.Contender{Name: name, Does: "does " + name, Open: func(string, c.Workload) (c.Instance, error) {
		var total atomic.Uint64
		return c.Instance{
			Op: func(worker int, n uint64) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.slices) == 0 || r.slices[len(r.slices)-1] != name {
					r.slices = append(r.slices, name)
				}
				r.procs[runtime.GOMAXPROCS(0)] = true
				id := fmt.Sprint(name, worker, n)
				if r.seen[id] {
					r.twice = append(r.twice, id)
				}
				r.seen[id] = true
				return op(total.Add(1))
			},
			Close: func() error { return nil },
		}, nil
	}}
}

func ok(uint64) error { return nil }

// Not parallel, like all that sets GOMAXPROCS.
func TestCompareInterleaves(t *testing.T) {
	r, b, was := newRecorder(), newBench(t), runtime.GOMAXPROCS(0)
	names := []string{"bolt", "raw-b", "x", "d"}
	var contenders []c.Contender
	for _, n := range names {
		contenders = append(contenders, r.contender(n, ok))
	}
	b.compareThese(contenders, c.Workload{Group: c.CycleDurable}, []variant{{1, 2}, {2, 3}}, pace{rounds: 3, slice: time.Hour, ops: 7})

	assert.False(t, b.failed)
	assert.Equal(t, was, runtime.GOMAXPROCS(0), "set back")
	assert.Equal(t, map[int]bool{1: true, 2: true}, r.procs)
	assert.Empty(t, r.twice, "a worker's n is never given twice")
	require.Len(t, b.rows, 2*3*4)
	var want []string
	for range 2 {
		for round := range 3 {
			for _, i := range order(4, round) {
				want = append(want, names[i])
			}
		}
	}
	assert.Equal(t, slices.Compact(want), r.slices)
	first := b.rows[0]
	assert.Equal(t, "Cycle/durable/backend=bolt/callers=2/procs=1", first.Name.String())
	assert.Equal(t, 7, first.Iters, "shared out among the workers, none lost")
	for _, unit := range []string{"sec/op", "p50-sec", "max-sec", "B/op", "allocs/op", "cpu-sec/op", "sampled"} {
		_, ok := first.Value(unit)
		assert.True(t, ok, unit)
	}
}

func TestCompareGoesOnWithoutThoseThatFail(t *testing.T) {
	r, b, boom, closed := newRecorder(), newBench(t), errors.New("boom"), 0
	external := r.contender("ext", ok)
	external.External = true
	open := external.Open
	external.Open = func(dir string, w c.Workload) (c.Instance, error) {
		in, err := open(dir, w)
		in.Close = func() error { closed++; return nil }
		return in, err
	}
	until := func(most uint64, err error) func(uint64) error {
		return func(n uint64) error {
			if n > most {
				return err
			}
			return nil
		}
	}
	none := func(err error) func(string, c.Workload) (c.Instance, error) {
		return func(string, c.Workload) (c.Instance, error) { return c.Instance{}, err }
	}
	b.only = func(name string) bool { return name != "unwanted" }
	b.compareThese([]c.Contender{
		external,
		{Name: "missing", Open: none(fmt.Errorf("%w: no such\nprogram", c.ErrAbsent))},
		{Name: "unopened", Open: none(boom)},
		r.contender("fails", until(8, boom)),      // in the second round
		r.contender("done", until(12, c.ErrDone)), // in the middle of the third
		r.contender("unwanted", ok),
	}, c.Workload{Group: c.CycleDurable}, []variant{{1, 1}}, pace{rounds: 4, slice: time.Hour, ops: 5})

	ops := map[string][]int{}
	for _, row := range b.rows {
		ops[param(row, "backend")] = append(ops[param(row, "backend")], row.Iters)
	}
	assert.Equal(t, map[string][]int{"ext": {5, 5, 5, 5}, "fails": {5}, "done": {5, 5, 2}}, ops, "what was done before it was done counts, a round that failed does not")
	assert.True(t, b.failed)
	assert.Equal(t, 1, closed)
	_, counted := b.rows[0].Value("allocs/op")
	assert.False(t, counted, "another process's allocations are not ours")
	assert.Equal(t, "opening: absent: no such program", b.get("absent/cycle/durable/missing"))
	assert.Equal(t, "opening: boom", b.get("failed/cycle/durable/unopened"))
	assert.Equal(t, "boom", b.get("failed/cycle/durable/fails"))
	assert.Len(t, b.notes("failed"), 2)
}

// Short operations are timed one in 64, long ones each.
func TestWarmFindsWhatToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // how long an operation takes is not up to the machine
		b := newBench(t)
		slow := &running{Instance: c.Instance{Op: func(int, uint64) error { time.Sleep(50 * time.Microsecond); return nil }}}
		b.warm("group", 1, slow, pace{warmup: time.Hour, ops: 3})
		assert.Equal(t, 1, slow.every)

		quick := &running{Instance: c.Instance{Op: func(int, uint64) error { return nil }}}
		b.warm("group", 1, quick, pace{warmup: time.Hour, ops: 200_000})
		assert.Equal(t, sampled, quick.every)
		h := newHistogram()
		s, err := quick.run(1, after(time.Hour), 64*10+1, []*hdrhistogram.Histogram{h})
		require.NoError(t, err)
		assert.Equal(t, uint64(64*10+1), s.ops)
		assert.EqualValues(t, 11, h.TotalCount())
	})
}

// A slice of time ends by itself, and every worker has done something.
func TestSliceEndsInTime(t *testing.T) {
	r := &running{Instance: c.Instance{Op: func(int, uint64) error { return nil }}, every: 1}
	hists := newBench(t).scratch(3)
	s, err := r.run(3, after(time.Millisecond), 0, hists)
	require.NoError(t, err)
	for _, h := range hists {
		assert.NotZero(t, h.TotalCount())
	}
	assert.GreaterOrEqual(t, s.elapsed, time.Millisecond)
}

func TestLatencies(t *testing.T) {
	t.Parallel()
	assert.Nil(t, latencies(""))
	a, b := newHistogram(), newHistogram()
	for i := 1; i <= 500; i++ {
		record(a, time.Duration(i)*time.Microsecond)
		record(b, time.Duration(500+i)*time.Microsecond)
	}
	got := map[string]float64{}
	for _, v := range latencies("x-", a, b) {
		got[v.OrigUnit] = v.OrigValue
	}
	assert.InEpsilon(t, 500e3, got["x-p50-ns"], 0.002)
	assert.InEpsilon(t, 990e3, got["x-p99-ns"], 0.002)
	assert.InEpsilon(t, 1000e3, got["x-max-ns"], 0.002)
	assert.NotContains(t, got, "x-p99.9-ns", "of a thousand, one lies beyond")
	a.Reset()
	record(a, 0)
	record(a, time.Hour)
	assert.EqualValues(t, 2, a.TotalCount(), "what is out of range counts as the nearest")
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	times := arrivals(5000, time.Second, 7)
	assert.InDelta(t, 5000, len(times), 300)
	last, gaps := time.Duration(0), map[time.Duration]bool{}
	for _, at := range times {
		assert.True(t, at >= last && at < time.Second)
		gaps[at-last], last = true, at
	}
	assert.Greater(t, len(gaps), 4000, "not at a fixed beat")
	assert.Equal(t, times, arrivals(5000, time.Second, 7), "the same for everybody")
	assert.NotEqual(t, times, arrivals(5000, time.Second, 8))
}

// An era's records expire when it begins, and no others.
func TestEras(t *testing.T) {
	t.Parallel()
	for _, engine := range c.Engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := c.Workload{Keys: c.NewKeys(60), ResultBytes: 16}
			x, err := openEras(engine, t.TempDir(), w, 20)
			require.NoError(t, err)
			defer func() { require.NoError(t, x.store.Close()) }()
			for round := range 3 {
				assert.EqualValues(t, 20*round, x.removed.Load(), "nothing is swept before its time")
				done := make(chan struct{})
				cancel := x.sweeps(func() { close(done) })
				<-done // the store's own sweeper did it
				cancel()
				require.NoError(t, x.err)
				assert.Positive(t, x.took)
				there := 0
				for i := range 60 {
					if _, err := x.store.Get(t.Context(), w.Keys.Fill(i)); err == nil {
						there++
					}
				}
				assert.Equal(t, 60-20*(round+1), there)
			}
		})
	}
}

func TestGoroutinesOfOurs(t *testing.T) { // not parallel: others have stores open
	_, before := goroutines()
	w := c.Workload{Keys: c.NewKeys(0)}
	x, err := openEras("memory", "", w, 1)
	require.NoError(t, err)
	all, ours := goroutines()
	assert.Equal(t, before+1, ours, "the sweeper")
	assert.Greater(t, all, ours)
	require.NoError(t, x.store.Close())
	_, after := goroutines()
	assert.Equal(t, before, after)
}

func TestPlans(t *testing.T) {
	t.Parallel()
	for _, p := range []plan{quick(), full(), smoke()} {
		assert.NotContains(t, p.String(), "%!")
		assert.Contains(t, p.String(), "Get: ")
		assert.LessOrEqual(t, p.batch, p.expired/p.pace(c.SweepUnloaded).rounds, "a batch at least for each round")
		for _, group := range []string{c.GetHit, c.ClaimReplay, c.CycleMemory, c.CycleDurable, c.DoSameCommit, "Scale", sweepLoaded, idle} {
			assert.Positive(t, p.pace(group).rounds, group)
			if p.name != "smoke" {
				assert.GreaterOrEqual(t, p.pace(group).rounds, 6, "a 95 %% interval takes six: %s", group)
			}
		}
	}
	assert.True(t, strings.HasPrefix(full().name, "full"))
}
