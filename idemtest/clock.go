package idemtest

import (
	"time"

	"github.com/idemkv/idem/internal/fakeclock"
)

// Clock is an idem.Clock that stands still until it is told to move. It is safe for
// concurrent use.
type Clock struct{ fake *fakeclock.Clock }

// NewClock returns a Clock whose wall clock reads start.
func NewClock(start time.Time) *Clock { return &Clock{fakeclock.New(start)} }

// Now implements idem.Clock.
func (c *Clock) Now() (wall time.Time, elapsed time.Duration) { return c.fake.Now() }

// AfterFunc implements idem.Clock. f runs in its own goroutine once Advance has moved
// the clock by d, or at once if d is not positive.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.fake.AfterFunc(d, f)
}

// Advance moves the wall clock and the elapsed time forward by d, which must not be
// negative, in one step. It starts the timers that have become due, each in its own
// goroutine, and does not wait for them.
func (c *Clock) Advance(d time.Duration) { c.fake.Advance(d) }

// StepWall moves only the wall clock by d, either way, as an NTP step or an operator
// does.
func (c *Clock) StepWall(d time.Duration) { c.fake.StepWall(d) }

// Pending returns how many timers have been started and have neither fired nor been
// stopped.
func (c *Clock) Pending() int { return c.fake.Timers().Pending }

// BlockUntil returns when at least n timers are pending. A test then knows that the
// goroutines it started are waiting for time to pass.
func (c *Clock) BlockUntil(n int) {
	c.fake.BlockUntil(func(t fakeclock.Timers) bool { return t.Pending >= n }, nil)
}
