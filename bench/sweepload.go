package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// SweepLoaded is the group of rows about callers beside a sweep: Claim and Complete
// of new keys, with sweep=off while nothing is expired, and with sweep=on while the
// store's own background sweep removes what has expired.
const SweepLoaded = "Sweep/loaded"

const (
	// An era is what the clock skips to make the next records expire. Their
	// retention ends within one.
	era        = 24 * time.Hour
	eraBegins  = 6 * time.Hour // from the beginning of an era to when its records expire
	sweepLimit = time.Minute   // a sweep that takes longer than this has failed
)

// SweepLoad measures a store of each engine whose background sweep runs with default
// options: rounds in pairs, first without anything to sweep for p.Slice, then with
// perRound[engine] records that expire at one moment, until they are gone.
func (b *Bench) SweepLoad(perRound map[string]int, callers, resultBytes, procs int, p Pace) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	for _, e := range Engines() {
		if perRound[e.Name] == 0 || b.Only != nil && !b.Only(IdemPrefix+e.Name) {
			continue
		}
		if err := b.sweepLoad(e, perRound[e.Name], callers, resultBytes, procs, p); err != nil {
			b.fail(SweepLoaded+" "+e.Name, err)
		}
	}
}

func (b *Bench) sweepLoad(e Engine, perRound, callers, resultBytes, procs int, p Pace) (err error) {
	dir, remove, err := b.tempDir("sweep-" + e.Name)
	if err != nil {
		return err
	}
	defer remove()
	w := Workload{Group: SweepLoaded, Keys: NewKeys(perRound * p.Rounds), ResultBytes: resultBytes, Procs: procs, Callers: callers}
	x, err := openEras(e, dir, w, perRound)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.store.Close()) }()
	b.log("%s %s: %d rounds, %s records expire in each", SweepLoaded, e.Name, p.Rounds, keyCount(perRound))
	foreground := &running{Instance: Instance{Op: cycle(x.store, w)}, label: e.Name, every: 1}
	params := func(sweep string) []Param {
		return append([]Param{{"backend", e.Name}, {"sweep", sweep}}, Variant{procs, callers}.params(Workload{}, "")[1:]...)
	}
	b.warm(SweepLoaded, callers, foreground, p)
	foreground.every = 1
	for range p.Rounds {
		b.measure(SweepLoaded, params("off"), callers, foreground, after(p.Slice), 0)
		b.measure(SweepLoaded, params("on"), callers, foreground, x.sweeps, 0, func() []Value {
			return []Value{{"removed/s", float64(perRound) / x.took.Seconds()}}
		})
		if foreground.done || x.err != nil {
			return x.err
		}
	}
	return nil
}

// eras is a store whose records expire in groups, one in each era.
type eras struct {
	store *idem.Store
	clock *jumpClock
	era   int
	start engine.Instant // of the store's time
	took  time.Duration
	err   error
}

// openEras opens a store that holds the keys of w, perEra of them expiring in each
// era from the first on. What callers add never expires.
func openEras(e Engine, dir string, w Workload, perEra int) (*eras, error) {
	ctx, x := context.Background(), &eras{clock: newJumpClock()}
	wall, _ := x.clock.Now()
	x.start = engine.Instant(wall.UnixNano()) // a new store's time begins there, give or take
	s, err := OpenStore(e, dir, idem.Options{MaxBatch: fillBatch, Clock: x.clock, Retention: idem.Forever})
	if err != nil {
		return nil, err
	}
	for i, from := 0, 0; from < w.Keys.Len() && err == nil; i, from = i+1, from+perEra {
		err = Fill(ctx, s, w, from, from+perEra, time.Duration(i)*era+eraBegins)
	}
	if err == nil && e.Settle != nil {
		err = e.Settle(ctx, engine.Of(s))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	x.store = s
	return x, nil
}

// sweeps is the limit of a slice in which the records of one era expire and are
// removed.
func (x *eras) sweeps(stop func()) (cancel func()) {
	// The sweeper may be on its way to sleep still, with a time that is from before.
	for begin := time.Now(); !x.clock.Waiting(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > sweepLimit {
			x.err = errors.New("the sweeper does not wait for anything")
			stop()
			return func() {}
		}
	}
	x.era++
	begin := time.Now()
	x.clock.Jump(era)
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		defer stop()
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-ended:
				tick.Stop()
				return
			case <-tick.C:
			}
			left, err := x.left()
			if x.took = time.Since(begin); err == nil && left && x.took > sweepLimit {
				err = fmt.Errorf("after %v the sweep was not done", x.took)
			}
			if x.err = err; err != nil || !left {
				return
			}
		}
	})
	return func() { close(ended); watcher.Wait() }
}

// left reports whether the index still has places of the eras that have passed.
func (x *eras) left() (bool, error) {
	now := x.start + engine.Instant(time.Duration(x.era)*era)
	places, err := engine.Of(x.store).(engine.Expirer).Expiring(context.Background(), engine.Due{}, now, 1)
	return len(places) > 0, err
}
