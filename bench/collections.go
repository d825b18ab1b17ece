package bench

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// collections measures look-ups while a cycle of the garbage collector is under way,
// and while none is: how a heap full of records weighs on whoever asks. Each round
// forces a cycle, with as much time without one around it; look-ups that one begins
// or ends in are left out.
func (b *Bench) collections(e Engine, s *sized, p Pace, procs int) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // none but those that are forced
	for _, callers := range []int{1, procs} {
		for range p.Rounds {
			g := newCollected(callers)
			if err := g.run(s, p.Slice); err != nil {
				return err
			}
			in, out := g.in[0], g.out[0]
			for w := 1; w < callers; w++ {
				in.add(g.in[w])
				out.add(g.out[w])
			}
			values := []Value{
				{"gc-ns", g.took},
				{"gc-pause-ns", g.pauses},
				{"gc-pause-max-ns", g.longest},
				{"in-gc-count", float64(in.count())},
			}
			for _, v := range in.values() {
				values = append(values, Value{"in-gc-" + v.Unit, v.Amount})
			}
			for _, v := range out.values() {
				values = append(values, Value{"no-gc-" + v.Unit, v.Amount})
			}
			params := append([]Param{{"backend", e.Name}, {"keys", keyCount(s.w.Keys.Len())}}, // as for others
				Variant{procs, callers}.params(Workload{}, "")[1:]...)
			b.add(ScaleGC, params, in.count()+out.count(), values...)
		}
		if procs == 1 {
			break
		}
	}
	return nil
}

// collected is one round.
type collected struct {
	in, out               []*histogram // of each caller
	took, pauses, longest float64      // ns
}

func newCollected(callers int) *collected {
	g := &collected{}
	for range callers {
		g.in, g.out = append(g.in, newHistogram()), append(g.out, newHistogram())
	}
	return g
}

// run has callers look keys up before, while and after a cycle runs, at least quiet
// long before and after.
func (g *collected) run(s *sized, quiet time.Duration) error {
	var under, stop atomic.Bool
	get := getHit(s.store, s.w)
	errs := make(chan error, len(g.in))
	for w := range g.in {
		go func() {
			var err error
			for n := uint64(0); err == nil && !stop.Load(); n++ {
				before := under.Load()
				start := time.Now()
				err = get(w, n)
				took := time.Since(start)
				switch after := under.Load(); {
				case before && after:
					g.in[w].record(took)
				case !before && !after:
					g.out[w].record(took)
				}
			}
			errs <- err
		}()
	}
	time.Sleep(quiet)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	paused, cycle := m.PauseTotalNs, m.NumGC
	start := time.Now()
	under.Store(true)
	runtime.GC()
	under.Store(false)
	took := time.Since(start)
	runtime.ReadMemStats(&m)
	g.took, g.pauses = float64(took.Nanoseconds()), float64(m.PauseTotalNs-paused)
	for ; cycle < m.NumGC; cycle++ { // the runtime keeps the last 256
		g.longest = max(g.longest, float64(m.PauseNs[cycle%256]))
	}
	time.Sleep(max(quiet, took-quiet))
	stop.Store(true)
	var err error
	for range g.in {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}
