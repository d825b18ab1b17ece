package txbackend

import (
	"sync"
	"sync/atomic"

	"github.com/idemkv/idem/engine"
)

// gate hides a commit until it is durable. Both databases show a commit to readers
// before its sync returns. So the committer publishes the old state of each key before
// its change becomes visible, and withdraws it when the change is durable. A reader
// reads the database and then looks here. If it finds the key, it answers with what it
// finds. Otherwise, what it read was durable, or became so before it looked.
type gate struct {
	n  atomic.Int64 // entries held: usually none, which costs no lock
	mu sync.RWMutex
	by map[string]held
}

// held is a key that a commit changes. was is its state before, for readers. now is
// what the commit has made of it so far, for the committer alone.
type held struct {
	was image
	now *engine.Entry
}

// image is the result of reading a key before the commit.
type image struct {
	entry *engine.Entry
	err   error
}

// publish holds the old image of key and notes its new entry. Only the first image of a
// key in a commit counts.
func (g *gate) publish(key string, was image, now *engine.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h, again := g.by[key]; again {
		was = h.was
	} else {
		g.n.Add(1)
	}
	if g.by == nil {
		g.by = make(map[string]held)
	}
	g.by[key] = held{was: was, now: now}
}

// changed returns what the current commit has made of key. Only the committer may call
// it; it is also the only writer of what this reads.
func (g *gate) changed(key string) (now *engine.Entry, ok bool) {
	h, ok := g.by[key]
	return h.now, ok
}

// withdraw makes all changes visible.
func (g *gate) withdraw() {
	if g.n.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n.Store(0)
	if len(g.by) > 4096 {
		g.by = nil // do not keep the memory of one large group
		return
	}
	clear(g.by)
}

func (g *gate) look(key string) (image, bool) {
	if g.n.Load() == 0 {
		return image{}, false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	h, ok := g.by[key]
	return h.was, ok
}

// each calls fn with every held key, under the gate's lock.
func (g *gate) each(fn func(key string, was image)) {
	if g.n.Load() == 0 {
		return
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for key, h := range g.by {
		fn(key, h.was)
	}
}
