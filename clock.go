package idem

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
)

// Clock tells the store the time. The default is SystemClock; tests inject their own.
type Clock interface {
	// Now returns the wall clock and the time elapsed since some fixed point, both read
	// at the same instant. Elapsed time never goes back; the wall clock may step either
	// way at any moment. Now is called on the hot path from many goroutines and must not
	// block.
	Now() (wall time.Time, elapsed time.Duration)
	// AfterFunc calls f in its own goroutine once d has elapsed. stop cancels the call
	// and reports whether it did, like time.Timer.Stop.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock returns the machine's clock. Elapsed time comes from the monotonic clock,
// which on Linux does not count time asleep.
func SystemClock() Clock { return systemClock{start: time.Now()} }

type systemClock struct{ start time.Time }

func (c systemClock) Now() (time.Time, time.Duration) {
	now := time.Now()
	return now, now.Sub(c.start)
}

func (c systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

const (
	// clockFloor is a time in the past, in Unix nanoseconds: 2025-01-01. A wall clock
	// that reads less has not been set yet, as on a board without a battery.
	clockFloor = 1735689600 * int64(time.Second)
	// maxDowntime is the longest time closed that an opening adds to the store time.
	maxDowntime = 7 * 24 * time.Hour
)

// timeline is the store's time, fences and epoch: what Meta saves.
type timeline struct {
	clock     Clock
	base      engine.Instant // store time at anchor
	anchor    time.Duration  // elapsed time
	epoch     uint64
	fence     atomic.Uint64 // highest fence drawn
	toSaved   atomic.Int64  // saved wall clock minus store time; never decreases
	opened    int64         // toSaved at the opening
	behind    bool          // at the opening the wall clock was behind the saved one
	lostUntil atomic.Int64
	lostAt    atomic.Int64 // the store time that lostUntil is of, if the clock was not set
	secret    atomic.Pointer[[16]byte]
	hashers   sync.Pool // of *keyHasher

	unfinished atomic.Bool // the store holds a part of an import
}

// newTimeline continues where saved ends. The fences of an opening start above the wall
// clock and above every fence the store has granted, plus a random step. So a token
// from another life of the store, which a restored backup has forgotten, matches none
// of this one.
func newTimeline(c Clock, saved engine.Meta) *timeline {
	wall, elapsed := c.Now()
	now := wallNanos(wall)
	t := &timeline{
		clock: c, anchor: elapsed, epoch: saved.Epoch + 1, base: saved.Time,
	}
	t.unfinished.Store(saved.Importing)
	switch {
	case saved.LostUntil == engine.Restored: // a backup: what it lacks ended before now
		saved.LostUntil = max(now, 1)
	case saved.LostUntil < 0: // an engine's clock was before 1970, so it was not set
		saved.LostUntil = 1
	}
	t.lostUntil.Store(saved.LostUntil)
	if saved.Fence == 0 {
		t.base, saved.Wall = engine.Instant(max(now, 1)), now
	} else if now > saved.Wall && saved.Wall >= clockFloor {
		t.base = saved.Time.Add(min(time.Duration(now-saved.Wall), maxDowntime))
	} else {
		saved.Wall = max(saved.Wall, -saved.Wall)
		t.behind = now < max(saved.Wall, clockFloor)
	}
	// This reading counts as saved even if the clock steps back before the first commit.
	// The time closed must not be counted twice.
	t.opened = saturatingSub(max(saved.Wall, now), int64(t.base))
	t.toSaved.Store(t.opened)
	t.lostAt.Store(int64(t.base))
	if saved.Secret == ([16]byte{}) {
		_, _ = rand.Read(saved.Secret[:]) // never fails
	}
	t.secret.Store(&saved.Secret)
	t.fence.Store(max(saved.Fence, uint64(now)) + fenceStep())
	return t
}

// fenceStep returns the random step between the fences of two lives of a store.
func fenceStep() uint64 {
	var step [4]byte
	_, _ = rand.Read(step[:]) // never fails
	return uint64(binary.LittleEndian.Uint32(step[:]))
}

// raise makes fence, or a higher one, the highest that was drawn.
func (t *timeline) raise(fence uint64) {
	for was := t.fence.Load(); was < fence && !t.fence.CompareAndSwap(was, fence); {
		was = t.fence.Load()
	}
}

// now returns the store time and the offset from it to the wall clock.
func (t *timeline) now() (now engine.Instant, toWall int64) {
	wall, elapsed := t.clock.Now()
	// Stay short of Never, however far off the wall clock was. What never expires must
	// not expire, and at Never no lease and no record would hold.
	now = min(t.base.Add(elapsed-t.anchor), engine.Never-1)
	return now, saturatingSub(wallNanos(wall), int64(now))
}

// wall returns the wall clock for what now returned. While the clock has not been set,
// it returns the one derived from the saved clock.
func (t *timeline) wall(now engine.Instant, toWall int64) int64 {
	if wall := int64(now) + toWall; wall >= clockFloor {
		return wall
	}
	return saturatingAdd(int64(now), t.toSaved.Load())
}

// lost returns the wall-clock time up to which records may have been lost. If that time
// came from a clock that was not set, lost returns the time of this opening, or of the
// import that lost them, instead. That is known only once the clock is set; until then
// everything may have been lost.
func (t *timeline) lost(now engine.Instant, toWall int64) int64 {
	lost := t.lostUntil.Load()
	if lost == 0 || lost >= clockFloor {
		return lost
	}
	if wall := int64(now) + toWall; wall >= clockFloor {
		return max(wall-(int64(now)-t.lostAt.Load()), 1)
	}
	return math.MaxInt64
}

// lostToSave is lost as it can be saved: as it was given while the clock is not set.
func (t *timeline) lostToSave(now engine.Instant, toWall int64) int64 {
	if wall := int64(now) + toWall; wall >= clockFloor {
		return t.lost(now, toWall)
	}
	return t.lostUntil.Load()
}

// inherit takes over lost, what another store had lost, when its records have been
// imported. If that store was not stopped, it may have granted and completed others until
// now. It returns what lost returns from now on.
func (t *timeline) inherit(lost int64, stopped bool) int64 {
	now, toWall := t.now()
	unset := func(lost int64) bool { return lost != 0 && lost < clockFloor }
	if !stopped || unset(lost) {
		if wall := max(t.wall(now, toWall), 1); unset(wall) {
			lost = wall // and not before
		} else {
			lost = max(lost, wall)
		}
	}
	if own := t.lostToSave(now, toWall); unset(own) || unset(lost) {
		lost = 1 // until the clock is set
	} else {
		lost = max(lost, own)
	}
	t.lostAt.Store(int64(now))
	t.lostUntil.Store(lost)
	return t.lost(now, toWall)
}

func (t *timeline) meta() engine.Meta {
	unfinished := t.unfinished.Load() // first: an import sets the rest before it ends
	now, toWall := t.now()
	lost := t.lostToSave(now, toWall)
	for was := t.toSaved.Load(); was < toWall && !t.toSaved.CompareAndSwap(was, toWall); {
		was = t.toSaved.Load()
	}
	wall := saturatingAdd(int64(now), t.toSaved.Load())
	if t.behind && t.toSaved.Load() == t.opened {
		wall = -wall // it has not caught up
	}
	return engine.Meta{
		Time: now, Wall: wall, Fence: t.fence.Load(),
		Epoch: t.epoch, LostUntil: lost, Importing: unfinished, Secret: *t.secret.Load(),
	}
}

// wallNanos is t.UnixNano(), clamped where UnixNano is undefined.
func wallNanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < 0:
		return 0
	default:
		return s*int64(time.Second) + int64(t.Nanosecond())
	}
}

func saturatingSub(a, b int64) int64 {
	d := a - b
	if a >= 0 && b < 0 && d < 0 {
		return math.MaxInt64
	}
	return d
}

// saturatingAdd is a+b for an a that is not negative.
func saturatingAdd(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// wallTime shows t on the wall clock; zero for "not set" and "never".
func wallTime(t engine.Instant, toWall int64) time.Time {
	if t == 0 || t == engine.Never {
		return time.Time{}
	}
	if toWall > 0 && int64(t) > math.MaxInt64-toWall {
		return time.Unix(0, math.MaxInt64)
	}
	return time.Unix(0, int64(t)+toWall)
}
