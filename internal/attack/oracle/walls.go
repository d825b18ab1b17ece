package oracle

import "time"

// Walls is how far a machine's wall clock is ahead of true time, in nanoseconds: first,
// and from the true time At on.
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

// between is how far the wall clock is ahead between two moments, at least and at most.
func (w Walls) between(from, to int64) (least, most int64) {
	return min(w.ahead(from), w.ahead(to)), max(w.ahead(from), w.ahead(to))
}

// WallClock is an idem.Clock that has true time for elapsed time, and a wall clock that
// reads something else.
type WallClock struct {
	*Clock
	Walls Walls
}

// Now implements idem.Clock.
func (c WallClock) Now() (time.Time, time.Duration) {
	n := c.Nanos()
	return time.Unix(0, n+c.Walls.ahead(n)), time.Duration(n)
}

// Skew moves the times of journals to where the store's time may be at most. A store
// cannot know how long it was closed but from its wall clock: one that is further ahead
// than what was saved makes an opening count too much, and 7 days at most. Nothing is
// counted from a life whose wall clock was behind what had been saved before.
type Skew struct {
	// Loose: each opening with a clock that is set may count as much as one opening can.
	// What a life that was killed has saved of its clock is not always known.
	Loose bool

	ahead  int64 // of the store's time, at most
	saved  int64 // how far ahead the wall clock that is saved was, at least
	at     int64 // when that was saved, in true time
	known  bool
	behind bool // in the life that saved it, all of it
	set    bool // a wall clock was right or ahead of some year before this one
}

const (
	unset    = int64(20*365*24) * int64(time.Hour) // behind by more: the clock has not been set
	mostLost = int64(7*24) * int64(time.Hour)
)

// Life moves the times in the events of the next life, which had these wall clocks.
func (k *Skew) Life(w Walls, events []*Event) {
	began, end := events[0].T, events[len(events)-1].T
	opened := end
	for _, e := range events {
		if e.Audit != nil {
			opened = e.T
			break
		}
	}
	least, most := w.between(began, opened)
	if most > -unset {
		switch {
		case k.Loose && (k.known || k.set):
			k.ahead += mostLost
		case k.known && !k.behind:
			k.ahead += min(max(most-k.saved, 0), mostLost)
		case !k.known && k.set:
			k.ahead += mostLost
		}
	}
	// Whatever this life saves of the wall clock goes on from what was saved, by elapsed
	// time: it falls behind by the time closed, unless a reading is ahead of it.
	saved := k.saved - (opened - k.at)
	_, furthest := w.between(began, end)
	behind := furthest < max(saved, -unset)
	granted := false
	calls := map[int64]*Event{}
	for _, e := range events {
		if e.Call != nil {
			calls[e.Call.ID] = e
		}
		if e.Return != nil && e.Return.Record != nil && e.Return.Err == OK && calls[e.Return.ID].Call.Kind == Claim {
			// Granted in a commit in between.
			granted = true
			read, _ := w.between(calls[e.Return.ID].T, e.T)
			if read = max(read, least); read > -unset && (!k.known || read > saved) {
				saved, k.known = read, true
			}
			k.at = e.T
		}
	}
	switch {
	case !k.known:
	case granted:
		k.saved, k.behind = saved, behind
	case !behind: // it may have saved something
		k.saved, k.at, k.behind = min(k.saved, saved), opened, false
	}
	k.set = k.set || max(w.First, w.Then) > -unset
	for _, e := range events {
		e.T += k.ahead
		if e.Audit != nil {
			e.Audit.Began += k.ahead
		}
	}
}
