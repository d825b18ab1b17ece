package memory

import (
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/idemkv/idem/engine"
)

// table maps the keys of one shard to their entries: open addressing with linear
// probing. It is written under the shard's lock and read without any. Against the
// built-in map under a sync.RWMutex it saves a look-up the second hash, the lock's
// two atomic writes and one of three dependent cache misses (docs/BENCHMARKS.md).
//
// What makes the reads safe: a slot's key is set once in the life of its slots, and
// what changes from then on is its entry, one pointer. A key that leaves keeps its
// slot with no entry until the slots are made anew, and slots that were replaced are
// not written any more, so that a reader still in them sees the past of its own
// call.
type table struct {
	slots atomic.Pointer[[]slot] // a power of two of them; nil while there was no key
	used  int                    // slots with a key
	live  int                    // of them with an entry
}

// slot is 24 bytes. The key is kept as pointer and, in meta, length, because a
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

// metaOf is the key's hash with its length in place of the lowest bits, which
// choose the shard.
func metaOf(hash uint64, key string) uint64 {
	return hash>>lengthBits<<lengthBits | uint64(len(key))
}

func (s *slot) string(key *byte) string {
	return unsafe.String(key, s.meta&(1<<lengthBits-1))
}

// get returns the entry of key, nil if there is none. It may be called at any time.
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

// set makes e, nil for none, the entry of key and returns the table's own copy of
// the key: the caller's may be a piece of something large.
func (t *table) set(hash uint64, key string, e *engine.Entry) (own string) {
	meta := metaOf(hash, key)
	s := find(t.slots.Load(), meta, key)
	switch {
	case s == nil && e == nil:
		return ""
	case s == nil:
		t.grow()
		s = claim(*t.slots.Load(), meta)
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
		// The keys of those that left go when they are most.
		if t.live--; t.used > 2*t.live+minSlots {
			t.renew()
		}
	}
	return own
}

// grow makes room for one more key: at most three slots of four are used, where a
// key that is there is found at the second or third look on average.
func (t *table) grow() {
	if p := t.slots.Load(); p == nil || 4*(t.used+1) > 3*len(*p) {
		t.renew()
	}
}

// renew makes the slots anew, with at most half of them used, so that as many keys
// again come before the next time however many left.
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
			to := claim(slots, from.meta)
			to.entry.Store(e)
			to.meta = from.meta
			to.key.Store(from.key.Load())
		}
	}
	t.used = t.live
	t.slots.Store(&slots)
}

// claim returns the slot where a key that is not there yet goes.
func claim(slots []slot, meta uint64) *slot {
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
