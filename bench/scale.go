package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/pebble"
)

// The groups of rows about size.
const (
	ScaleHit    = "Scale/hit"    // look-ups of stored keys, no cache of idem's
	ScaleMiss   = "Scale/miss"   // look-ups of keys that are not there
	ScaleReopen = "Scale/reopen" // opening a store that was closed
	ScaleSize   = "Scale/size"   // bytes on disk and in memory
	ScaleGC     = "Scale/gc"     // look-ups in and out of cycles of the garbage collector
)

// scaleResult is the size of a result in the rows about size, in bytes.
const scaleResult = 64

// sized is a store of one size.
type sized struct {
	w        Workload
	dir      string
	remove   func()      // of dir
	store    *idem.Store // nil until it was opened
	hit, mis *running
}

// Scale measures how each engine grows: stores of all sizes are open at once, and
// take turns.
func (b *Bench) Scale(sizes []int, p Pace, procs int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	for _, e := range Engines() {
		if b.Only != nil && !b.Only(IdemPrefix+e.Name) {
			continue
		}
		if err := b.scale(e, sizes, p, procs); err != nil {
			b.fail("Scale "+e.Name, err)
		}
	}
}

func (b *Bench) scale(e Engine, sizes []int, p Pace, procs int) (err error) {
	var stores []*sized
	defer func() {
		for _, s := range stores {
			if s.store != nil {
				err = errors.Join(err, s.store.Close())
			}
			s.remove()
		}
	}()
	for _, n := range sizes {
		s := &sized{w: Workload{Keys: NewKeys(n), ResultBytes: scaleResult, Procs: procs, Callers: 1}}
		if s.dir, s.remove, err = b.tempDir("scale-" + e.Name); err != nil {
			return err
		}
		stores = append(stores, s)
		if err := b.grow(e, s, p.Rounds); err != nil {
			return fmt.Errorf("%d keys: %w", n, err)
		}
		s.hit = &running{Instance: Instance{Op: getHit(s.store, s.w)}, label: e.Name, every: 1}
		s.mis = &running{Instance: Instance{Op: getMiss(s.store, s.w)}, label: e.Name, every: 1}
	}
	for _, s := range stores {
		b.warm(ScaleHit, 1, s.hit, p)
		b.warm(ScaleMiss, 1, s.mis, p)
	}
	for round := range p.Rounds {
		for _, i := range order(len(stores), round) {
			s := stores[i]
			b.measure(ScaleHit, s.params(e, procs), 1, s.hit, after(p.Slice), 0)
			b.measure(ScaleMiss, s.params(e, procs), 1, s.mis, after(p.Slice), 0)
		}
	}
	if !e.Durable {
		return b.collections(e, stores[len(stores)-1], p, procs)
	}
	return nil
}

func (s *sized) params(e Engine, procs int) []Param {
	return Variant{Procs: procs}.params(Workload{Group: GetHit, Keys: s.w.Keys}, e.Name)
}

// grow fills a store, weighs it, and opens it again some times.
func (b *Bench) grow(e Engine, s *sized, reopen int) error {
	ctx, n := context.Background(), s.w.Keys.Len()
	o := idem.Options{CacheBytes: -1, MaxBatch: fillBatch}
	heap := heapInUse()
	start := time.Now()
	if err := s.open(e, o); err != nil {
		return err
	}
	if e.Name == "bolt" {
		// Filled at random, a tree of 1e7 records would be written over hundreds of times.
		s.w.Keys.sortFill()
	}
	if err := Fill(ctx, s.store, s.w, 0, n, 0); err != nil {
		return err
	}
	if e.Settle != nil {
		if err := e.Settle(ctx, engine.Of(s.store)); err != nil {
			return err
		}
	}
	took := time.Since(start)
	b.log("Scale %s: %s records stored in %v", e.Name, keyCount(n), took.Round(time.Millisecond))
	params := []Param{{"backend", e.Name}, {"keys", keyCount(n)}}
	perRecord := func(bytes int64) float64 { return float64(bytes) / float64(n) }
	values := []Value{
		{"fill-ns/record", perRecord(took.Nanoseconds())},
		{"heap-B/record", perRecord(heapInUse() - heap)},
	}
	if e.Durable {
		raw, err := rawBytes(engine.Of(s.store))
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
				values = append(values, Value{"disk-B/record", perRecord(disk)}, Value{"raw-B/record", perRecord(raw)})
			}
			start := time.Now()
			if err := s.open(e, o); err != nil {
				return err
			}
			b.add(ScaleReopen, params, 1, Value{"ns/op", float64(time.Since(start).Nanoseconds())})
		}
	}
	b.add(ScaleSize, params, uint64(n), values...)
	return nil
}

func (s *sized) open(e Engine, o idem.Options) (err error) {
	s.store, err = OpenStore(e, s.dir, o)
	return err
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
		n += info.Size()
		return err
	})
	return n, err
}

// rawBytes is the size of the keys and values that idem keeps in an engine: records,
// index and the rest.
func rawBytes(b engine.Backend) (n int64, err error) {
	switch b := b.(type) {
	case *bolt.Backend:
		err = b.DB().View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
				return bucket.ForEach(func(k, v []byte) error { n += int64(len(k) + len(v)); return nil })
			})
		})
	case *pebble.Backend:
		it, err := b.DB().NewIter(nil)
		if err != nil {
			return 0, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			n += int64(len(it.Key()) + len(it.Value()))
		}
		return n, errors.Join(it.Error(), it.Close())
	}
	return n, err
}

// sortFill makes Fill go in the order of the keys.
func (k *Keys) sortFill() {
	slices.SortFunc(k.order, func(a, b uint32) int {
		x, y := int(a)*KeyBytes, int(b)*KeyBytes
		return bytes.Compare(k.stored[x:x+KeyBytes], k.stored[y:y+KeyBytes])
	})
}
