package bench

import (
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// sampled is how many operations there are to one that is timed, where they are
// so short that reading the clock twice for each would be a part of the figure.
const (
	sampled    = 64
	sampleFrom = 2 * time.Microsecond // operations at least as long are all timed
)

// running is a contender that is open, and how far its workers have come.
type running struct {
	Contender
	Instance
	label string
	next  []uint64 // of each worker
	every int      // one operation of how many is timed
	done  bool     // there is nothing left to do, or it failed
}

// slice is what was measured in one slice of one contender.
type slice struct {
	ops            uint64
	elapsed, cpu   time.Duration
	mallocs, bytes uint64
}

// limit begins to count when it is called, and calls stop when the slice is to end.
// cancel ends the counting.
type limit func(stop func()) (cancel func())

// after is the limit of a slice that lasts d.
func after(d time.Duration) limit {
	return func(stop func()) func() {
		timer := time.AfterFunc(d, stop)
		return func() { timer.Stop() }
	}
}

// run has callers workers call Op until the limit, or until they have done maxOps
// together if that is not 0. Each that has a share of them does one at least. The
// latencies go into hists, one for each worker.
func (r *running) run(callers int, until limit, maxOps uint64, hists []*histogram) (s slice, err error) {
	for len(r.next) < callers {
		r.next = append(r.next, 0)
	}
	share := func(w int) uint64 {
		if maxOps == 0 {
			return math.MaxUint64
		}
		n := maxOps / uint64(callers)
		if uint64(w) < maxOps%uint64(callers) {
			n++
		}
		return n
	}
	var stop atomic.Bool
	var ready, finished sync.WaitGroup
	begin := make(chan struct{})
	counts := make([]uint64, callers)
	errs := make([]error, callers)
	for w := range callers {
		hists[w].reset()
		ready.Add(1)
		finished.Go(func() {
			ready.Done()
			<-begin
			counts[w], errs[w] = r.work(w, share(w), hists[w], &stop)
		})
	}
	ready.Wait()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime()
	start := time.Now()
	cancel := until(func() { stop.Store(true) })
	close(begin)
	finished.Wait()
	s.elapsed = time.Since(start)
	cancel()
	s.cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	s.mallocs, s.bytes = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	for _, n := range counts {
		s.ops += n
	}
	err = errors.Join(errs...)
	if errors.Is(err, ErrDone) {
		r.done, err = true, nil
		for _, e := range errs {
			if !errors.Is(e, ErrDone) {
				err = errors.Join(err, e)
			}
		}
	}
	return s, err
}

// work is one worker's part of a slice.
func (r *running) work(w int, most uint64, h *histogram, stop *atomic.Bool) (ops uint64, err error) {
	n := r.next[w]
	defer func() { r.next[w] += ops }()
	for ops < most && err == nil && (ops == 0 || !stop.Load()) {
		start := time.Now()
		if err = r.Op(w, n+ops); err != nil {
			return ops, err
		}
		h.record(time.Since(start))
		ops++
		for i := 1; i < r.every && ops < most; i++ {
			if err = r.Op(w, n+ops); err != nil {
				return ops, err
			}
			ops++
		}
	}
	return ops, err
}

// values are the slice's figures for a row.
func (s slice) values(r *running, merged *histogram) []Value {
	ops := float64(max(s.ops, 1))
	out := []Value{{"ns/op", float64(s.elapsed.Nanoseconds()) / ops}}
	out = append(out, merged.values()...)
	if !r.External {
		out = append(out,
			Value{"B/op", float64(s.bytes) / ops},
			Value{"allocs/op", float64(s.mallocs) / ops},
			Value{"cpu-ns/op", float64(s.cpu.Nanoseconds()) / ops})
	}
	return append(out, Value{"sampled", float64(r.every)})
}
