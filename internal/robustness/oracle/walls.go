package oracle

import (
	"time"

	"github.com/idemkv/idem"
)

// Walls is how far a machine's wall clock is ahead of true time, in nanoseconds: at
// first, and from the true time At on.
type Walls struct {
	First int64 `json:"first"`
	Then  int64 `json:"then"`
	At    int64 `json:"at,omitempty"` // 0: it does not step
}

func (w Walls) ahead(t int64) int64 {
	if w.At == 0 || t < w.At {
		return w.First
	}
	return w.Then
}

// between returns how far the wall clock is ahead between two moments, at least and at
// most.
func (w Walls) between(from, to int64) (least, most int64) {
	return min(w.ahead(from), w.ahead(to)), max(w.ahead(from), w.ahead(to))
}

// WallClock is an idem.Clock with true time as elapsed time and a wall clock that reads
// something else.
type WallClock struct {
	idem.Clock
	Walls Walls
}

// Now implements idem.Clock.
func (c WallClock) Now() (time.Time, time.Duration) {
	wall, elapsed := c.Clock.Now()
	return wall.Add(time.Duration(c.Walls.ahead(wall.UnixNano()))), elapsed
}

// Skew moves the times of journals to the latest that the store's time may be. A store
// knows how long it was closed only from its wall clock. If the clock is further ahead
// than the saved one, an opening counts too much, up to a week in all. An opening
// counts nothing from a life whose clock was behind what had been saved before it, and
// nothing to or from a clock that has not been set.
//
// The journal of a killed life does not show what it saved last, or whether it saved
// anything. So Skew bounds what is saved over all cases that the journal leaves open.
type Skew struct {
	ahead int64 // of the store's time, at most

	wall   int64 // the saved wall clock, at least; 0: the store is new
	counts bool  // the next opening may count from it
	saved  int64 // if so: how far it was ahead of true time when saved, at least
	ended  int64 // when the last life ended
}

const (
	// clockSet is the least that a wall clock reads once it has been set: 2025-01-01
	// UTC.
	clockSet = 1735689600 * int64(time.Second)
	// mostCounted is the longest time closed that an opening counts.
	mostCounted = int64(7*24) * int64(time.Hour)
)

// Life moves the times in the events of the next life, whose wall clock was w and which
// ended by the true time ended.
func (k *Skew) Life(w Walls, ended int64, events []*Event) {
	began, opened := events[0].T, int64(0)
	for _, e := range events {
		ended = max(ended, e.T)
		if e.Audit != nil && opened == 0 {
			opened = e.T
		}
	}
	if opened == 0 { // killed before it could say
		opened = ended
	}
	least, most := w.between(began, opened)
	if k.counts {
		k.ahead += max(0, min(most-k.saved, mostCounted-(began-k.ended)))
	}

	// What this life saves continues from what was saved, plus the time elapsed since
	// the opening. It falls behind by the time closed, unless a reading is ahead of it.
	reached := max(k.wall-opened, least)
	mayCount, saved := true, reached
	if opened+most < max(k.wall, clockSet) {
		// Certainly behind. The next opening counts only if a later reading in a commit
		// was ahead of what was saved, and then from that reading.
		_, furthest := w.between(began, ended)
		mayCount, saved = furthest > reached && ended+furthest >= clockSet, furthest
	}
	commits, last, read := grants(w, events)
	switch {
	case commits:
		reached = max(reached, read)
		k.wall, k.counts, k.saved = last+reached, mayCount, max(saved, reached)
	case mayCount && k.counts: // it may have saved this, or nothing
		k.saved = min(k.saved, saved)
	case mayCount:
		k.counts, k.saved = true, saved
	}
	k.ended = ended
	for _, e := range events {
		e.T += k.ahead
		if e.Audit != nil {
			e.Audit.Began += k.ahead
		}
	}
}

// grants reports whether a grant was answered, which takes a commit. The last commit of
// the life was then no earlier than last, and at least one of them has read a wall
// clock that was ahead by read.
func grants(w Walls, events []*Event) (commits bool, last, read int64) {
	calls := map[int64]*Event{}
	for _, e := range events {
		if e.Call != nil {
			calls[e.Call.ID] = e
		}
		if e.Return == nil {
			continue
		}
		call := calls[e.Return.ID]
		if !granted(call.Call.Kind, e.Return) {
			continue
		}
		least, _ := w.between(call.T, e.T)
		if !commits {
			commits, read = true, least
		}
		last, read = max(last, call.T), max(read, least)
	}
	return commits, last, read
}
