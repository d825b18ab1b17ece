package bench

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Benchmarks for "go test -bench", to try a change by: the same operations, names and
// units as the program in bench/peers has, on idem alone and not interleaved. What is
// published comes from the program.

func BenchmarkGet(b *testing.B) {
	benchmark(b, GetHit, 1e5, Variant{1, 1}, Variant{2, 2})
	benchmark(b, GetMiss, 1e5, Variant{1, 1}, Variant{2, 2})
}

func BenchmarkClaim(b *testing.B) { benchmark(b, ClaimReplay, 1e5, Variant{1, 1}, Variant{2, 2}) }

func BenchmarkCycle(b *testing.B) {
	benchmark(b, CycleMemory, 0, Variant{1, 1}, Variant{2, 2})
	benchmark(b, CycleDurable, 0, Variant{2, 1}, Variant{2, 16}, Variant{2, 64}, Variant{2, 256})
}

func BenchmarkDo(b *testing.B) { benchmark(b, DoSameCommit, 0, Variant{2, 1}, Variant{2, 64}) }

// BenchmarkSweep has few operations to do: run it with -benchtime 100x.
func BenchmarkSweep(b *testing.B) { benchmark(b, SweepUnloaded, 1e5, Variant{2, 1}) }

// benchmark runs idem's contenders of a group, each with a store that is opened once.
func benchmark(b *testing.B, group string, keys int, variants ...Variant) {
	// The group's first part is the benchmark's own name.
	prefix := b.Name()[len("Benchmark"):] + "/"
	filled, err := NewFilled(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	w := Workload{Group: group, ResultBytes: 256, Batch: 256}
	for _, v := range variants {
		w.Procs, w.Callers = max(w.Procs, v.Procs), max(w.Callers, v.Callers)
	}
	for _, c := range Idem(group, filled) {
		var r *running
		dir := b.TempDir() // of this benchmark: those of one that b.Run runs end with each of its runs
		for _, v := range variants {
			w := w
			w.Keys = keysOf(keys)
			row := Row{Group: group, Params: v.params(w, Label(c.Name))}
			b.Run(row.Name()[len(prefix):], func(b *testing.B) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(v.Procs))
				if r == nil { // not before it is asked for: filling takes its time
					if r, err = openOne(dir, c, w); err != nil {
						b.Fatal(err)
					}
				}
				hists := (&Bench{}).scratch(v.Callers)
				b.ReportAllocs()
				b.ResetTimer()
				s, err := r.run(v.Callers, after(time.Hour), uint64(b.N), hists)
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				for _, h := range hists[1:] {
					hists[0].add(h)
				}
				for _, value := range hists[0].values() {
					b.ReportMetric(value.Amount, value.Unit)
				}
				if s.ops < uint64(b.N) {
					b.Skipf("%s had %d operations to do, and %d were asked for: say -benchtime 100x", c.Name, s.ops, b.N)
				}
			})
		}
		if r != nil {
			if err := r.Close(); err != nil {
				b.Error(err)
			}
		}
	}
}

var benchKeys = map[int]*Keys{}

// keysOf makes keys once: benchmarks run one after the other.
func keysOf(n int) *Keys {
	if benchKeys[n] == nil {
		benchKeys[n] = NewKeys(n)
	}
	return benchKeys[n]
}

func openOne(dir string, c Contender, w Workload) (*running, error) {
	in, err := c.Open(dir, w)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", c.Name, err)
	}
	r := &running{Contender: c, Instance: in, label: Label(c.Name), every: 1}
	if lookup(w.Group) && w.Keys.Len() > 0 {
		r.every = sampled
	}
	return r, nil
}
