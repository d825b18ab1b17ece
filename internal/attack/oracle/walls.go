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

// opens is how far the wall clock is ahead, at most, when the store is opened.
func (w Walls) opens(events []*Event) int64 {
	for _, e := range events {
		if e.Audit != nil {
			return max(w.ahead(events[0].T), w.ahead(e.T))
		}
	}
	return max(w.First, w.Then)
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
// than at any commit before makes an opening count too much, and 7 days at most. What
// is further ahead in another life later counts nothing more.
type Skew struct {
	// CatchesUp: an opening may count time spent closed before the life that ended last,
	// too, where the wall clock of that life's opening did not show it.
	CatchesUp bool

	owed  int64 // time spent closed that may yet be counted
	last  int64 // the end of the life before, in true time
	ahead int64 // of the store's time, at most
	saved int64 // how far ahead the wall clock was at least at some commit
	known bool
	set   bool // a wall clock was right or ahead of some year before this one
}

const (
	unset    = int64(20*365*24) * int64(time.Hour) // behind by more: the clock has not been set
	mostLost = int64(7*24) * int64(time.Hour)
)

// Life moves the times in the events of the next life, which had these wall clocks.
func (k *Skew) Life(w Walls, events []*Event) {
	if opens := w.opens(events); opens > -unset {
		switch {
		case k.known:
			k.ahead += min(max(opens-k.saved+k.owed, 0), mostLost)
		case k.set:
			k.ahead += mostLost
		}
	}
	if k.CatchesUp && k.last > 0 {
		k.owed += max(events[0].T-k.last, 0)
	}
	k.last = events[len(events)-1].T
	calls := map[int64]*Event{}
	for _, e := range events {
		if e.Call != nil {
			calls[e.Call.ID] = e
		}
		if e.Return != nil && e.Return.Record != nil && e.Return.Err == OK && calls[e.Return.ID].Call.Kind == Claim {
			// Granted in a commit in between.
			ahead := min(w.ahead(calls[e.Return.ID].T), w.ahead(e.T))
			if ahead > -unset && (!k.known || ahead >= k.saved-k.owed) {
				k.saved, k.known, k.owed = ahead, true, 0
			}
		}
	}
	k.set = k.set || max(w.First, w.Then) > -unset
	for _, e := range events {
		e.T += k.ahead
		if e.Audit != nil {
			e.Audit.Began += k.ahead
		}
	}
}
