package idem

import (
	"math"
	"sync/atomic"
	"time"
)

// Clock tells the store the time. SystemClock is the default; tests inject
// another.
type Clock interface {
	// Now returns the wall clock and, read at the same instant, the time elapsed
	// since some fixed point. Elapsed time never goes back; the wall clock may
	// step either way at any moment. Now is called on the hot path, from many
	// goroutines, and must not block.
	Now() (wall time.Time, elapsed time.Duration)
	// AfterFunc calls f in a goroutine of its own once d has elapsed. stop cancels
	// the call and reports whether it did, like time.Timer.Stop.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock returns the clock of the machine: elapsed time is the monotonic
// clock's, which on Linux does not count the time a machine sleeps.
func SystemClock() Clock { return systemClock{start: time.Now()} }

type systemClock struct{ start time.Time }

func (c systemClock) Now() (time.Time, time.Duration) {
	now := time.Now()
	return now, now.Sub(c.start)
}

func (c systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// Meta is what an engine saves in each commit, beside the records, and gives back
// when it is opened again.
//
// Time and Wall are the store time and the wall clock (Unix nanoseconds), read at
// one instant. The next opening continues at Time + max(0, wall clock − Wall):
// a clock that was set back never makes time go back, and time spent closed
// counts.
type Meta struct {
	// Time is the store time at the commit.
	Time Instant
	// Wall is the wall clock at the same instant, Unix nanoseconds.
	Wall int64
	// Fence is the highest fence granted. Zero only in a store that is new.
	Fence uint64
	// Opening counts the openings of the store, from 1.
	Opening uint64
}

// timeline is the store's time, fences and opening: what Meta saves.
type timeline struct {
	clock   Clock
	base    Instant       // store time at anchor
	anchor  time.Duration // elapsed time
	opening uint64
	fence   atomic.Uint64 // highest granted
}

func newTimeline(c Clock, saved Meta) *timeline {
	wall, elapsed := c.Now()
	t := &timeline{clock: c, anchor: elapsed, opening: saved.Opening + 1}
	now := wallNanos(wall)
	if saved.Fence == 0 {
		t.base = Instant(max(now, 1))
		t.fence.Store(uint64(max(now/int64(time.Microsecond), 1)))
		return t
	}
	t.base = saved.Time
	if now > saved.Wall {
		t.base = saved.Time.add(time.Duration(saturatingSub(now, saved.Wall)))
	}
	t.fence.Store(saved.Fence)
	return t
}

// now returns the store time and what to add to it for the wall clock's.
func (t *timeline) now() (now Instant, toWall int64) {
	wall, elapsed := t.clock.Now()
	// Short of Never, however far the wall clock was off: what never expires must
	// not, and at Never no lease and no record would hold.
	now = min(t.base.add(elapsed-t.anchor), Never-1)
	return now, saturatingSub(wallNanos(wall), int64(now))
}

func (t *timeline) meta() Meta {
	now, toWall := t.now()
	return Meta{Time: now, Wall: int64(now) + toWall, Fence: t.fence.Load(), Opening: t.opening}
}

// wallNanos is t.UnixNano(), clamped where that is not defined.
func wallNanos(t time.Time) int64 {
	if s := t.Unix(); s > math.MaxInt64/int64(time.Second)-1 {
		return math.MaxInt64
	} else if s < 0 {
		return 0
	}
	return t.UnixNano()
}

func saturatingSub(a, b int64) int64 {
	d := a - b
	if a >= 0 && b < 0 && d < 0 {
		return math.MaxInt64
	}
	return d
}

// wallTime shows t on the wall clock; zero for "not set" and "never".
func wallTime(t Instant, toWall int64) time.Time {
	if t == 0 || t == Never {
		return time.Time{}
	}
	if toWall > 0 && int64(t) > math.MaxInt64-toWall {
		return time.Unix(0, math.MaxInt64)
	}
	return time.Unix(0, int64(t)+toWall)
}
