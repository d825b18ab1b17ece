package txbackend

import (
	"sync"
	"sync/atomic"

	"github.com/idemkv/idem/engine"
)

// gate keeps a commit from being seen before it is durable. Both databases show a
// commit to readers before its sync returns. So the committer publishes what it is
// about to change as it was, before the change can be seen, and withdraws it when
// the change is durable. A reader reads the database and then looks here: what it
// finds is what it answers with. If it finds nothing, what it read was durable, or
// has become so before it looked.
type gate struct {
	n  atomic.Int64 // entries held: none is the common case and costs no lock
	mu sync.RWMutex
	by map[string]held
}

// held is a key that a commit changes: as it was, and as the commit leaves it so far,
// which is for the committer alone.
type held struct {
	was image
	now *engine.Entry
}

// image is what a read of a key gave before the commit.
type image struct {
	entry *engine.Entry
	err   error
}

// publish holds key as it was, and notes what it becomes; the first image of a commit
// is the one that counts.
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

// changed returns what the commit under way has made of key. It is called by the
// committer, who alone writes what it reads.
func (g *gate) changed(key string) (now *engine.Entry, ok bool) {
	h, ok := g.by[key]
	return h.now, ok
}

// withdraw lets everything be seen.
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

// each calls fn with everything held, under the gate's lock.
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
