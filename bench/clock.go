package bench

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
)

// jumpClock is the machine's clock with hours that can be skipped, so that records
// with an honest retention expire when the bench wants it. What was to be called in
// the skipped time is called at once, as after a machine's sleep.
type jumpClock struct {
	idem.Clock
	skipped atomic.Int64 // nanoseconds
	mu      sync.Mutex
	timers  map[*jumpTimer]struct{}
}

type jumpTimer struct {
	at   time.Duration
	f    func()
	stop func() bool
}

func newJumpClock() *jumpClock {
	return &jumpClock{Clock: idem.SystemClock(), timers: map[*jumpTimer]struct{}{}}
}

// Now implements idem.Clock.
func (c *jumpClock) Now() (time.Time, time.Duration) {
	wall, elapsed := c.Clock.Now()
	skipped := time.Duration(c.skipped.Load())
	return wall.Add(skipped), elapsed + skipped
}

// AfterFunc implements idem.Clock.
func (c *jumpClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, elapsed := c.Now()
	t := &jumpTimer{at: elapsed + d, f: f}
	t.stop = c.Clock.AfterFunc(d, func() {
		if c.take(t) {
			f()
		}
	})
	c.timers[t] = struct{}{}
	return func() bool { t.stop(); return c.take(t) }
}

// take reports whether the timer was still to fire, and that it is not any more.
func (c *jumpClock) take(t *jumpTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, waiting := c.timers[t]
	delete(c.timers, t)
	return waiting
}

// Waiting reports whether somebody waits to be called.
func (c *jumpClock) Waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers) > 0
}

// Jump skips d. Who has read the time before and asks to be called after will wait
// too long: see Waiting.
func (c *jumpClock) Jump(d time.Duration) {
	c.mu.Lock()
	c.skipped.Add(int64(d))
	_, elapsed := c.Now()
	var due []*jumpTimer
	for t := range c.timers {
		if t.at <= elapsed {
			due = append(due, t)
		}
	}
	c.mu.Unlock()
	for _, t := range due {
		if t.stop(); c.take(t) {
			go t.f()
		}
	}
}
