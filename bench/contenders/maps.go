package contenders

import (
	"bytes"
	"hash/maphash"
	"runtime"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/idemkv/idem"
)

// A lookup in memory cannot do without a concurrent map; and, with times that are
// exact and a record that is the caller's own, not without one reading of the clock
// and one copy. The maps hold the same keys and results as everybody, and each is
// measured twice: alone, and as a floor with those two. The loop is written out for
// each map: a call through a variable would be measured too.

// storeRecords gives every key of w a record of its own, one by one.
func storeRecords(w Workload, store func(key string, r *idem.Record)) {
	result, now := w.Result(), time.Now()
	for i := range w.Keys.Len() {
		key := w.Keys.Fill(i)
		store(key, &idem.Record{
			Key: key, State: idem.Completed, Fence: 1, Attempt: 1, Result: bytes.Clone(result),
			ClaimedAt: now, LeaseUntil: now.Add(lease), FinishedAt: now, ExpiresAt: now.Add(retention),
		})
	}
}

// openMap makes a map with the keys of w and returns an operation on it; floor asks
// for the clock and the copy.
type openMap func(w Workload, floor bool) func(worker int, n uint64) error

// copyOut copies a record to the stack, and keeps the compiler from leaving it out.
func copyOut(r *idem.Record) {
	out := *r
	runtime.KeepAlive(&out)
}

func judgeHit(r *idem.Record, least int) error {
	if len(r.Result) < least {
		return errShort
	}
	return nil
}

func judgeMiss(found bool) error {
	if found {
		return errUnlooked
	}
	return nil
}

func openSyncMap(w Workload, floor bool) func(int, uint64) error {
	m := &sync.Map{}
	storeRecords(w, func(key string, r *idem.Record) { m.Store(key, r) })
	keys, least, miss := w.Keys, w.ResultBytes, w.Group == GetMiss
	return func(worker int, n uint64) error {
		if floor {
			_ = time.Now()
		}
		if miss {
			_, found := m.Load(keys.Miss(worker, n))
			return judgeMiss(found)
		}
		v, found := m.Load(keys.Hit(worker, n))
		if !found {
			return errMissing
		}
		r := v.(*idem.Record)
		if floor {
			copyOut(r)
		}
		return judgeHit(r, least)
	}
}

func openXsync(w Workload, floor bool) func(int, uint64) error {
	m := xsync.NewMap[string, *idem.Record](xsync.WithPresize(w.Keys.Len()))
	storeRecords(w, func(key string, r *idem.Record) { m.Store(key, r) })
	keys, least, miss := w.Keys, w.ResultBytes, w.Group == GetMiss
	return func(worker int, n uint64) error {
		if floor {
			_ = time.Now()
		}
		if miss {
			_, found := m.Load(keys.Miss(worker, n))
			return judgeMiss(found)
		}
		r, found := m.Load(keys.Hit(worker, n))
		if !found {
			return errMissing
		}
		if floor {
			copyOut(r)
		}
		return judgeHit(r, least)
	}
}

// mapShards: 16, 64, 256 and 1,024 could not be told apart on 2 CPUs.
const mapShards = 64

// shardedMap is what one writes by hand.
type shardedMap struct {
	seed   maphash.Seed
	shards [mapShards]mapShard
}

type mapShard struct {
	mu sync.RWMutex
	m  map[string]*idem.Record
	_  [32]byte // to a cache line
}

func newShardedMap(n int) *shardedMap {
	m := &shardedMap{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].m = make(map[string]*idem.Record, n/mapShards)
	}
	return m
}

func (m *shardedMap) shard(key string) *mapShard {
	return &m.shards[maphash.String(m.seed, key)%mapShards]
}

func (m *shardedMap) load(key string) (*idem.Record, bool) {
	s := m.shard(key)
	s.mu.RLock()
	r, found := s.m[key]
	s.mu.RUnlock()
	return r, found
}

func openSharded(w Workload, floor bool) func(int, uint64) error {
	m := newShardedMap(w.Keys.Len())
	storeRecords(w, func(key string, r *idem.Record) { m.shard(key).m[key] = r })
	keys, least, miss := w.Keys, w.ResultBytes, w.Group == GetMiss
	return func(worker int, n uint64) error {
		if floor {
			_ = time.Now()
		}
		if miss {
			_, found := m.load(keys.Miss(worker, n))
			return judgeMiss(found)
		}
		r, found := m.load(keys.Hit(worker, n))
		if !found {
			return errMissing
		}
		if floor {
			copyOut(r)
		}
		return judgeHit(r, least)
	}
}

// mapReads are the maps, alone and as floors.
func mapReads() (all []Contender) {
	for _, m := range []struct {
		name string
		open openMap
	}{
		{"sync.Map", openSyncMap}, {"xsync", openXsync}, {"sharded", openSharded},
	} {
		contender := func(family, does string, floor bool) Contender {
			return Contender{Name: family + "-" + m.name, Does: does, Open: func(_ string, w Workload) (Instance, error) {
				return Instance{Op: m.open(w, floor), Close: func() error { return nil }}, nil
			}}
		}
		all = append(all,
			contender("raw-map", "a look into the map alone: no clock, no copy, no expiry", false),
			contender("floor-map", "a look into the map, one reading of the clock and, on a hit, a copy of the record", true))
	}
	return all
}
