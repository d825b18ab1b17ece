package idem

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
)

// That an import has not ended is saved with the time of what was lost, and neither is
// lost over openings and restored backups.
func TestUnfinishedImportIsSaved(t *testing.T) {
	t.Parallel()
	for _, lost := range []int64{0, clockFloor + 6} {
		m := engine.Meta{Time: 1, Wall: wallNanos(autumn), Fence: 1, Epoch: 1, LostUntil: lost}
		c := fakeclock.New(autumn)
		tl := newTimeline(c, m)
		require.False(t, tl.unfinished.Load())
		tl.unfinished.Store(true)
		for range 3 {
			m = tl.meta()
			require.Equal(t, lost, m.LostUntil)
			require.True(t, m.Importing)
			tl = newTimeline(c, m)
			require.True(t, tl.unfinished.Load())
			require.Equal(t, lost, tl.lostUntil.Load())
		}
		restored := m
		restored.LostUntil = engine.Restored
		tl = newTimeline(c, restored)
		require.True(t, tl.unfinished.Load(), "a backup of a part is a part")
		require.Equal(t, wallNanos(autumn), tl.lostUntil.Load())
		tl.unfinished.Store(false)
		require.Equal(t, wallNanos(autumn), tl.meta().LostUntil)
		require.False(t, tl.meta().Importing)
	}
}

// No clock makes a store look as if it were being imported, and what is saved of a loss is
// always a time. Of a clock before 1970, or after 2262, all that is known is that something
// was lost.
func TestNoClockLooksLikeAnImport(t *testing.T) {
	t.Parallel()
	clocks := []time.Time{
		{},
		time.Unix(-1, 0), time.Unix(0, -1), time.Unix(0, 0), time.Unix(0, 1), time.Unix(0, clockFloor-1), autumn,
		time.Unix(0, math.MaxInt64), time.Unix(0, math.MaxInt64).Add(1), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64, 0),
	}
	for _, lost := range clocks {
		var m engine.Meta
		m.Lose(lost)
		require.Positive(t, m.LostUntil, lost)
		for _, saved := range []engine.Meta{m, {LostUntil: lost.UnixNano()}, {LostUntil: -1}, {LostUntil: math.MinInt64}} {
			for _, wall := range clocks {
				c := fakeclock.New(wall)
				tl := newTimeline(c, saved)
				check := func() {
					t.Helper()
					m := tl.meta()
					require.False(t, m.Importing)
					require.GreaterOrEqual(t, m.LostUntil, int64(0))
					if saved.LostUntil != 0 {
						require.Positive(t, m.LostUntil)
						now, toWall := tl.now()
						require.Positive(t, tl.lost(now, toWall))
					}
				}
				check()
				c.Advance(100 * 365 * 24 * time.Hour)
				check()
				for _, wall := range clocks {
					c.SetWall(wall)
					check()
				}
			}
		}
	}
}

func TestMetaLose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ was, wall, want int64 }{
		{0, 5, 5}, {5, 3, 5}, {3, 5, 5}, {engine.Restored, 5, engine.Restored}, {0, 0, 1}, {0, -5, 1}, {7, -5, 7}, {-3, -5, 1},
	} {
		m := engine.Meta{LostUntil: c.was}
		m.Lose(time.Unix(0, c.wall))
		require.Equal(t, c.want, m.LostUntil, "%d and %d", c.was, c.wall)
	}
}

// What is lost after an import, by what either store had lost, and by whether the other
// one went on.
func TestInheritedLosses(t *testing.T) {
	t.Parallel()
	const unset = 77 // of a clock that was not set
	now := wallNanos(autumn)
	for name, c := range map[string]struct {
		own, other int64
		stopped    bool
		want       int64
	}{
		"nothing":                        {0, 0, true, 0},
		"it went on":                     {0, 0, false, now},
		"its own, earlier":               {clockFloor + 1, 0, false, now},
		"its own, later":                 {now + 9, 0, false, now + 9},
		"its own, and it was stopped":    {clockFloor + 1, 0, true, clockFloor + 1},
		"the other's":                    {0, clockFloor + 2, true, clockFloor + 2},
		"both, the other's is later":     {clockFloor + 1, clockFloor + 2, true, clockFloor + 2},
		"the other's, nobody knows when": {0, unset, true, now},
		"its own, nobody knew when":      {unset, 0, true, now - int64(time.Minute)},
	} {
		opened := autumn.Add(-time.Minute)
		clock := fakeclock.New(opened)
		tl := newTimeline(clock, engine.Meta{Time: 1, Wall: wallNanos(opened), Fence: 1, Epoch: 1, LostUntil: c.own})
		clock.Advance(time.Minute)
		require.Equal(t, c.want, tl.inherit(c.other, c.stopped), name)
		require.Equal(t, c.want, tl.meta().LostUntil, name)
		clock.Advance(time.Hour)
		require.Equal(t, c.want, tl.meta().LostUntil, name)
	}

	// The same under a clock that is not set, and is set an hour later.
	for name, c := range map[string]struct {
		own, other int64
		stopped    bool
		known      bool          // what was lost is known before
		want       time.Duration // before autumn
	}{
		"nothing":                        {0, 0, true, true, 0},
		"it went on":                     {0, 0, false, false, time.Hour},
		"it went on, and had lost some":  {0, clockFloor + 2, false, false, time.Hour},
		"the other's, nobody knows when": {0, unset, true, false, time.Hour},
		"its own, nobody knows when":     {unset, 0, true, false, time.Hour},
	} {
		clock := fakeclock.New(time.Unix(10, 0))
		tl := newTimeline(clock, engine.Meta{LostUntil: c.own})
		clock.Advance(time.Minute)
		got := tl.inherit(c.other, c.stopped)
		if c.known {
			require.Zero(t, got, name)
		} else {
			require.Equal(t, int64(math.MaxInt64), got, name)
		}
		clock.Advance(time.Hour)
		clock.SetWall(autumn)
		if c.known {
			require.Zero(t, tl.meta().LostUntil, name)
			continue
		}
		require.Equal(t, now-int64(c.want), tl.meta().LostUntil, name)
	}
}

// Fences that are raised never go back, and no fence comes out twice.
func TestRaisedFences(t *testing.T) {
	t.Parallel()
	tl := newTimeline(fakeclock.New(autumn), engine.Meta{})
	first := tl.fence.Add(1)
	tl.raise(first - 1)
	require.Equal(t, first, tl.fence.Load())
	tl.raise(first + 1000)
	require.Equal(t, first+1001, tl.fence.Add(1))
}
