package idem

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
)

var autumn = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func TestInstantAddSaturates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    engine.Instant
		d    time.Duration
		want engine.Instant
	}{
		{1, 0, 1},
		{1, 2, 3},
		{0, Forever, engine.Never},
		{1, Forever, engine.Never},
		{1, Forever - 1, engine.Never},
		{1, Forever - 2, engine.Never - 1},
		{engine.Never - 5, 4, engine.Never - 1},
		{engine.Never - 5, 5, engine.Never},
		{engine.Never - 5, 6, engine.Never},
		{engine.Never, 0, engine.Never},
		{engine.Never, Forever, engine.Never},
	} {
		assert.Equal(t, c.want, c.t.Add(c.d), "%d + %d", c.t, c.d)
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
		assert.Equal(t, c.want, wallNanos(c.t), "%s", name)
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
	assert.True(t, wallTime(engine.Never, 0).IsZero(), "never")
	assert.True(t, wallTime(engine.Never, -5).IsZero(), "never, whatever the wall clock")
	assert.Equal(t, int64(105), wallTime(100, 5).UnixNano())
	assert.Equal(t, int64(95), wallTime(100, -5).UnixNano())
	assert.Equal(t, int64(math.MaxInt64), wallTime(engine.Never-1, 5).UnixNano(), "it does not come round to 1677")
}

// newFences holds that tl draws its fences above floor, and at random.
func newFences(t *testing.T, tl *timeline, floor uint64) {
	t.Helper()
	assert.GreaterOrEqual(t, tl.fence.Load(), floor, "a token of an earlier life never fits")
	assert.LessOrEqual(t, tl.fence.Load(), floor+1<<32, "a step of 4.3 s at most")
}

func TestTimelineOfNewStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wall  time.Time
		time  engine.Instant
		fence uint64
	}{
		"2026":      {autumn, engine.Instant(autumn.UnixNano()), uint64(autumn.UnixNano())},
		"1970":      {time.Unix(0, 0), 1, 0},
		"1960":      {time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC), 1, 0},
		"year 1":    {time.Time{}, 1, 0},
		"year 9999": {time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), engine.Never - 1, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tl := newTimeline(fakeclock.New(c.wall), engine.Meta{})
			now, _ := tl.now()
			assert.Equal(t, c.time, now)
			newFences(t, tl, c.fence)
			assert.Equal(t, uint64(1), tl.epoch)
			m := tl.meta()
			assert.NotZero(t, m.Fence, "a saved Meta says that the store is not new")
			assert.Equal(t, wallNanos(c.wall), m.Wall)
			assert.NotZero(t, m.Secret)
		})
	}
}

// Past 2262 there is no store time left. Then nothing lapses and nothing expires,
// which is safe; everything lapsing and expiring at once would not be.
func TestTimelineStaysShortOfNever(t *testing.T) {
	t.Parallel()
	c := fakeclock.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
	tl := newTimeline(c, engine.Meta{Time: 100, Wall: 100, Fence: 1, Epoch: 1})
	for range 3 {
		now, _ := tl.now()
		require.Less(t, now, engine.Never)
		held := &engine.Entry{State: Held, ExpiresAt: engine.Never}
		assert.True(t, live(held, now), "held never expires")
		a := action{kind: actClaim, fence: 1, lease: time.Minute, retention: time.Hour}
		claimed, err := transition(nil, &a, now)
		require.NoError(t, err)
		assert.Equal(t, ErrInFlight, refuseClaim(claimed, &a, now), "the lease holds")
		c.Advance(time.Hour)
	}
	again := newTimeline(fakeclock.New(autumn), tl.meta())
	now, _ := again.now()
	assert.Less(t, now, engine.Never, "and from what was saved")
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
			c := fakeclock.New(autumn)
			tl := newTimeline(c, engine.Meta{})
			start, toWall := tl.now()
			require.Zero(t, toWall)
			c.SetWall(step)
			c.Advance(time.Minute)
			now, toWall := tl.now()
			assert.Equal(t, start+engine.Instant(time.Minute), now)
			wall, _ := c.Now()
			assert.Equal(t, wallNanos(wall), int64(now)+toWall)
		})
	}
}

func TestTimelineAcrossOpenings(t *testing.T) {
	t.Parallel()
	at := func(wall time.Time) engine.Meta {
		return engine.Meta{Time: engine.Instant(autumn.UnixNano()), Wall: wallNanos(wall), Fence: 41, Epoch: 3, LostUntil: clockFloor + 6, Secret: [16]byte{1}}
	}
	const day = engine.Instant(24 * time.Hour)
	start := engine.Instant(autumn.UnixNano())
	floor := time.Unix(0, clockFloor)
	behind := func(wall time.Time) engine.Meta {
		m := at(wall)
		m.Wall = -m.Wall
		return m
	}
	for name, c := range map[string]struct {
		saved  engine.Meta
		wall   time.Time
		want   engine.Instant
		behind bool // it says so
	}{
		"downtime counts":                            {at(autumn), autumn.Add(time.Hour), start + day/24, false},
		"no downtime":                                {at(autumn), autumn, start, false},
		"seven days of it":                           {at(autumn), autumn.AddDate(0, 0, 7), start + 7*day, false},
		"no more than seven days":                    {at(autumn), autumn.AddDate(0, 0, 7).Add(1), start + 7*day, false},
		"closed for thirty days":                     {at(autumn), autumn.AddDate(0, 0, 30), start + 7*day, false},
		"the wall went back":                         {at(autumn), autumn.Add(-24 * time.Hour), start, true},
		"boot in 1970":                               {at(autumn), time.Unix(0, 0), start, true},
		"booted in 1970 last time, 2026 now":         {at(time.Unix(60, 0)), autumn, start, false},
		"year 1 last time":                           {at(time.Time{}), time.Unix(60, 0), start, true},
		"before the floor last time":                 {at(floor.Add(-1)), floor.Add(time.Hour), start, false},
		"at the floor last time":                     {at(floor), floor.Add(time.Hour), start + day/24, false},
		"year 9999 now":                              {at(autumn), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), start + 7*day, false},
		"year 9999 last time":                        {at(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), autumn, start, true},
		"store time ahead of the wall, and downtime": {at(autumn.AddDate(-1, 0, 0)), autumn.AddDate(-1, 0, 1), start + day, false},

		"behind last time":                  {behind(autumn), autumn.Add(time.Hour), start, false},
		"behind last time, by thirty days":  {behind(autumn), autumn.AddDate(0, 0, 30), start, false},
		"behind last time, just there":      {behind(autumn), autumn, start, false},
		"behind last time, and yet":         {behind(autumn), autumn.Add(-1), start, true},
		"behind last time, 1970 now":        {behind(autumn), time.Unix(60, 0), start, true},
		"behind 2100 last time":             {behind(autumn.AddDate(74, 0, 0)), autumn, start, true},
		"behind, before the floor":          {behind(time.Unix(60, 0)), autumn, start, false},
		"behind, before the floor, and yet": {behind(time.Unix(60, 0)), time.Unix(50, 0), start, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tl := newTimeline(fakeclock.New(c.wall), c.saved)
			now, _ := tl.now()
			assert.Equal(t, c.want, now)
			assert.Equal(t, uint64(4), tl.epoch)
			newFences(t, tl, max(41, uint64(wallNanos(c.wall))))
			m := tl.meta()
			assert.Equal(t, c.saved.LostUntil, m.LostUntil)
			assert.Equal(t, c.saved.Secret, m.Secret)
			saved := max(abs(c.saved.Wall)+int64(c.want-start), wallNanos(c.wall))
			assert.Equal(t, saved, abs(m.Wall), "it never goes back")
			assert.Equal(t, c.behind, m.Wall < 0)
		})
	}
}

func abs(n int64) int64 { return max(n, -n) }

// What is saved of the wall clock never goes back, also within an opening: a clock that
// was right and then steps back would have the next opening count time twice.
func TestSavedWallNeverGoesBack(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, back := range map[string]time.Time{"to 1970": time.Unix(9, 0), "by a year": autumn.AddDate(-1, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saved := engine.Meta{Time: engine.Instant(autumn.UnixNano()), Wall: autumn.UnixNano(), Fence: 1, Epoch: 1}
			c := fakeclock.New(autumn.Add(2 * day)) // it was closed for two days
			tl := newTimeline(c, saved)
			saved = tl.meta()
			require.Equal(t, autumn.Add(2*day).UnixNano(), saved.Wall)
			c.SetWall(back)
			c.Advance(time.Hour)
			saved = tl.meta()
			require.Equal(t, autumn.Add(2*day+time.Hour).UnixNano(), saved.Wall)

			again := newTimeline(fakeclock.New(autumn.Add(2*day+2*time.Hour)), saved)
			now, _ := again.now()
			assert.Equal(t, engine.Instant(autumn.Add(2*day+2*time.Hour).UnixNano()), now, "it was closed for an hour")

			// Nothing was saved before the clock stepped back.
			c = fakeclock.New(autumn.Add(2 * day))
			tl = newTimeline(c, engine.Meta{Time: engine.Instant(autumn.UnixNano()), Wall: autumn.UnixNano(), Fence: 1, Epoch: 1})
			c.SetWall(back)
			again = newTimeline(fakeclock.New(autumn.Add(2*day+time.Hour)), tl.meta())
			now, _ = again.now()
			assert.Equal(t, engine.Instant(autumn.Add(2*day+time.Hour).UnixNano()), now, "the two days count once")
		})
	}
}

// A clock that was behind at the opening may catch up within it: from then on what is
// saved is what it reads, and the next opening counts from that.
func TestWallClockCatchesUp(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	was := autumn.UnixNano()
	for name, first := range map[string]time.Time{"from 1970": time.Unix(9, 0), "from a year before": autumn.AddDate(-1, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fakeclock.New(first) // it was closed for two days
			tl := newTimeline(c, engine.Meta{Time: engine.Instant(was), Wall: was, Fence: 1, Epoch: 1})
			c.Advance(time.Hour)
			require.Equal(t, -was-int64(time.Hour), tl.meta().Wall)
			c.SetWall(autumn.Add(time.Hour - 1))
			require.Equal(t, -was-int64(time.Hour), tl.meta().Wall, "a nanosecond is missing")
			for _, missing := range []engine.Meta{tl.meta(), newTimeline(fakeclock.New(first), tl.meta()).meta()} {
				again := newTimeline(fakeclock.New(autumn.Add(3*day)), missing)
				now, _ := again.now()
				require.Equal(t, missing.Time, now, "none of it can be told")
				require.Equal(t, autumn.Add(3*day).UnixNano(), again.meta().Wall)
			}
			c.SetWall(autumn.Add(2*day + time.Hour))
			require.Equal(t, autumn.Add(2*day+time.Hour).UnixNano(), tl.meta().Wall)
			c.SetWall(first)
			saved := tl.meta()
			require.Equal(t, autumn.Add(2*day+time.Hour).UnixNano(), saved.Wall, "it is lost again")
			now, _ := newTimeline(fakeclock.New(autumn.Add(3*day)), saved).now()
			require.Equal(t, saved.Time+engine.Instant(23*time.Hour), now)
		})
	}
}

// An opening reads a clock that is right, which then steps back before anything is saved.
// The next opening must not count what lay before it, whether that was counted or not.
func TestWallStepsBackBeforeTheFirstCommit(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	was := autumn.UnixNano()
	for name, wall := range map[string]int64{"seven of thirty days were counted": was, "none were counted": -was} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fakeclock.New(autumn.Add(30 * day))
			tl := newTimeline(c, engine.Meta{Time: engine.Instant(was), Wall: wall, Fence: 1, Epoch: 1})
			c.SetWall(autumn)
			c.Advance(time.Hour)
			saved := tl.meta()
			assert.Equal(t, autumn.Add(30*day+time.Hour).UnixNano(), saved.Wall)
			now, _ := newTimeline(fakeclock.New(autumn.Add(30*day+2*time.Hour)), saved).now()
			assert.Equal(t, saved.Time+engine.Instant(time.Hour), now)
		})
	}
}

// A copy of what was saved, opened again, and two stores made at one moment, one with a
// clock that was not set: no token of one fits the other.
func TestFencesOfTwoLivesAreApart(t *testing.T) {
	t.Parallel()
	saved := newTimeline(fakeclock.New(autumn), engine.Meta{}).meta()
	ahead := saved
	ahead.Fence += 1 << 40 // by claims, or a clock that was ahead
	for name, lives := range map[string][2]engine.Meta{
		"a copy":                             {saved, saved},
		"a copy with fences ahead of a wall": {ahead, ahead},
		"two that are new":                   {{}, {}},
	} {
		for _, wall := range []time.Time{autumn, time.Unix(5, 0)} {
			t.Run(name+wall.Format(" 2006"), func(t *testing.T) {
				t.Parallel()
				drawn := map[uint64]bool{}
				for _, m := range lives {
					tl := newTimeline(fakeclock.New(wall), m)
					for range 100 {
						n := tl.fence.Add(1)
						assert.False(t, drawn[n], "fence %d is drawn in both", n)
						assert.Greater(t, n, m.Fence)
						drawn[n] = true
					}
				}
			})
		}
	}
}

// countingClock counts how often it is read.
type countingClock struct {
	*fakeclock.Clock
	reads int
}

func (c *countingClock) Now() (time.Time, time.Duration) {
	c.reads++
	return c.Clock.Now()
}

// A deadline differs from the real one by the gap between two readings; so wall
// and elapsed time come from one.
func TestTimelineReadsTheClockOnce(t *testing.T) {
	t.Parallel()
	c := &countingClock{Clock: fakeclock.New(autumn)}
	tl := newTimeline(c, engine.Meta{})
	assert.Equal(t, 1, c.reads)
	tl.now()
	assert.Equal(t, 2, c.reads)
	tl.meta()
	assert.Equal(t, 3, c.reads)
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
