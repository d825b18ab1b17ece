package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/idemkv/idem"
	c "github.com/idemkv/idem/bench/contenders"
)

const (
	// sweepLoaded is about callers beside a sweep: Claim and Complete of new keys, with
	// sweep=off while nothing is expired, and with sweep=on while the store's own
	// background sweep, with default options, removes what has expired.
	sweepLoaded = "Sweep/loaded"
	// idle is about stores that nobody calls: what the process uses, with backend=none
	// for a process without any store.
	idle = "Idle"
)

// perEngine runs f with a store of each engine, in a directory that it removes.
func (b *bench) perEngine(group string, f func(engine, dir string) error) {
	for _, engine := range c.Engines {
		if b.only != nil && !b.only(engine) {
			continue
		}
		dir, err := os.MkdirTemp(b.dir, engine+"-")
		if err == nil {
			err = errors.Join(f(engine, dir), os.RemoveAll(dir))
		}
		if err != nil {
			b.fail(group+"/"+engine, err)
		}
	}
}

// An era is what the clock skips to make the next records expire, eraBegins after its
// beginning. A sweep that takes longer than sweepLimit has failed.
const (
	era        = 24 * time.Hour
	eraBegins  = 6 * time.Hour
	sweepLimit = time.Minute
)

// eras is a store whose records expire in groups, one in each era.
type eras struct {
	store   c.Store
	clock   *c.JumpClock
	perEra  int
	removed atomic.Int64
	took    time.Duration
	err     error
}

// openEras opens a store that holds the keys of w, perEra of them expiring in each era.
// What callers add never expires.
func openEras(engine, dir string, w c.Workload, perEra int) (x *eras, err error) {
	ctx := context.Background()
	x = &eras{clock: c.NewJumpClock(), perEra: perEra}
	x.store, err = c.OpenStore(engine, dir, idem.Options{
		MaxBatch: c.FillBatch, Clock: x.clock, Retention: idem.Forever,
		Observer: func(_ context.Context, e idem.Event) {
			if e.Kind == idem.SweepDone {
				x.removed.Add(int64(e.Count))
			}
		},
	})
	if err != nil {
		return nil, err
	}
	for i, from := 0, 0; from < w.Keys.Len() && err == nil; i, from = i+1, from+perEra {
		err = c.Fill(ctx, x.store.Store, w, from, from+perEra, time.Duration(i)*era+eraBegins)
	}
	if err == nil {
		err = x.store.Settle(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, x.store.Close())
	}
	return x, nil
}

// sweeps is the limit of a slice in which the records of one era expire and are removed.
func (x *eras) sweeps(stop func()) (cancel func()) {
	begin, want := time.Now(), x.removed.Load()+int64(x.perEra)
	x.clock.Skip(era)
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		defer stop()
		tick := time.NewTicker(2 * ms)
		defer tick.Stop()
		for nudged := false; x.removed.Load() < want; {
			if !nudged { // until the sweep has begun
				x.clock.Nudge()
				nudged = x.removed.Load() > want-int64(x.perEra)
			}
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			if time.Since(begin) > sweepLimit {
				x.err = fmt.Errorf("after %v a sweep of %d records was not done", sweepLimit, x.perEra)
				return
			}
		}
		x.took = time.Since(begin)
	}()
	return func() { close(ended); <-watched }
}

// sweeps measures a store of each engine in pairs of slices: without anything to sweep,
// then with records that expire at one moment, until they are gone.
func (b *bench) sweeps(p plan, procs int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	pace := p.pace(sweepLoaded)
	b.perEngine(sweepLoaded, func(engine, dir string) (err error) {
		n := p.era[engine]
		if n == 0 {
			return nil
		}
		w := b.workload(sweepLoaded, p, n*pace.rounds)
		x, err := openEras(engine, dir, w, n)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.store.Close()) }()
		b.log("%s %s: %d rounds, %s records expire in each", sweepLoaded, engine, pace.rounds, count(n))
		r := &running{Contender: c.Contender{Name: engine}, Instance: c.Instance{Op: c.Cycle(x.store, w)}, every: 1}
		name := func(sweep string) []string {
			return []string{sweepLoaded, "backend=" + engine, "sweep=" + sweep, "callers=" + strconv.Itoa(p.loadCallers), "procs=" + strconv.Itoa(procs)}
		}
		b.warm(sweepLoaded, p.loadCallers, r, pace)
		r.every = 1
		for range pace.rounds {
			b.slice(name("off"), p.loadCallers, r, after(pace.slice), 0)
			b.slice(name("on"), p.loadCallers, r, x.sweeps, 0, func() benchfmt.Value { return value(float64(n)/x.took.Seconds(), "removed/s") })
			if x.err != nil {
				return x.err
			}
		}
		return nil
	})
}

// idle measures, in rounds, a process that does nothing: without a store, then with one
// of each engine, which has been used and is left alone.
func (b *bench) idle(p pace, resultBytes int) {
	const records = 10_000 // all of them to expire some day
	w := c.Workload{Keys: c.NewKeys(records), ResultBytes: resultBytes}
	for range p.rounds {
		b.rest("none", p)
		b.perEngine(idle, func(engine, dir string) (err error) {
			s, err := c.OpenStore(engine, dir, idem.Options{MaxBatch: c.FillBatch})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			ctx := context.Background()
			if err := c.Fill(ctx, s.Store, w, 0, records, 0); err != nil {
				return err
			}
			if err := s.Settle(ctx); err != nil {
				return err
			}
			b.rest(engine, p)
			return nil
		})
	}
}

// rest adds what the process uses while nothing is asked of it.
func (b *bench) rest(backend string, p pace) {
	debug.FreeOSMemory() // the runtime gives memory back in the background else
	time.Sleep(p.warmup)
	cpu, start := cpuTime(), time.Now()
	time.Sleep(p.slice)
	used, took := cpuTime()-cpu, time.Since(start)
	all, ours := goroutines()
	b.add(1, []benchfmt.Value{
		value(float64(used.Nanoseconds())/took.Seconds(), "cpu-ns/s"), value(float64(all), "goroutines"), value(float64(ours), "own-goroutines"),
	}, idle, "backend="+backend)
}

// goroutines counts all goroutines, and those that idem's own code started.
func goroutines() (all, ours int) {
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(strings.TrimSpace(string(stacks)), "\n\n") {
		all++
		_, creator, _ := strings.Cut(stack, "created by github.com/idemkv/idem")
		if creator != "" && !strings.HasPrefix(creator, "/bench") {
			ours++
		}
	}
	return all, ours
}
