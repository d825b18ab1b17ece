package idem

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var autumn = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func TestInstantAddSaturates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    Instant
		d    time.Duration
		want Instant
	}{
		{1, 0, 1},
		{1, 2, 3},
		{0, Forever, Never},
		{1, Forever, Never},
		{1, Forever - 1, Never},
		{1, Forever - 2, Never - 1},
		{Never - 5, 4, Never - 1},
		{Never - 5, 5, Never},
		{Never - 5, 6, Never},
		{Never, 0, Never},
		{Never, Forever, Never},
	} {
		assert.Equal(t, c.want, c.t.add(c.d), "A19: %d + %d", c.t, c.d)
	}
}

func TestWallNanosClamps(t *testing.T) {
	t.Parallel()
	last := time.Unix(0, math.MaxInt64)
	for name, c := range map[string]struct {
		t    time.Time
		want int64
	}{
		"year 1":              {time.Time{}, 0},
		"1969":                {time.Unix(-1, 999_999_999), 0},
		"1970":                {time.Unix(0, 0), 0},
		"1970, the first ns":  {time.Unix(0, 1), 1},
		"2026":                {autumn, autumn.UnixNano()},
		"2262, a day before":  {last.Add(-24 * time.Hour), math.MaxInt64 - int64(24*time.Hour)},
		"2262, past the end":  {last.Add(time.Second), math.MaxInt64},
		"year 9999":           {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), math.MaxInt64},
		"the largest of time": {time.Unix(math.MaxInt64, 0), math.MaxInt64},
		"the least of time":   {time.Unix(math.MinInt64/2, 0), 0},
	} {
		assert.Equal(t, c.want, wallNanos(c.t), "B5: %s", name)
	}
}

func TestSaturatingSub(t *testing.T) {
	t.Parallel()
	assert.Equal(t, int64(3), saturatingSub(5, 2))
	assert.Equal(t, int64(-3), saturatingSub(2, 5))
	assert.Equal(t, int64(-math.MaxInt64), saturatingSub(0, math.MaxInt64))
	assert.Equal(t, int64(math.MaxInt64), saturatingSub(math.MaxInt64, -1))
	assert.Equal(t, int64(math.MaxInt64), saturatingSub(1, -math.MaxInt64))
}

func TestWallTime(t *testing.T) {
	t.Parallel()
	assert.True(t, wallTime(0, 5).IsZero(), "not set")
	assert.True(t, wallTime(Never, 0).IsZero(), "never")
	assert.True(t, wallTime(Never, -5).IsZero(), "never, whatever the wall clock")
	assert.Equal(t, int64(105), wallTime(100, 5).UnixNano())
	assert.Equal(t, int64(95), wallTime(100, -5).UnixNano())
	assert.Equal(t, int64(math.MaxInt64), wallTime(Never-1, 5).UnixNano(), "A19: it does not come round to 1677")
}

func TestTimelineOfNewStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wall  time.Time
		time  Instant
		fence uint64
	}{
		"2026":      {autumn, Instant(autumn.UnixNano()), uint64(autumn.UnixMicro())},
		"1970":      {time.Unix(0, 0), 1, 1},
		"1960":      {time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC), 1, 1},
		"year 1":    {time.Time{}, 1, 1},
		"year 9999": {time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Never - 1, math.MaxInt64 / 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tl := newTimeline(NewFakeClock(c.wall), Meta{})
			now, _ := tl.now()
			assert.Equal(t, c.time, now, "B5")
			assert.Equal(t, c.fence, tl.fence.Load(), "A7: a token of an earlier life never fits")
			assert.Equal(t, uint64(1), tl.opening)
			assert.NotZero(t, tl.meta().Fence, "a saved Meta says that the store is not new")
		})
	}
}

// Past 2262 there is no store time left. Then nothing lapses and nothing expires,
// which is safe; everything lapsing and expiring at once would not be.
func TestTimelineStaysShortOfNever(t *testing.T) {
	t.Parallel()
	c := NewFakeClock(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
	tl := newTimeline(c, Meta{Time: 100, Wall: 100, Fence: 1, Opening: 1})
	for range 3 {
		now, _ := tl.now()
		require.Less(t, now, Never)
		held := &Entry{State: Held, ExpiresAt: Never}
		assert.True(t, held.live(now), "A13: held never expires")
		a := claimOf()
		claimed, err := transition(nil, &a, now)
		require.NoError(t, err)
		assert.Equal(t, ErrInFlight, refuseClaim(claimed, &a, now), "A1: the lease holds")
		c.Advance(time.Hour)
	}
	again := newTimeline(NewFakeClock(autumn), tl.meta())
	now, _ := again.now()
	assert.Less(t, now, Never, "and from what was saved")
}

// The wall clock steps at run time: store time goes on by elapsed time alone, and
// what people are shown goes with the wall.
func TestTimelineWallStepsAtRunTime(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Time{
		"a day back":            autumn.Add(-24 * time.Hour),
		"ten years on":          autumn.AddDate(10, 0, 0),
		"to 1970":               time.Unix(0, 0),
		"before 1970":           time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC),
		"past what nanos reach": time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := NewFakeClock(autumn)
			tl := newTimeline(c, Meta{})
			start, toWall := tl.now()
			require.Zero(t, toWall)
			c.Step(step)
			c.Advance(time.Minute)
			now, toWall := tl.now()
			assert.Equal(t, start+Instant(time.Minute), now, "B5")
			wall, _ := c.Now()
			assert.Equal(t, wallNanos(wall), int64(now)+toWall)
		})
	}
}

func TestTimelineAcrossOpenings(t *testing.T) {
	t.Parallel()
	at := func(wall time.Time) Meta {
		return Meta{Time: Instant(autumn.UnixNano()), Wall: wallNanos(wall), Fence: 41, Opening: 3}
	}
	start := Instant(autumn.UnixNano())
	for name, c := range map[string]struct {
		saved Meta
		wall  time.Time
		want  Instant
	}{
		"downtime counts":                            {at(autumn), autumn.Add(time.Hour), start + Instant(time.Hour)},
		"no downtime":                                {at(autumn), autumn, start},
		"the wall went back":                         {at(autumn), autumn.Add(-24 * time.Hour), start},
		"boot in 1970":                               {at(autumn), time.Unix(0, 0), start},
		"booted in 1970 last time, 2026 now":         {at(time.Unix(60, 0)), autumn, start + Instant(autumn.UnixNano()) - Instant(time.Minute)},
		"year 1 last time":                           {at(time.Time{}), time.Unix(60, 0), start + Instant(time.Minute)},
		"year 9999 now":                              {at(autumn), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Never - 1},
		"year 9999 last time":                        {at(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), autumn, start},
		"store time ahead of the wall, and downtime": {at(autumn.AddDate(-10, 0, 0)), autumn.AddDate(-10, 0, 1), start + Instant(24*time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tl := newTimeline(NewFakeClock(c.wall), c.saved)
			now, _ := tl.now()
			assert.Equal(t, c.want, now, "B5")
			assert.Equal(t, uint64(4), tl.opening)
			assert.Equal(t, uint64(41), tl.fence.Load(), "A7")
		})
	}
}

// A deadline differs from the real one by the gap between two readings; so wall
// and elapsed time come from one.
func TestTimelineReadsTheClockOnce(t *testing.T) {
	t.Parallel()
	c := NewFakeClock(autumn)
	tl := newTimeline(c, Meta{})
	assert.Equal(t, 1, c.Reads())
	tl.now()
	assert.Equal(t, 2, c.Reads())
	tl.meta()
	assert.Equal(t, 3, c.Reads())
}

// Random lives of a store under a wall clock that steps as it likes, against rule
// 10 said in other words: within an opening store time is elapsed time, from one
// to the next it grows by what the wall clock grew since the last save.
func TestTimelineProperty(t *testing.T) {
	t.Parallel()
	walls := rapid.Int64Range(-1<<40, 1<<40) // seconds: 35,000 years either way
	rapid.Check(t, func(t *rapid.T) {
		wall := time.Unix(walls.Draw(t, "wall"), 0)
		c := NewFakeClock(wall)
		tl := newTimeline(c, Meta{})
		want, _ := tl.now()
		var saved Meta
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"pass", "step", "save", "reopen"}).Draw(t, "what") {
			case "pass":
				d := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "d"))
				c.Advance(d)
				want = Instant(min(uint64(want)+uint64(d), uint64(Never-1)))
			case "step":
				c.Step(time.Unix(walls.Draw(t, "wall"), 0))
			case "save":
				saved = tl.meta()
				require.Equal(t, want, saved.Time)
			case "reopen":
				if saved.Fence == 0 {
					continue // nothing was committed: the next store is a new one
				}
				now, _ := c.Now()
				c = NewFakeClock(now)
				tl = newTimeline(c, saved)
				if want = saved.Time; wallNanos(now) > saved.Wall {
					down := wallNanos(now) - saved.Wall
					if want = Never - 1; int64(saved.Time) < math.MaxInt64-1-down {
						want = saved.Time + Instant(down)
					}
				}
			}
			got, _ := tl.now()
			require.Equal(t, want, got)
		}
	})
}

func TestSystemClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := SystemClock()
		wall, elapsed := c.Now()
		assert.True(t, wall.Equal(time.Now()))
		time.Sleep(time.Minute)
		later, more := c.Now()
		assert.Equal(t, time.Minute, more-elapsed)
		assert.Equal(t, time.Minute, later.Sub(wall))

		var fired time.Duration
		c.AfterFunc(time.Second, func() { _, fired = c.Now() })
		stop := c.AfterFunc(time.Second, func() { t.Error("it was stopped") })
		assert.True(t, stop())
		assert.False(t, stop())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, more+time.Second, fired)
	})
}

// Outside a bubble: both come from one reading, so that they agree to the ns.
func TestSystemClockReadsOnce(t *testing.T) {
	t.Parallel()
	c := SystemClock()
	wall, elapsed := c.Now()
	for range 1000 {
		w, e := c.Now()
		require.Equal(t, w.Sub(wall), e-elapsed)
		require.GreaterOrEqual(t, e, elapsed)
	}
}
