package bench

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// OpenLoop is the group of rows in which operations arrive on a schedule, whether or
// not the ones before are done, and are timed from when they were to arrive: a stall
// counts for all who come while it lasts.
const OpenLoop = "Open/durable"

const (
	// openWorkers is how many operations can be under way at once, and openShards
	// how many histograms they share.
	openWorkers, openShards = 1024, 16
	// keepsUp is the part of a rate that has to be achieved for the next one to be
	// tried.
	keepsUp = 0.95
)

// OpenLoop measures durable cycles at each rate (operations a second) in turn. A
// contender that does not keep up with a rate is not tried at the next.
func (b *Bench) OpenLoop(w Workload, contenders []Contender, rates []int, p Pace) {
	w.Group, w.Callers = CycleDurable, openWorkers
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(w.Procs))
	open := b.openAll(w, contenders)
	defer func() {
		for _, r := range open {
			r.shut()
		}
	}()
	for _, r := range open {
		b.warm(OpenLoop, 64, r.running, p)
	}
	behind := make([]bool, len(open))
	for _, rate := range rates {
		b.log("%s rate=%d: %d rounds of %v", OpenLoop, rate, p.Rounds, p.Slice)
		var late [][]float64
		for range open {
			late = append(late, nil)
		}
		for round := range p.Rounds {
			for _, i := range order(len(open), round) {
				if r := open[i].running; !r.done && !behind[i] {
					late[i] = append(late[i], b.openSlice(w, r, rate, round, p))
				}
			}
		}
		for i := range open {
			if achieved, ok := spreadOf(late[i]); ok && achieved.Median < keepsUp*float64(rate) {
				behind[i] = true
			}
		}
	}
}

// openSlice runs one contender at one rate and returns the rate that it achieved.
func (b *Bench) openSlice(w Workload, r *running, rate, round int, p Pace) (achieved float64) {
	b.collect()
	for len(r.next) < openWorkers {
		r.next = append(r.next, 0)
	}
	schedule := arrivals(rate, p.Slice, uint64(round))
	hists := b.scratch(openShards)
	for _, h := range hists {
		h.reset()
	}
	var locks [openShards]sync.Mutex
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make([]error, openWorkers)
	start := time.Now()
	for id := range openWorkers {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(schedule)); i = next.Add(1) - 1 {
				time.Sleep(schedule[i] - time.Since(start))
				if errs[id] = r.Op(id, r.next[id]); errs[id] != nil {
					return
				}
				took := time.Since(start) - schedule[i]
				r.next[id]++
				locks[id%openShards].Lock()
				hists[id%openShards].record(took)
				locks[id%openShards].Unlock()
			}
		})
	}
	workers.Wait()
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		r.done = true
		b.fail(OpenLoop+" "+r.label, err)
		return math.NaN()
	}
	merged := newHistogram()
	for _, h := range hists {
		merged.add(h)
	}
	achieved = float64(len(schedule)) / max(took, p.Slice).Seconds()
	params := []Param{{"backend", r.label}, {"rate", strconv.Itoa(rate)}, {"procs", strconv.Itoa(w.Procs)}}
	b.add(OpenLoop, params, uint64(len(schedule)), append(merged.values(), Value{"achieved/s", achieved})...)
	return achieved
}

// arrivals are the times, from the start, at which operations arrive: a Poisson
// process, as of many users who do not know of each other. The same seed gives the
// same times, so that all contenders get the same ones.
func arrivals(rate int, d time.Duration, seed uint64) (times []time.Duration) {
	random := rand.New(rand.NewPCG(seed, uint64(rate)))
	for at := 0.0; ; {
		at += random.ExpFloat64() / float64(rate)
		t := time.Duration(at * float64(time.Second))
		if t >= d {
			return times
		}
		times = append(times, t)
	}
}
