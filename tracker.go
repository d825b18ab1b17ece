package idem

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/ttl"
)

// tracker keeps what the store knows outside its engine in step with the commits: the
// cache, the entries of recent claims, the waiters, the open claims, and when the
// sweeper must run. Each op that changes its key passes through begin, before the
// change becomes visible, and through end, once it can be read.
//
// A count per key, found by a hash, tells whether something read outside a commit is
// still current. It goes up at begin and again at end. A new operation reads its key
// twice: once to refuse early, once in the commit. The count saves the second read, for
// which everyone in the group would wait. A completion needs no read at all: the
// claim's commit left the entry behind (recent). With 256 callers on the Pebble engine
// these reads were half the cost of a commit besides its sync.
type tracker struct {
	time     *timeline
	sweeper  *ttl.Sweeper // nil: nothing is swept
	waiters  waiters
	open     openClaims
	removals atomic.Uint64 // removed entries, counted at begin and again at end

	seed   maphash.Seed
	counts *[changeSlots]atomic.Uint64 // nil if reads are direct, like recent and cache
	recent *recent
	cache  *cache // nil if there is none
}

// changeSlots takes 128 KiB a store. With a thousand changes between a read and its
// commit, one read in sixteen is wasted.
const changeSlots = 1 << 14

// The low half of a count is the number of changes under way. The high half is how many
// have begun.
const (
	changeBegins = 1<<32 + 1
	changeUnder  = 1<<32 - 1 // mask of the changes under way
)

func newTracker(t *timeline, direct bool, cacheBytes int64) *tracker {
	tr := &tracker{time: t, seed: maphash.MakeSeed()}
	tr.open.init()
	if direct {
		return tr
	}
	tr.counts, tr.recent = new([changeSlots]atomic.Uint64), new(recent)
	if cacheBytes > 0 {
		tr.cache = newCache(cacheBytes)
	}
	return tr
}

// snapshot is an entry, nil for none, with its key's count from before it was read. The
// zero snapshot is never current.
type snapshot struct {
	entry *engine.Entry
	hash  uint64 // of the key
	count *atomic.Uint64
	at    uint64
}

// before must be called before an entry is read. The caller adds the entry to the
// result.
func (t *tracker) before(key string) snapshot {
	if t.counts == nil {
		return snapshot{}
	}
	return t.beforeHash(maphash.String(t.seed, key))
}

func (t *tracker) beforeHash(hash uint64) snapshot {
	n := &t.counts[hash%changeSlots]
	return snapshot{hash: hash, count: n, at: n.Load()}
}

// current reports whether nothing has changed since, and no change was under way then.
func (s *snapshot) current() bool {
	return s.count != nil && s.at&changeUnder == 0 && s.count.Load() == s.at
}

// cached returns the cache's final entry for key; nil if it has none.
func (t *tracker) cached(key string, snap *snapshot) *engine.Entry {
	return t.cache.get(snap.hash, key)
}

// fill adds an entry that a look-up read after taking snap to the cache.
func (t *tracker) fill(key string, snap *snapshot, e *engine.Entry) {
	if e != nil && e.State.Final() {
		t.cache.fill(snap, key, e)
	}
}

// claimed returns what is known about the record that token was granted on.
func (t *tracker) claimed(token Token) snapshot {
	if t.recent == nil {
		return snapshot{}
	}
	return t.recent.of(token)
}

// begin says that op is about to change its key. What was read of the key is stale from
// now on, and the cache must not hold it until end.
func (t *tracker) begin(op *operation) {
	if op.next == nil { // here too: a caller that looks before end must not take the store for full
		t.removals.Add(1)
	}
	if t.counts == nil {
		return
	}
	if op.before.count == nil {
		op.before = snapshot{hash: maphash.String(t.seed, op.key)}
		op.before.count = &t.counts[op.before.hash%changeSlots]
	}
	op.before.count.Add(changeBegins)
	// The cache holds only final entries. It may hold one that can no longer be read
	// from disk.
	if t.cache != nil && (op.act.kind == actForget || op.prev != nil && op.prev.State.Final()) {
		t.cache.remove(op.before.hash, op.key)
	}
}

// abandon ends a begin after which nothing was changed.
func (t *tracker) abandon(op *operation) {
	if t.counts != nil {
		op.before.count.Add(^uint64(0))
	}
}

// end follows a commit: op's change is durable and can be read. Engines call it in
// commit order. It must be quick, because the next commit waits for it.
func (t *tracker) end(op *operation) {
	if t.counts != nil {
		op.before.count.Add(^uint64(0))
		snap := t.beforeHash(op.before.hash)
		snap.entry = op.next
		t.recent.committed(op, snap)
	}
	if op.next == nil {
		t.removals.Add(1)
	} else if t.sweeper != nil && op.next.Due != 0 {
		t.sweeper.Due(time.Duration(op.next.Due))
	}
	t.waiters.wake(op.key, op.prev, t.shown(op.next))
	if op.act.kind < actImport { // what was imported was granted elsewhere
		t.open.changed(op, t.time.epoch)
	}
}

// shown returns what waiters find in e, which can be read from now on. It is nil if e's
// retention was shorter than its commit.
func (t *tracker) shown(e *engine.Entry) *engine.Entry {
	if t.waiters.n.Load() > 0 {
		if now, _ := t.time.now(); !live(e, now) {
			return nil
		}
	}
	return e
}

// recent keeps the entries of the latest claims until they are settled. New claims
// overwrite old ones, which bounds it; an entry not found here is read.
type recent [recentClaims]atomic.Pointer[recentClaim]

const (
	// recentClaims is how many claims may be in flight at once before completions have
	// to read their records.
	recentClaims = 1 << 12
	// recentCheckpoint is the longest checkpoint kept here. A checkpoint may be as long
	// as a result, and a claim with a longer one is left out. All slots together take
	// some 10 MiB at most, keys included.
	recentCheckpoint = 1 << 10
)

type recentClaim struct {
	key  string
	snap snapshot
}

func (r *recent) slot(fence uint64) *atomic.Pointer[recentClaim] { return &r[fence%recentClaims] }

func (r *recent) of(t Token) snapshot {
	if c := r.slot(t.Fence).Load(); c != nil && c.key == t.Key {
		return c.snap
	}
	return snapshot{}
}

// committed follows a change that can be read; snap holds the op's next entry.
func (r *recent) committed(op *operation, snap snapshot) {
	if op.prev != nil && (op.next == nil || op.next.Fence != op.prev.Fence) {
		r.drop(op.prev.Fence, op.key) // taken over, or gone
	}
	if e := op.next; e != nil && e.State == InFlight && len(e.Checkpoint)+len(e.Result) <= recentCheckpoint {
		slot, key := r.slot(e.Fence), ""
		if c := slot.Load(); c != nil && c.key == op.key {
			key = c.key
		} else {
			key = strings.Clone(op.key) // the caller's may be a piece of something large
		}
		slot.Store(&recentClaim{key, snap})
		return
	}
	if op.next != nil {
		r.drop(op.next.Fence, op.key)
	}
}

func (r *recent) drop(fence uint64, key string) {
	slot := r.slot(fence)
	if c := slot.Load(); c != nil && c.key == key {
		slot.CompareAndSwap(c, nil)
	}
}
