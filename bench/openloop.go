package main

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	c "github.com/idemkv/idem/bench/contenders"
)

// open is the group of rows in which operations arrive on a schedule, whether or not the
// ones before are done, and are timed from when they were to arrive: a stall counts for
// all who come while it lasts.
const open = "Open/durable"

const (
	openWorkers = 1024 // operations that can be under way at once
	openShards  = 16   // histograms that they share
	keepsUp     = 0.95 // of a rate has to be achieved for the next one to be tried
)

// openLoop measures durable cycles at each rate (operations a second) in turn. A
// contender that does not keep up with a rate is not tried at the next.
func (b *bench) openLoop(w c.Workload, rates []int, p pace, procs int) {
	w.Callers, w.Procs = openWorkers, procs
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	// Of the bare engines only the grouped ones: the others were left behind by then.
	contenders := slices.DeleteFunc(c.All(w.Group), func(x c.Contender) bool {
		return strings.HasPrefix(x.Name, "raw-") && !strings.HasSuffix(x.Name, "-grouped")
	})
	all, shut := b.openAll(contenders, w)
	defer shut()
	for _, r := range all {
		b.warm(open, 64, r, p)
	}
	for _, rate := range rates {
		b.log("%s rate=%d: %d rounds of %v", open, rate, p.rounds, p.slice)
		for round := range p.rounds {
			for _, i := range order(len(all), round) {
				if !all[i].done {
					b.scheduled(all[i], rate, round, p, procs)
				}
			}
		}
		for _, r := range all {
			achieved := b.median("achieved/s", open, "backend="+r.Name, "rate="+strconv.Itoa(rate))
			r.done = r.done || !(achieved >= keepsUp*float64(rate))
		}
	}
}

// scheduled runs one contender at one rate.
func (b *bench) scheduled(r *running, rate, round int, p pace, procs int) {
	runtime.GC()
	for len(r.next) < openWorkers {
		r.next = append(r.next, 0)
	}
	schedule := arrivals(rate, p.slice, uint64(round))
	var shards [openShards]struct {
		sync.Mutex
		*hdrhistogram.Histogram
	}
	hists := b.scratch(openShards)
	for i := range shards {
		hists[i].Reset()
		shards[i].Histogram = hists[i]
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make([]error, openWorkers)
	start := time.Now()
	for id := range openWorkers {
		workers.Go(func() {
			shard := &shards[id%openShards]
			for i := next.Add(1) - 1; i < int64(len(schedule)); i = next.Add(1) - 1 {
				time.Sleep(schedule[i] - time.Since(start))
				if errs[id] = r.Op(id, r.next[id]); errs[id] != nil {
					return
				}
				took := time.Since(start) - schedule[i]
				r.next[id]++
				shard.Lock()
				record(shard.Histogram, took)
				shard.Unlock()
			}
		})
	}
	workers.Wait()
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		r.done = true
		b.fail(open+"/"+r.Name, err)
		return
	}
	achieved := value(float64(len(schedule))/max(took, p.slice).Seconds(), "achieved/s")
	b.add(uint64(len(schedule)), append(latencies("", hists...), achieved),
		open, "backend="+r.Name, "rate="+strconv.Itoa(rate), "procs="+strconv.Itoa(procs))
}

// arrivals are the times, from the start, at which operations arrive: a Poisson process,
// as of many users who do not know of each other. The same seed gives the same times, and
// all contenders get the same ones.
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
