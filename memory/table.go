package memory

import (
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/idemkv/idem/engine"
)

// table maps the keys of one shard to their entries, by open addressing with linear
// probing. It is written under the shard's lock and read without one. Compared with the
// built-in map under a sync.RWMutex it saves a look-up the second hash, the lock's two
// atomic writes and one of three dependent cache misses (docs/BENCHMARKS.md).
//
// Reads are safe because a slot's key is set only once. After that only its entry
// changes, which is one pointer. A removed key keeps its slot, without an entry, until
// the slots are rebuilt. Replaced slots are not written any more, so a reader still
// using them sees the state as of its own call.
type table struct {
	slots atomic.Pointer[[]slot] // a power of two; nil before the first key
	used  int                    // slots with a key
	live  int                    // those of them that have an entry
}

// slot is 24 bytes. The key is kept as a pointer and, in meta, a length, because a
// string cannot be read and written atomically.
type slot struct {
	key   atomic.Pointer[byte]
	meta  uint64 // written before key is set, and never again; see metaOf
	entry atomic.Pointer[engine.Entry]
}

const (
	lengthBits = 11 // holds idem.MaxKey
	minSlots   = 8
)

// metaOf returns the key's hash with its lowest bits, which chose the shard, replaced
// by the key's length.
func metaOf(hash uint64, key string) uint64 {
	return hash>>lengthBits<<lengthBits | uint64(len(key))
}

func (s *slot) string(key *byte) string {
	return unsafe.String(key, s.meta&(1<<lengthBits-1))
}

// get returns the entry of key, nil if there is none. It needs no lock.
func (t *table) get(hash uint64, key string) *engine.Entry {
	if s := find(t.slots.Load(), metaOf(hash, key), key); s != nil {
		return s.entry.Load()
	}
	return nil
}

// find returns the slot of key, nil if it has none.
func find(all *[]slot, meta uint64, key string) *slot {
	if all == nil {
		return nil
	}
	slots := *all
	for i := meta >> lengthBits; ; i++ {
		s := &slots[i&uint64(len(slots)-1)]
		k := s.key.Load()
		if k == nil {
			return nil
		}
		if s.meta == meta && s.string(k) == key {
			return s
		}
	}
}

// set makes e, nil for none, the entry of key. It returns the table's own copy of the
// key, because the caller's may be a piece of something large.
func (t *table) set(hash uint64, key string, e *engine.Entry) (own string) {
	meta := metaOf(hash, key)
	s := find(t.slots.Load(), meta, key)
	switch {
	case s == nil && e == nil:
		return ""
	case s == nil:
		t.grow()
		s = freeSlot(*t.slots.Load(), meta)
		own = strings.Clone(key)
		s.entry.Store(e)
		s.meta = meta
		s.key.Store(unsafe.StringData(own)) // from here on it can be found
		t.used++
		t.live++
		return own
	}
	own = s.string(s.key.Load())
	switch was := s.entry.Swap(e); {
	case was == nil && e != nil:
		t.live++
	case was != nil && e == nil:
		// Renew once the keys that left are in the majority.
		if t.live--; t.used > 2*t.live+minSlots {
			t.renew()
		}
	}
	return own
}

// grow makes room for one more key. At most three of four slots are used, so a present
// key is found at the second or third probe on average.
func (t *table) grow() {
	if p := t.slots.Load(); p == nil || 4*(t.used+1) > 3*len(*p) {
		t.renew()
	}
}

// renew rebuilds the slots without the keys that left. At most half of the slots are
// used then, so at least a quarter can fill up before the next grow.
func (t *table) renew() {
	n := minSlots
	for 2*(t.live+1) > n {
		n *= 2
	}
	slots := make([]slot, n)
	if old := t.slots.Load(); old != nil {
		for i := range *old {
			from := &(*old)[i]
			e := from.entry.Load()
			if e == nil {
				continue
			}
			to := freeSlot(slots, from.meta)
			to.entry.Store(e)
			to.meta = from.meta
			to.key.Store(from.key.Load())
		}
	}
	t.used = t.live
	t.slots.Store(&slots)
}

// freeSlot returns the slot where a key that is not there yet goes.
func freeSlot(slots []slot, meta uint64) *slot {
	for i := meta >> lengthBits; ; i++ {
		if s := &slots[i&uint64(len(slots)-1)]; s.key.Load() == nil {
			return s
		}
	}
}

// all calls yield with each key and entry, under the shard's lock.
func (t *table) all(yield func(key string, e *engine.Entry) bool) {
	p := t.slots.Load()
	if p == nil {
		return
	}
	for i := range *p {
		s := &(*p)[i]
		if e := s.entry.Load(); e != nil && !yield(s.string(s.key.Load()), e) {
			return
		}
	}
}
