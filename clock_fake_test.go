package idem

import (
	"slices"
	"sync"
	"time"
)

// FakeClock is a Clock that stands still until told otherwise, and whose wall
// clock can be stepped on its own.
type FakeClock struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
	timers  []*fakeTimer
	reads   int
}

type fakeTimer struct {
	at time.Duration
	f  func()
}

func NewFakeClock(wall time.Time) *FakeClock { return &FakeClock{wall: wall} }

func (c *FakeClock) Now() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.wall, c.elapsed
}

func (c *FakeClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{at: c.elapsed + d, f: f}
	if d <= 0 {
		go f()
		return func() bool { return false }
	}
	c.timers = append(c.timers, t)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.timers, t)
		if i < 0 {
			return false
		}
		c.timers = slices.Delete(c.timers, i, i+1)
		return true
	}
}

// Advance lets d pass, on the wall clock too, and calls what it was due to call.
func (c *FakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.elapsed = c.wall.Add(d), c.elapsed+d
	c.timers = slices.DeleteFunc(c.timers, func(t *fakeTimer) bool {
		if t.at > c.elapsed {
			return false
		}
		go t.f()
		return true
	})
}

// Step sets the wall clock, and nothing else.
func (c *FakeClock) Step(wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = wall
}

// Pending returns how many calls the clock has yet to make.
func (c *FakeClock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

// Reads returns how often the time was asked.
func (c *FakeClock) Reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}
