package idem

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
)

// Random lives of a store under a wall clock that is right, not set, ahead, or steps as
// it likes, and that is closed, saved and killed at any time.
//
// Within an opening store time is elapsed time, and no opening begins before what was
// saved. It is ahead of the true time by no more than openings had reason to count: of
// an opening's reading of the wall clock that is further ahead than any that was saved,
// what it is ahead by, up to seven days. So with a clock that was right at first, and is
// behind or not set at times, it is never ahead. With a clock that is always right it is
// the true time, as long as nothing is killed or closed for over seven days.
//
// What is made in a life does not age by time before it. An opening may count too much of
// its age only if its clock is further ahead than that of the life that saved last, and
// only if that one was not behind what was saved before.
func TestTimelineProperty(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	// life is what the model knows at a moment, or when it was saved.
	type life struct {
		meta    engine.Meta
		at      time.Duration // true time, since the first opening
		allowed time.Duration
		ahead   time.Duration // the furthest that a saved reading was ahead of the true time
		exact   bool

		// Of this life alone.
		read time.Duration // the furthest that a reading was ahead
		told bool          // a reading was not behind what had been saved
		aged time.Duration // how much too much age openings had reason to count
	}
	// claim is a record, as it was made.
	type claim struct {
		time engine.Instant
		at   time.Duration
		aged time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		duration := func(most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "duration"))
		}
		var true_ time.Duration
		kinds := []string{"right", "1970", "behind", "2100", "ahead"}
		wall := func() time.Time {
			now := autumn.Add(true_)
			switch rapid.SampledFrom(kinds).Draw(t, "wall") {
			case "1970":
				return time.Unix(0, 0).Add(duration(day))
			case "2100":
				return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Add(duration(day))
			case "behind":
				return now.Add(-duration(400 * day))
			case "ahead":
				return now.Add(duration(400 * day))
			}
			return now
		}
		if rapid.Bool().Draw(t, "never ahead") {
			kinds = kinds[:3]
		}
		if rapid.Bool().Draw(t, "always right") {
			kinds = kinds[:1]
		}
		offset := func(w time.Time) time.Duration { return w.Sub(autumn.Add(true_)) }
		first := wall()
		c := fakeclock.New(first)
		tl := newTimeline(c, engine.Meta{})
		began, _ := tl.now()
		now := life{ahead: offset(first), exact: true, read: offset(first), told: true}
		opened, openedAt := began, true_
		var claims []claim
		before := engine.Meta{Wall: wallNanos(first)} // what was saved before this life
		save := func() life {
			w, _ := c.Now()
			m := tl.meta()
			require.GreaterOrEqual(t, abs(m.Wall), abs(now.meta.Wall), "the saved wall clock went back")
			require.GreaterOrEqual(t, m.Time, now.meta.Time)
			next := now
			next.meta, next.at = m, true_
			next.ahead, next.read = max(now.ahead, offset(w)), max(now.read, offset(w))
			next.told = now.told || wallNanos(w) >= abs(before.Wall)+int64(true_-openedAt)
			return next
		}
		now = save()
		saved := now
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch what := rapid.SampledFrom([]string{"pass", "step", "save", "close", "kill"}).Draw(t, "what"); what {
			case "pass":
				d := duration(10 * day)
				true_ += d
				c.Advance(d)
			case "step":
				if len(kinds) > 1 {
					c.SetWall(wall())
				}
			case "save":
				now = save()
				saved = now
				if len(claims) < 5 {
					claims = append(claims, claim{now.meta.Time, true_, now.aged})
				}
			case "close", "kill":
				if what == "close" {
					saved = save()
				}
				down := duration(rapid.SampledFrom([]time.Duration{time.Hour, 7 * day, 60 * day}).Draw(t, "down"))
				true_ += down
				w := wall()
				c = fakeclock.New(w)
				tl = newTimeline(c, saved.meta)
				now, before = saved, saved.meta
				if saved.meta.Wall >= clockFloor {
					now.allowed += min(7*day, max(0, offset(w)-saved.ahead))
				}
				if saved.told && abs(saved.meta.Wall) >= clockFloor {
					now.aged += min(7*day, max(0, offset(w)-saved.read))
				}
				now.read, now.told = offset(w), wallNanos(w) >= abs(saved.meta.Wall)
				now.exact = now.exact && true_-saved.at <= 7*day
				opened, _ = tl.now()
				openedAt = true_
				require.GreaterOrEqual(t, opened, saved.meta.Time, "it began before what was saved")
				require.LessOrEqual(t, opened, saved.meta.Time.Add(7*day))
			}
			got, _ := tl.now()
			require.Equal(t, opened.Add(true_-openedAt), got, "it is not elapsed time")
			require.LessOrEqual(t, time.Duration(got-began), true_+now.allowed, "it is ahead of the true time")
			for _, c := range claims {
				require.LessOrEqual(t, time.Duration(got-c.time), true_-c.at+now.aged-c.aged, "it aged by time before it was made")
			}
			if now.exact && len(kinds) == 1 {
				require.Equal(t, true_, time.Duration(got-began), "it is behind the true time")
			}
		}
	})
}
