package bench

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrderGivesEachPlaceInTurn(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		places := make([][]bool, n) // of contender i
		for i := range places {
			places[i] = make([]bool, n)
		}
		for round := range n {
			seen := order(n, round)
			for place, i := range seen {
				places[i][place] = true
			}
			assert.ElementsMatch(t, seq(n), seen)
		}
		for i := range places {
			assert.NotContains(t, places[i], false, "contender %d of %d", i, n)
		}
	}
	assert.Empty(t, order(0, 3))
}

// For an even number nobody follows the same one twice.
func TestOrderChangesNeighbours(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 4, 8, 14, 20} {
		followed := map[[2]int]int{}
		for round := range n {
			o := order(n, round)
			for i := 1; i < n; i++ {
				followed[[2]int{o[i-1], o[i]}]++
			}
		}
		assert.Len(t, followed, n*(n-1))
	}
}

func seq(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// recorder notes who ran when.
type recorder struct {
	mu     sync.Mutex
	slices []string
	procs  map[int]bool
	seen   map[string]bool // worker and n
	twice  []string
}

// contender is one that notes its slices. A slice ends by its number of operations, so
// that nothing depends on time.
func (r *recorder) contender(name string, op func(total uint64) error) Contender {
	return Contender{Name: name, Does: "does " + name, Open: func(string, Workload) (Instance, error) {
		var total atomic.Uint64
		return Instance{
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

func newRecorder() *recorder { return &recorder{procs: map[int]bool{}, seen: map[string]bool{}} }

func ok(uint64) error { return nil }

// Not parallel, like all that sets GOMAXPROCS.
func TestCompareInterleaves(t *testing.T) {
	r := newRecorder()
	was := runtime.GOMAXPROCS(0)
	b := &Bench{Results: &Results{}, Dir: t.TempDir()}
	names := []string{"idem/a", "raw-b/x", "c", "d"}
	var contenders []Contender
	for _, n := range names {
		contenders = append(contenders, r.contender(n, ok))
	}
	w := Workload{Group: CycleDurable}
	b.Compare(w, []Variant{{1, 2}, {2, 3}}, contenders, Pace{Rounds: 3, Slice: time.Hour, MaxOps: 7})

	assert.False(t, b.Failed)
	assert.Equal(t, was, runtime.GOMAXPROCS(0), "set back")
	assert.Equal(t, map[int]bool{1: true, 2: true}, r.procs)
	assert.Empty(t, r.twice, "a worker's n is never given twice")
	require.Len(t, b.Results.Rows, 2*3*4)
	var want []string
	for range 2 {
		for round := range 3 {
			for _, i := range order(4, round) {
				want = append(want, names[i])
			}
		}
	}
	want = slices.Compact(want)
	assert.Equal(t, want, r.slices)
	first := b.Results.Rows[0]
	assert.Equal(t, "Cycle/durable/backend=a/callers=2/procs=1", first.Name())
	assert.Equal(t, uint64(7), first.Ops, "shared out among the workers, none lost")
	for _, unit := range []string{"ns/op", "p50-ns", "max-ns", "B/op", "allocs/op", "cpu-ns/op", "sampled"} {
		_, ok := first.Value(unit)
		assert.True(t, ok, unit)
	}
	assert.Contains(t, b.Results.Notes, Note{"does", "Cycle/durable raw-b-x", "does raw-b/x"})
}

func TestCompareGoesOnWithoutThoseThatFail(t *testing.T) {
	r := newRecorder()
	b := &Bench{Results: &Results{}, Dir: t.TempDir()}
	boom := errors.New("boom")
	closed := 0
	external := r.contender("ext", ok)
	external.External = true
	open := external.Open
	external.Open = func(dir string, w Workload) (Instance, error) {
		in, err := open(dir, w)
		in.Close = func() error { closed++; return nil }
		return in, err
	}
	b.Compare(Workload{Group: CycleDurable}, []Variant{{1, 1}}, []Contender{
		external,
		{Name: "absent", Open: func(string, Workload) (Instance, error) {
			return Instance{}, fmt.Errorf("%w: no such\nprogram", ErrAbsent)
		}},
		{Name: "unopened", Open: func(string, Workload) (Instance, error) { return Instance{}, boom }},
		r.contender("fails", func(n uint64) error {
			if n > 8 { // in the second round
				return boom
			}
			return nil
		}),
		r.contender("done", func(n uint64) error {
			if n > 12 { // in the middle of the third
				return ErrDone
			}
			return nil
		}),
	}, Pace{Rounds: 4, Slice: time.Hour, MaxOps: 5})

	rounds := func(name string) int {
		return len(b.Results.Series(where(CycleDurable, "backend", name), "ns/op"))
	}
	assert.Equal(t, 4, rounds("ext"))
	assert.Equal(t, 1, rounds("fails"), "a round that failed is none")
	assert.Equal(t, 3, rounds("done"), "what was done before it was done counts")
	for i, ops := 0, []uint64{5, 5, 2}; i < len(b.Results.Rows); i++ {
		if r := b.Results.Rows[i]; r.Param("backend") == "done" {
			assert.Equal(t, ops[0], r.Ops)
			ops = ops[1:]
		}
	}
	assert.Zero(t, rounds("absent")+rounds("unopened"))
	assert.True(t, b.Failed)
	assert.Equal(t, 1, closed)
	_, counted := b.Results.Rows[0].Value("allocs/op")
	assert.False(t, counted, "another process's allocations are not ours")
	var kinds []string
	for _, n := range b.Results.Notes {
		if n.Kind != "does" {
			kinds = append(kinds, n.Kind+" "+n.Subject+": "+n.Text)
		}
	}
	assert.ElementsMatch(t, []string{
		"absent Cycle/durable absent: bench: absent: no such program",
		"failed Cycle/durable unopened: opening: boom",
		"failed Cycle/durable fails: boom",
	}, kinds)
}

func TestCompareOnly(t *testing.T) {
	r := newRecorder()
	b := &Bench{Results: &Results{}, Dir: t.TempDir(), Only: func(name string) bool { return name == "two" }}
	b.Compare(Workload{Group: CycleDurable}, []Variant{{1, 1}}, []Contender{r.contender("one", ok), r.contender("two", ok)},
		Pace{Rounds: 1, Slice: time.Hour, MaxOps: 1})
	assert.Equal(t, []string{"two"}, r.slices)
}

// Short operations are timed one in 64, long ones each.
func TestWarmFindsWhatToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // how long an operation takes is not up to the machine
		b := &Bench{Results: &Results{}, Dir: t.TempDir()}
		r := newRecorder()
		in, err := r.contender("slow", func(uint64) error { time.Sleep(50 * time.Microsecond); return nil }).Open("", Workload{})
		require.NoError(t, err)
		slow := &running{Instance: in}
		b.warm("group", 1, slow, Pace{Warmup: time.Hour, MaxOps: 3})
		assert.Equal(t, 1, slow.every)

		quick := &running{Instance: Instance{Op: func(int, uint64) error { return nil }}}
		b.warm("group", 1, quick, Pace{Warmup: time.Hour, MaxOps: 200_000})
		assert.Equal(t, sampled, quick.every)
		hists := []*histogram{newHistogram()}
		s, err := quick.run(1, after(time.Hour), 64*10+1, hists)
		require.NoError(t, err)
		assert.Equal(t, uint64(64*10+1), s.ops)
		assert.Equal(t, uint64(11), hists[0].count())
	})
}

// A slice of time ends by itself, and every worker has done something.
func TestSliceEndsInTime(t *testing.T) {
	r := &running{Instance: Instance{Op: func(int, uint64) error { return nil }}, every: 1}
	hists := []*histogram{newHistogram(), newHistogram(), newHistogram()}
	s, err := r.run(3, after(time.Millisecond), 0, hists)
	require.NoError(t, err)
	for _, h := range hists {
		assert.NotZero(t, h.count())
	}
	assert.GreaterOrEqual(t, s.elapsed, time.Millisecond)
}
