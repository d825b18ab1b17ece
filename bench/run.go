package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/perf/benchfmt"

	c "github.com/idemkv/idem/bench/contenders"
)

// bench runs comparisons and collects what they find.
type bench struct {
	*results
	dir    string // on the disk that is measured
	filled c.Filled
	only   func(name string) bool                                    // which contenders run; nil: all
	log    func(format string, args ...any)                          // told what is going on
	alone  func(contender string, callers, ops, result int) []string // command that runs one and prints its figures
	hists  []*hdrhistogram.Histogram                                 // one for each worker
}

// variant is how contenders that are open are run.
type variant struct{ procs, callers int }

// running is a contender that is open, and how far its workers have come.
type running struct {
	c.Contender
	c.Instance
	dir   string
	next  []uint64 // of each worker
	every int      // one operation of how many is timed
	done  bool     // there is nothing left to do, or it failed
}

// Where operations are so short that reading the clock twice for each would be a part of
// the figure, one in sampled is timed.
const (
	sampled    = 64
	sampleFrom = 2 * time.Microsecond
)

// order returns the order of n contenders in a round. It is rotated from round to round:
// each has every place in turn. It begins as a zigzag (0, 1, n-1, 2, n-2, …): whoever runs
// before a contender, and leaves it a dirty disk or a busy compaction, is another one each
// time. (Williams, Aust. J. Sci. Res. A 2, 1949: for even n no two follow each other twice
// in n rounds.)
func order(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		zigzag := (i + 1) / 2
		if i%2 == 0 {
			zigzag = (n - i/2) % n
		}
		out[i] = (zigzag + round) % n
	}
	return out
}

// compare opens all contenders of a workload and runs them in rounds, a slice for each in
// turn, once for every variant. One that is absent or fails is noted and left out from
// then on: what the others did is still worth having.
func (b *bench) compare(w c.Workload, variants []variant, p pace) {
	b.compareThese(c.All(w.Group), w, variants, p)
}

func (b *bench) compareThese(contenders []c.Contender, w c.Workload, variants []variant, p pace) {
	for _, v := range variants {
		w.Procs, w.Callers = max(w.Procs, v.procs), max(w.Callers, v.callers)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(w.Procs))
	all, shut := b.openAll(contenders, w)
	defer shut()
	for _, v := range variants {
		runtime.GOMAXPROCS(v.procs)
		b.log("%s keys=%s callers=%d procs=%d: %d contenders, %d rounds of %v", w.Group, count(w.Keys.Len()), v.callers, v.procs, len(all), p.rounds, p.slice)
		for _, r := range all {
			b.warm(w.Group, v.callers, r, p)
		}
		for round := range p.rounds {
			for _, i := range order(len(all), round) {
				b.slice(v.name(w, all[i].Name), v.callers, all[i], after(p.slice), p.ops)
			}
		}
	}
}

// name is a row's. Where there is a caller for each processor, as in look-ups, callers
// are not named.
func (v variant) name(w c.Workload, backend string) []string {
	out := []string{w.Group, "backend=" + backend}
	if n := w.Keys.Len(); n > 0 {
		out = append(out, "keys="+count(n))
	}
	if !slices.Contains([]string{c.GetHit, c.GetMiss, c.ClaimReplay, c.CycleMemory}, w.Group) {
		out = append(out, "callers="+strconv.Itoa(v.callers))
	}
	return append(out, "procs="+strconv.Itoa(v.procs))
}

// openAll opens what there is of the contenders.
func (b *bench) openAll(contenders []c.Contender, w c.Workload) (all []*running, shut func()) {
	for _, contender := range contenders {
		if b.only != nil && !b.only(contender.Name) {
			continue
		}
		subject, start := w.Group+"/"+contender.Name, time.Now()
		dir, err := os.MkdirTemp(b.dir, contender.Name+"-")
		if err != nil {
			b.fail(subject, err)
			continue
		}
		in, err := contender.Open(dir, w)
		if err != nil {
			_ = os.RemoveAll(dir)
			b.fail(subject, fmt.Errorf("opening: %w", err))
			continue
		}
		if took := time.Since(start); took > time.Second {
			b.log("%s: opened in %v", subject, took.Round(ms))
		}
		all = append(all, &running{Contender: contender, Instance: in, dir: dir, every: 1})
	}
	return all, func() {
		for _, r := range all {
			if err := errors.Join(r.Close(), os.RemoveAll(r.dir)); err != nil {
				b.fail(w.Group+"/"+r.Name, fmt.Errorf("closing: %w", err))
			}
		}
	}
}

// fail notes why somebody is missing.
func (b *bench) fail(subject string, err error) {
	kind := "failed"
	if errors.Is(err, c.ErrAbsent) {
		kind = "absent"
	} else {
		b.failed = true
	}
	b.set(kind+"/"+subject, "%v", err)
	b.log("%s %s: %v", kind, subject, err)
}

// warm runs a slice that does not count, and finds out whether all operations can be
// timed.
func (b *bench) warm(group string, callers int, r *running, p pace) {
	if r.done || p.warmup == 0 {
		return
	}
	r.every = 1
	s, err := r.run(callers, after(p.warmup), p.ops, b.scratch(callers))
	if err != nil {
		r.done = true
		b.fail(group+"/"+r.Name, err)
		return
	}
	if s.elapsed*time.Duration(callers) < sampleFrom*time.Duration(s.ops) {
		r.every = sampled
	}
}

// slice measures a contender, and adds a row, with what more there is to it. One that is
// done is passed over.
func (b *bench) slice(name []string, callers int, r *running, until limit, ops uint64, more ...func() benchfmt.Value) {
	if r.done {
		return
	}
	// What others left behind would soon make the collector run in this slice.
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > m.NextGC*2/3 {
		runtime.GC()
	}
	hists := b.scratch(callers)
	s, err := r.run(callers, until, ops, hists)
	if err != nil {
		r.done = true
		b.fail(name[0]+"/"+r.Name, err)
		return
	}
	if s.ops == 0 {
		return // it was done before it began
	}
	each := func(n float64) float64 { return n / float64(s.ops) }
	values := append([]benchfmt.Value{value(each(float64(s.elapsed.Nanoseconds())), "ns/op")}, latencies("", hists...)...)
	if !r.External {
		values = append(values, value(each(float64(s.bytes)), "B/op"), value(each(float64(s.mallocs)), "allocs/op"),
			value(each(float64(s.cpu.Nanoseconds())), "cpu-ns/op"))
	}
	values = append(values, value(float64(r.every), "sampled"))
	for _, m := range more {
		values = append(values, m())
	}
	b.add(s.ops, values, name...)
}

// limit begins to count when it is called, and calls stop when the slice is to end. cancel
// ends the counting.
type limit func(stop func()) (cancel func())

func after(d time.Duration) limit {
	return func(stop func()) func() {
		timer := time.AfterFunc(d, stop)
		return func() { timer.Stop() }
	}
}

// spent is what a slice took.
type spent struct {
	ops            uint64
	elapsed, cpu   time.Duration
	mallocs, bytes uint64
}

// run has workers call Op until the limit, or until they have done most together if that
// is not 0. Each that has a share of them does one at least.
func (r *running) run(callers int, until limit, most uint64, hists []*hdrhistogram.Histogram) (s spent, err error) {
	for len(r.next) < callers {
		r.next = append(r.next, 0)
	}
	var stop atomic.Bool
	var ready, finished sync.WaitGroup
	begin := make(chan struct{})
	counts, errs := make([]uint64, callers), make([]error, callers)
	for w := range callers {
		share := uint64(math.MaxUint64)
		if most > 0 {
			share = (most + uint64(callers-1-w)) / uint64(callers)
		}
		hists[w].Reset()
		ready.Add(1)
		finished.Go(func() {
			ready.Done()
			<-begin
			counts[w], errs[w] = r.work(w, share, hists[w], &stop)
		})
	}
	ready.Wait()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := cpuTime(), time.Now()
	cancel := until(func() { stop.Store(true) })
	close(begin)
	finished.Wait()
	s.elapsed = time.Since(start)
	cancel()
	s.cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	s.mallocs, s.bytes = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	for w, n := range counts {
		s.ops += n
		if errors.Is(errs[w], c.ErrDone) {
			r.done, errs[w] = true, nil
		}
	}
	return s, errors.Join(errs...)
}

// work is one worker's part of a slice.
func (r *running) work(w int, most uint64, h *hdrhistogram.Histogram, stop *atomic.Bool) (ops uint64, err error) {
	n := r.next[w]
	defer func() { r.next[w] += ops }()
	for ops < most && (ops == 0 || !stop.Load()) {
		start := time.Now()
		if err = r.Op(w, n+ops); err != nil {
			return ops, err
		}
		record(h, time.Since(start))
		ops++
		for i := 1; i < r.every && ops < most; i++ {
			if err = r.Op(w, n+ops); err != nil {
				return ops, err
			}
			ops++
		}
	}
	return ops, nil
}

// longest is the longest latency that a histogram tells apart.
const longest = time.Minute

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(longest), 3) }

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(int64(min(max(d, 1), longest))) // in range
}

// scratch returns a histogram for each of n workers.
func (b *bench) scratch(n int) []*hdrhistogram.Histogram {
	for len(b.hists) < n {
		b.hists = append(b.hists, newHistogram())
	}
	return b.hists[:n]
}

// latencies are the percentiles and the longest of histograms together, none of empty
// ones. A percentile that fewer than two samples lie beyond would be the longest by
// another name, and is left out.
func latencies(prefix string, hists ...*hdrhistogram.Histogram) (out []benchfmt.Value) {
	all := newHistogram()
	for _, h := range hists {
		all.Merge(h)
	}
	if all.TotalCount() == 0 {
		return nil
	}
	for _, q := range []float64{50, 90, 99, 99.9, 99.99} {
		if float64(all.TotalCount())*(100-q)/100 >= 2 || q == 50 {
			out = append(out, value(float64(all.ValueAtPercentile(q)), fmt.Sprintf("%sp%v-ns", prefix, q)))
		}
	}
	return append(out, value(float64(all.Max()), prefix+"max-ns"))
}
