// Package fakeclock has the clock of the tests: it stands still until it is told to
// move. idemtest.Clock is this clock for users. The package imports nothing of idem, for
// the root's own tests cannot import what imports the root.
package fakeclock

import (
	"container/heap"
	"sync"
	"time"
)

// Clock is an idem.Clock. It is safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
	timers  timers
	started uint64
	fired   uint64
	changed chan struct{} // closed and replaced when a timer is added
}

// Timers counts a Clock's timers.
type Timers struct {
	Pending int    // have neither fired nor been stopped
	Started uint64 // so far
	Fired   uint64 // so far
}

// New returns a Clock whose wall clock reads start and whose elapsed time is zero.
func New(start time.Time) *Clock {
	return &Clock{wall: start.Round(0), changed: make(chan struct{})}
}

// Now implements idem.Clock.
func (c *Clock) Now() (wall time.Time, elapsed time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.elapsed
}

// AfterFunc implements idem.Clock. f runs in its own goroutine once Advance has moved
// the clock by d, or at once if d is not positive.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d <= 0 {
		go f()
		return func() bool { return false }
	}
	c.started++
	tm := &timer{at: c.elapsed + d, order: c.started, f: f}
	if tm.at < c.elapsed { // further off than can be told
		tm.at = 1<<63 - 1
	}
	heap.Push(&c.timers, tm)
	close(c.changed)
	c.changed = make(chan struct{})
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if tm.index < 0 {
			return false
		}
		heap.Remove(&c.timers, tm.index)
		return true
	}
}

// Advance moves the wall clock and the elapsed time forward by d, which must not be
// negative, in one step. It starts the timers that have become due, each in its own
// goroutine, and does not wait for them.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("elapsed time does not go back; use StepWall")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
	c.elapsed += d
	for len(c.timers) > 0 && c.timers[0].at <= c.elapsed {
		c.fired++
		go heap.Pop(&c.timers).(*timer).f()
	}
}

// StepWall moves only the wall clock by d, either way.
func (c *Clock) StepWall(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// SetWall sets only the wall clock. Some steps are too far for a time.Duration.
func (c *Clock) SetWall(wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = wall.Round(0)
}

// Timers returns the counts of now.
func (c *Clock) Timers() Timers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count()
}

func (c *Clock) count() Timers {
	return Timers{Pending: len(c.timers), Started: c.started, Fired: c.fired}
}

// BlockUntil returns true once so holds, and false when giveUp is closed. so is asked
// whenever a timer was started.
func (c *Clock) BlockUntil(so func(Timers) bool, giveUp <-chan struct{}) bool {
	for {
		c.mu.Lock()
		count, changed := c.count(), c.changed
		c.mu.Unlock()
		if so(count) {
			return true
		}
		select {
		case <-changed:
		case <-giveUp:
			return false
		}
	}
}

type timer struct {
	at    time.Duration
	order uint64 // of those due at the same moment
	f     func()
	index int // in the heap; -1 once removed
}

// timers is a heap in the order of firing.
type timers []*timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].order < t[j].order
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

func (t *timers) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*t)
	*t = append(*t, tm)
}

func (t *timers) Pop() any {
	old := *t
	tm := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	tm.index = -1
	return tm
}
