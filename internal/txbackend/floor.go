package txbackend

import (
	"cmp"
	"sync"

	"github.com/idemkv/idem/engine"
)

// floor is a place before which the expiry index is empty. A sweep removes places in
// order. A log-structured database keeps removed ones in the way of readers from the
// start until it is compacted, so without the floor each slice of a long sweep passes
// over all earlier slices. On Pebble that made removing 100,000 records in slices 20
// times as slow.
type floor struct {
	mu      sync.Mutex
	at      engine.Due  // there is nothing before it
	writing *engine.Due // the first of the places that the current commit sets
	looks   []*look     // those under way
}

// look is one read of the index from the floor on.
type look struct {
	set *engine.Due // the first of the places set since it began, or being set then
}

// begin must be called before the index is read for places after from. It returns the
// place to start at, inclusive. If the floor does not help, it returns from and no
// look.
func (f *floor) begin(from engine.Due) (start engine.Due, l *look) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if comparePlaces(from, f.at) >= 0 && from != (engine.Due{}) {
		return from, nil
	}
	l = &look{set: f.writing}
	f.looks = append(f.looks, l)
	return f.at, l
}

// end must be called after the read. first is the first place found, or where the read
// ended without one; nil if it failed.
func (f *floor) end(l *look, first *engine.Due) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.looks {
		if other == l {
			f.looks = append(f.looks[:i], f.looks[i+1:]...)
			break
		}
	}
	if first == nil {
		return
	}
	at := *lesser(first, l.set)
	if comparePlaces(at, f.at) > 0 {
		f.at = at
	}
}

// set must be called for each place that a commit sets, before it can be read.
func (f *floor) set(place engine.Due) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if comparePlaces(place, f.at) < 0 {
		f.at = place
	}
	f.writing = lesser(&place, f.writing)
	for _, l := range f.looks {
		l.set = lesser(&place, l.set)
	}
}

// committed must be called once the places that were set can be read.
func (f *floor) committed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writing = nil
}

// lesser returns the lesser of a and b; b may be nil.
func lesser(a, b *engine.Due) *engine.Due {
	if b == nil || comparePlaces(*a, *b) < 0 {
		return a
	}
	return b
}

func comparePlaces(a, b engine.Due) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Key, b.Key))
}
