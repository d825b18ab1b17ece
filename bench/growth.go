package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.etcd.io/bbolt"
	"golang.org/x/perf/benchfmt"

	"github.com/idemkv/idem"
	c "github.com/idemkv/idem/bench/contenders"
)

// The groups of rows about size.
const (
	scaleHit    = "Scale/hit"    // look-ups of stored keys, no cache of idem's
	scaleMiss   = "Scale/miss"   // look-ups of keys that are not there
	scaleReopen = "Scale/reopen" // opening a store that was closed
	scaleSize   = "Scale/size"   // bytes on disk and in memory
	scaleGC     = "Scale/gc"     // look-ups in and out of cycles of the garbage collector
)

// scaleResult is the size of a result in these rows, in bytes.
const scaleResult = 64

// sized is a store of one size.
type sized struct {
	w         c.Workload
	dir       string
	store     c.Store
	hit, miss *running
}

// growth measures how each engine grows: stores of all sizes are open at once, and take
// turns.
func (b *bench) growth(sizes []int, p pace, procs int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	b.perEngine("Scale", func(engine, dir string) (err error) {
		var stores []*sized
		defer func() {
			for _, s := range stores {
				if s.store.Store != nil {
					err = errors.Join(err, s.store.Close())
				}
			}
		}()
		for _, n := range sizes {
			s := &sized{w: c.Workload{Keys: c.NewKeys(n), ResultBytes: scaleResult}, dir: filepath.Join(dir, strconv.Itoa(n))}
			stores = append(stores, s)
			if err := errors.Join(os.Mkdir(s.dir, 0o700), b.grow(engine, s, p.rounds)); err != nil {
				return fmt.Errorf("%d keys: %w", n, err)
			}
			s.hit = &running{Contender: c.Contender{Name: engine}, Instance: c.Instance{Op: c.Hit(s.store, s.w)}}
			s.miss = &running{Contender: c.Contender{Name: engine}, Instance: c.Instance{Op: c.Miss(s.store, s.w)}}
			b.warm(scaleHit, 1, s.hit, p)
			b.warm(scaleMiss, 1, s.miss, p)
		}
		for round := range p.rounds {
			for _, i := range order(len(stores), round) {
				s := stores[i]
				name := []string{"backend=" + engine, "keys=" + count(s.w.Keys.Len()), "callers=1", "procs=" + strconv.Itoa(procs)}
				b.slice(append([]string{scaleHit}, name...), 1, s.hit, after(p.slice), 0)
				b.slice(append([]string{scaleMiss}, name...), 1, s.miss, after(p.slice), 0)
			}
		}
		if engine == "memory" {
			return b.collections(stores[len(stores)-1], p, procs)
		}
		return nil
	})
}

// grow fills a store, weighs it, and opens it again some times.
func (b *bench) grow(engine string, s *sized, reopen int) (err error) {
	ctx, n := context.Background(), s.w.Keys.Len()
	o := idem.Options{CacheBytes: -1, MaxBatch: c.FillBatch}
	heap, start := heapInUse(), time.Now()
	if s.store, err = c.OpenStore(engine, s.dir, o); err != nil {
		return err
	}
	if engine == "bolt" {
		// Filled at random, a tree of 1e7 records would be written over hundreds of times.
		s.w.Keys.SortFill()
	}
	if err := c.Fill(ctx, s.store.Store, s.w, 0, n, 0); err != nil {
		return err
	}
	if err := s.store.Settle(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	b.log("Scale %s: %s records stored in %v", engine, count(n), took.Round(ms))
	name := []string{"backend=" + engine, "keys=" + count(n)}
	each := func(v int64, unit string) benchfmt.Value { return value(float64(v)/float64(n), unit) }
	values := []benchfmt.Value{each(took.Nanoseconds(), "fill-ns/record"), each(heapInUse()-heap, "heap-B/record")}
	if engine != "memory" {
		raw, err := rawBytes(s.store)
		if err != nil {
			return err
		}
		for i := range reopen {
			if err := s.store.Close(); err != nil {
				return err
			}
			if i == 0 {
				disk, err := diskUsage(s.dir)
				if err != nil {
					return err
				}
				values = append(values, each(disk, "disk-B/record"), each(raw, "raw-B/record"))
			}
			start := time.Now()
			if s.store, err = c.OpenStore(engine, s.dir, o); err != nil {
				return err
			}
			b.add(1, []benchfmt.Value{value(float64(time.Since(start).Nanoseconds()), "ns/op")}, append([]string{scaleReopen}, name...)...)
		}
	}
	b.add(uint64(n), values, append([]string{scaleSize}, name...)...)
	return nil
}

// heapInUse is what the heap holds that is alive.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// diskUsage is the size of the files below dir.
func diskUsage(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// rawBytes is the size of the keys and values that idem keeps in an engine: records,
// index and the rest.
func rawBytes(s c.Store) (n int64, err error) {
	if s.Bolt != nil {
		err = s.Bolt.DB().View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
				return bucket.ForEach(func(k, v []byte) error { n += int64(len(k) + len(v)); return nil })
			})
		})
		return n, err
	}
	it, err := s.Pebble.DB().NewIter(nil)
	if err != nil {
		return 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		n += int64(len(it.Key()) + len(it.Value()))
	}
	return n, errors.Join(it.Error(), it.Close())
}

// collections measures look-ups while a cycle of the garbage collector is under way, and
// while none is: how a heap full of records weighs on whoever asks. Each round forces a
// cycle, with as much time without one around it. Look-ups that one begins or ends in are
// left out.
func (b *bench) collections(s *sized, p pace, procs int) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // none but those that are forced
	callers := []int{1, procs}
	if procs == 1 {
		callers = callers[:1]
	}
	for _, n := range callers {
		for range p.rounds {
			ops, values, err := collection(s, p.slice, n)
			if err != nil {
				return err
			}
			b.add(ops, values, scaleGC, "backend=memory", "keys="+count(s.w.Keys.Len()), "callers="+strconv.Itoa(n), "procs="+strconv.Itoa(procs))
		}
	}
	return nil
}

// collection has callers look keys up before, while and after a cycle runs, at least
// quiet long before and after.
func collection(s *sized, quiet time.Duration, callers int) (ops uint64, values []benchfmt.Value, err error) {
	var in, out []*hdrhistogram.Histogram
	var under, stop atomic.Bool
	get, errs := c.Hit(s.store, s.w), make(chan error, callers)
	for w := range callers {
		inside, outside := newHistogram(), newHistogram()
		in, out = append(in, inside), append(out, outside)
		go func() {
			var err error
			for n := uint64(0); err == nil && !stop.Load(); n++ {
				before, start := under.Load(), time.Now()
				err = get(w, n)
				took := time.Since(start)
				switch after := under.Load(); {
				case before && after:
					record(inside, took)
				case !before && !after:
					record(outside, took)
				}
			}
			errs <- err
		}()
	}
	time.Sleep(quiet)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	paused, cycle, start := m.PauseTotalNs, m.NumGC, time.Now()
	under.Store(true)
	runtime.GC()
	under.Store(false)
	took := time.Since(start)
	runtime.ReadMemStats(&m)
	longest := uint64(0)
	for ; cycle < m.NumGC; cycle++ { // the runtime keeps the last 256
		longest = max(longest, m.PauseNs[cycle%256])
	}
	time.Sleep(max(quiet, took-quiet))
	stop.Store(true)
	for range callers {
		err = errors.Join(err, <-errs)
	}
	values = []benchfmt.Value{
		value(float64(took.Nanoseconds()), "gc-ns"), value(float64(m.PauseTotalNs-paused), "gc-pause-ns"), value(float64(longest), "gc-pause-max-ns"),
	}
	values = append(append(values, latencies("in-gc-", in...)...), latencies("no-gc-", out...)...)
	for w := range callers {
		ops += uint64(in[w].TotalCount() + out[w].TotalCount())
	}
	return ops, values, err
}
