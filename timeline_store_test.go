package idem_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
)

// opening is one opening of a store in a history: when its wall clock is read, and what
// is done in it.
type opening struct {
	wall   time.Time
	commit bool // something is committed
	killed bool // not closed
	passes time.Duration
}

var (
	spring = time.Date(2027, 4, 1, 8, 0, 0, 0, time.UTC)
	unset  = time.Unix(7, 0)
	far    = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Between the openings of a store its wall clock may read anything: a record lives for
// its retention of true time, or longer, and never less.
func TestRecordsOutliveWrongClocks(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	at := func(d time.Duration) time.Time { return spring.Add(d) }
	good := opening{wall: at(time.Hour), commit: true}
	for name, c := range map[string]struct {
		before   opening   // what the store saved before the record was made; its wall is zero if it was new
		made     time.Time // zero: spring
		openings []opening // after the one in which the record was completed, for a retention of 24 h
		gone     bool
	}{
		"boot in 1970, with a commit":       {openings: []opening{{wall: unset, commit: true}, good}},
		"boot in 1970, without a commit":    {openings: []opening{{wall: unset}, good}},
		"boot in 1970, and killed":          {openings: []opening{{wall: unset, commit: true, killed: true}, good}},
		"boot in 1970, killed at once":      {openings: []opening{{wall: unset, killed: true}, good}},
		"boot in 1970 twice":                {openings: []opening{{wall: unset, commit: true}, {wall: unset.Add(time.Hour)}, good}},
		"boot in 1970, for hours":           {openings: []opening{{wall: unset, commit: true, passes: 23 * time.Hour}, {wall: at(23*time.Hour + time.Minute)}}},
		"made in 1970, the clock set later": {made: unset, openings: []opening{good, {wall: at(2 * time.Hour)}}},
		"made in 1970, never set":           {made: unset, openings: []opening{{wall: unset}, {wall: unset.Add(30 * day)}}},
		"made in 2024, the clock set later": {made: spring.AddDate(-3, 0, 0), openings: []opening{good}},
		"a right clock that steps back": {openings: []opening{
			{wall: at(20 * time.Hour), commit: true}, {wall: at(-30 * day), commit: true}, {wall: at(22 * time.Hour)},
		}},
		"1970 between, and a day in all": {openings: []opening{{wall: unset, commit: true, passes: time.Hour}, {wall: at(day)}}},
		"made in 1970, after two days closed": {
			before: opening{wall: at(-2 * day), commit: true}, made: unset, openings: []opening{good},
		},
		"made a year behind, after two days closed": {
			before: opening{wall: at(-2 * day), commit: true, killed: true}, made: at(-365 * day), openings: []opening{good},
		},
		"2100, and right again": {openings: []opening{{wall: far, commit: true, killed: true}, good}, gone: true},

		"a right clock, for a day":        {openings: []opening{{wall: at(day)}}, gone: true},
		"1970 between, and two days":      {openings: []opening{{wall: unset, commit: true, passes: time.Hour}, good, {wall: at(day + time.Hour)}}, gone: true},
		"made in 1970, set, then closed":  {made: unset, openings: []opening{good, {wall: at(25 * time.Hour)}}, gone: true},
		"1970 between, with 24 h elapsed": {openings: []opening{{wall: unset, passes: day}, good}, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.made.IsZero() {
				c.made = spring
			}
			b := storetest.NewStub()
			live := func(o opening) {
				clock := idemtest.NewClock(o.wall)
				s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1})
				clock.Advance(o.passes)
				if o.commit {
					mustClaim(t, s, idem.Request{Key: o.wall.String()})
				}
				if !o.killed {
					require.NoError(t, s.Close())
				}
				b = b.Reopen()
			}
			if !c.before.wall.IsZero() {
				live(c.before)
			}
			s := open(t, b, idem.Options{Clock: idemtest.NewClock(c.made), SweepInterval: -1})
			claim := mustClaim(t, s, idem.Request{Key: "k", Retention: day})
			require.NoError(t, s.Complete(t.Context(), claim.Token, []byte("r")))
			require.NoError(t, s.Close())
			b = b.Reopen()
			for _, o := range c.openings {
				live(o)
			}
			s = open(t, b, idem.Options{Clock: idemtest.NewClock(unset), SweepInterval: -1})
			r, err := s.Get(t.Context(), "k")
			if c.gone {
				require.Equal(t, idem.ErrNotFound, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "r", string(r.Result))
		})
	}
}

// A store that was closed for thirty days counts seven: records kept for longer than
// that are there, and those that are not have gone.
func TestClosedForLongCountsAWeek(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	b := storetest.NewStub()
	s := open(t, b, idem.Options{Clock: idemtest.NewClock(spring), SweepInterval: -1})
	for key, kept := range map[string]time.Duration{"a week": 7 * day, "a little longer": 7*day + 1} {
		claim := mustClaim(t, s, idem.Request{Key: key, Retention: kept})
		require.NoError(t, s.Complete(t.Context(), claim.Token, nil))
	}
	require.NoError(t, s.Close())
	s = open(t, b.Reopen(), idem.Options{Clock: idemtest.NewClock(spring.Add(30 * day)), SweepInterval: -1})
	_, err := s.Get(t.Context(), "a week")
	require.Equal(t, idem.ErrNotFound, err)
	get(t, s, "a little longer")
}

// While the wall clock has not been set, a request is too late by the one that was saved.
func TestTooLateBeforeTheClockIsSet(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{Clock: idemtest.NewClock(spring), SweepInterval: -1, Retention: time.Hour})
	require.NoError(t, s.Close())
	s = open(t, b.Reopen(), idem.Options{Clock: idemtest.NewClock(unset), SweepInterval: -1, Retention: time.Hour})
	for name, c := range map[string]struct {
		issued time.Time
		err    error
	}{
		"an hour before":        {spring.Add(-time.Hour), idem.ErrTooLate},
		"a little less":         {spring.Add(-time.Hour + 1), nil},
		"from the epoch":        {time.Unix(0, 0), idem.ErrTooLate},
		"before the epoch":      {time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), idem.ErrTooLate},
		"from the future":       {spring.Add(100 * time.Hour), nil},
		"it is not known when":  {time.Time{}, nil},
		"from the distant past": {time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), idem.ErrTooLate},
	} {
		claim, err := s.Claim(t.Context(), idem.Request{Key: name, IssuedAt: c.issued})
		assert.Equal(t, c.err, err, name)
		assert.Equal(t, name, claim.Record.Key)
		assert.Equal(t, c.err != nil, claim.Record.State == 0)
	}
}
