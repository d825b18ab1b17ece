package idem

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// changes counts the changes of entries, by a hash of their keys, so that what was
// read outside a commit can be used inside it: a commit that finds the count of a
// key where it was before the read knows that the entry is still the current one.
// Of two reads that each new operation needs, one on its caller's goroutine to be
// refused at once and one in the commit to decide, the second, which everybody in
// the group waits for, is saved; and a completion needs none at all, because the
// claim's commit left the entry behind (recent). With 256 callers on the Pebble
// engine these reads were half of what a commit costs beside its sync.
//
// A key's count goes up when a commit decides to change it, before the change can
// be seen, and again when the change can be read (Op.result, Store.committed): a
// read that falls between them, which gets the entry as it was, is not used.
type changes struct {
	seed   maphash.Seed
	counts [changeSlots]atomic.Uint32
	recent recent
}

func newChanges() *changes { return &changes{seed: maphash.MakeSeed()} }

// changeSlots: with a thousand changes between a read and its commit one read in
// sixteen is in vain, at 64 KiB a store.
const changeSlots = 1 << 14

// seen is an entry, nil for none, with its key's count from before it was read. The
// zero seen is of no use to anybody.
type seen struct {
	entry *Entry
	count *atomic.Uint32
	at    uint32
}

// before is called before an entry is read, which completes what it returns.
func (c *changes) before(key string) seen {
	n := &c.counts[maphash.String(c.seed, key)%changeSlots]
	return seen{count: n, at: n.Load()}
}

// changed counts a change.
func (c *changes) changed(key string) {
	c.counts[maphash.String(c.seed, key)%changeSlots].Add(1)
}

// current reports whether nothing has changed since.
func (s *seen) current() bool { return s.count != nil && s.count.Load() == s.at }

// recent keeps the entries of the latest claims until they are settled. It is
// bounded by overwriting; what is not found is read.
type recent [recentClaims]atomic.Pointer[recentClaim]

const (
	// recentClaims is how many callers may be at work at once before their
	// completions are read for.
	recentClaims = 1 << 12
	// recentCheckpoint is how long a checkpoint may be: a claim with a longer one,
	// which may be as long as a result, is not kept. So all of them take some 10 MiB
	// at most, keys included.
	recentCheckpoint = 1 << 10
)

type recentClaim struct {
	key  string
	seen seen
}

func (r *recent) slot(fence uint64) *atomic.Pointer[recentClaim] { return &r[fence%recentClaims] }

// of returns what is known of the record that t was granted on.
func (r *recent) of(t Token) seen {
	if c := r.slot(t.Fence).Load(); c != nil && c.key == t.Key {
		return c.seen
	}
	return seen{}
}

// committed follows a change that can be read: saw is the op's next entry.
func (r *recent) committed(op *Op, saw seen) {
	if op.prev != nil && (op.next == nil || op.next.Fence != op.prev.Fence) {
		r.drop(op.prev.Fence, op.key) // taken over, or gone
	}
	if e := op.next; e != nil && e.State == InFlight && len(e.Checkpoint) <= recentCheckpoint {
		slot, key := r.slot(e.Fence), ""
		if c := slot.Load(); c != nil && c.key == op.key {
			key = c.key
		} else {
			key = strings.Clone(op.key) // the caller's may be a piece of something large
		}
		slot.Store(&recentClaim{key, saw})
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
