package idemtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var issuedCases = []testCase{
	{"a request older than its retention is too late", issuedOld},
	{"a request older than what was lost is too late", issuedLost},
	{"a volatile store is too late for what came before it", issuedVolatile},
	{"IssuedAt where the wall clock is in 1970", issuedIn1970},
	{"IssuedAt in a volatile store that began in 1970", issuedVolatile1970},
}

// asks claims a key of its own, issued at the given time, and returns the answer.
func (e *env) asks(key string, issued time.Time, retention time.Duration) error {
	e.t.Helper()
	c, err := e.s.Claim(e.ctx, idem.Request{Key: key, IssuedAt: issued, Retention: retention, Lease: time.Second})
	if err == nil {
		require.NoError(e.t, e.s.Forget(e.ctx, c.Token))
		return nil
	}
	require.Zero(e.t, c.Token)
	require.Equal(e.t, idem.Record{Key: key}, c.Record)
	require.Nil(e.t, e.entry(key), "nothing was written")
	many := e.s.ClaimMany(e.ctx, []idem.Request{{Key: key, IssuedAt: issued, Retention: retention}})
	require.ErrorIs(e.t, many[0].Err, err, "ClaimMany")
	return err
}

func (e *env) wall() time.Time {
	wall, _ := e.clock.Now()
	return wall
}

func issuedOld(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	e.clock.Advance(100 * day)
	check := func() {
		t.Helper()
		for _, retention := range []time.Duration{0, time.Second, day} {
			d := retention
			if d == 0 {
				d = time.Hour // Options.Retention
			}
			require.NoError(t, e.asks("k", time.Time{}, retention), "unknown")
			require.NoError(t, e.asks("k", e.wall(), retention), "fresh")
			require.NoError(t, e.asks("k", e.wall().Add(1-d), retention), "a nanosecond is left")
			require.ErrorIs(t, e.asks("k", e.wall().Add(-d), retention), idem.ErrTooLate)
			require.ErrorIs(t, e.asks("k", e.wall().Add(-d-1), retention), idem.ErrTooLate)
			require.ErrorIs(t, e.asks("k", e.wall().Add(-d-50*day), retention), idem.ErrTooLate)
			require.NoError(t, e.asks("k", e.wall().Add(year), retention), "in the future: that is now")
		}
		require.NoError(t, e.asks("k", e.wall().Add(-50*day), idem.Forever), "a record of it would be there")
	}
	check()
	e.clock.StepWall(-day)
	require.NoError(t, e.asks("k", e.wall().Add(day), 0), "issued before the clock was set back")
	check()
	e.clock.StepWall(10 * year)
	check()

	// An existing record answers, however old the request says it is.
	old := e.wall().Add(-60 * day)
	e.claim(idem.Request{Key: "there", Fingerprint: printA, IssuedAt: e.wall(), Lease: time.Second})
	e.refused(idem.ErrInFlight, idem.Request{Key: "there", IssuedAt: old})
	e.refused(idem.ErrMismatch, idem.Request{Key: "there", IssuedAt: old, Fingerprint: printB})
	e.clock.Advance(time.Second)
	c := e.claim(idem.Request{Key: "there", Fingerprint: printA, IssuedAt: old})
	require.Equal(t, 2, c.Record.Attempt, "taken over")
	require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
	e.completed(idem.Request{Key: "there", Fingerprint: printB, IssuedAt: old}, []byte("r"))
	require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: "there", IssuedAt: old}).Result))

	// Once it has expired it does not. This is what IssuedAt is for.
	issued := e.wall()
	e.clock.Advance(time.Hour - 1)
	e.refused(idem.ErrCompleted, idem.Request{Key: "there", IssuedAt: issued})
	e.clock.Advance(1)
	r := e.refused(idem.ErrTooLate, idem.Request{Key: "there", IssuedAt: issued})
	require.Equal(t, idem.Record{Key: "there"}, r, "it discloses nothing of the record that is gone")
	e.sweepAll()
	e.refused(idem.ErrTooLate, idem.Request{Key: "there", IssuedAt: issued})
	e.claim(idem.Request{Key: "there", IssuedAt: e.wall()})

	// In one batch, each on its own merits.
	many := e.s.ClaimMany(e.ctx, []idem.Request{
		{Key: "m", IssuedAt: issued}, {Key: "m", IssuedAt: e.wall()}, {Key: "m", IssuedAt: issued},
	})
	require.ErrorIs(t, many[0].Err, idem.ErrTooLate)
	require.NoError(t, many[1].Err)
	require.ErrorIs(t, many[2].Err, idem.ErrInFlight, "there is a record now")
}

// issuedLost: the store remembers when a backup was restored.
func issuedLost(t *testing.T, e *env) {
	s := e.spied()
	lost := start.Add(time.Hour)
	s.bound = func(m engine.Meta) engine.Meta { m.LostUntil = lost.UnixNano(); return m }
	e.open(idem.Options{Retention: idem.Forever})
	e.clock.Advance(2 * time.Hour)
	check := func() {
		t.Helper()
		require.ErrorIs(t, e.asks("k", lost.Add(-50*day), 0), idem.ErrTooLate)
		require.ErrorIs(t, e.asks("k", lost, 0), idem.ErrTooLate)
		require.NoError(t, e.asks("k", lost.Add(1), 0))
		require.NoError(t, e.asks("k", e.wall(), 0))
		require.NoError(t, e.asks("k", time.Time{}, 0))
		c := e.claim(idem.Request{Key: "there"})
		e.refused(idem.ErrInFlight, idem.Request{Key: "there", IssuedAt: lost.Add(-day)})
		require.NoError(t, e.s.Forget(e.ctx, c.Token))
	}
	check()
	if e.h.Volatile {
		return
	}
	s.bound = nil // what was lost stays lost
	e.reopen()
	check()
	e.clock.StepWall(-day)
	require.ErrorIs(t, e.asks("k", e.wall(), 0), idem.ErrTooLate, "the clock was set back before it")
	e.clock.StepWall(day)
	if e.h.Crash != nil {
		e.crash()
		check()
	}
	e.reopen()
	check()
}

func issuedVolatile(t *testing.T, e *env) {
	if !e.h.Volatile {
		t.Skip("the engine is durable")
	}
	e.open(idem.Options{Retention: day})
	require.ErrorIs(t, e.asks("k", e.wall(), 0), idem.ErrTooLate, "perhaps of the life before")
	e.clock.Advance(1)
	issued := e.wall()
	require.NoError(t, e.asks("k", issued, 0))
	e.completed(idem.Request{Key: "done", IssuedAt: issued}, nil)
	e.reopen()
	e.clock.Advance(time.Second)
	e.refused(idem.ErrTooLate, idem.Request{Key: "done", IssuedAt: issued})
	e.claim(idem.Request{Key: "done", IssuedAt: e.wall()})
}

// issuedIn1970: while the wall clock is not set, the saved one goes on.
func issuedIn1970(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{Retention: time.Hour})
	require.NoError(t, e.asks("k", e.wall(), 0))
	e.close()
	saved := e.wall()
	e.clock = NewClock(time.Unix(100, 0))
	e.open(e.opts)
	check := func(passed time.Duration) {
		t.Helper()
		now := saved.Add(passed)
		require.NoError(t, e.asks("k", now, 0))
		require.NoError(t, e.asks("k", now.Add(1-time.Hour), 0))
		require.ErrorIs(t, e.asks("k", now.Add(-time.Hour), 0), idem.ErrTooLate)
		require.NoError(t, e.asks("k", now.Add(10*day), 0), "as far as it knows in the future")
		require.NoError(t, e.asks("k", time.Time{}, 0))
	}
	check(0)
	e.clock.Advance(10 * time.Minute)
	check(10 * time.Minute)
	e.reopen()
	check(10 * time.Minute)
	e.clock.StepWall(saved.Add(2 * day).Sub(e.wall())) // NTP
	check(2 * day)

	// A store created in 1970 has lost nothing, and knows no other time.
	e.close()
	e.dir, e.clock = t.TempDir(), NewClock(time.Unix(100, 0))
	e.open(e.opts)
	require.NoError(t, e.asks("k", start, 0))
	e.clock.StepWall(start.Sub(e.wall()))
	require.NoError(t, e.asks("k", start, 0))
	require.ErrorIs(t, e.asks("k", start.Add(-time.Hour), 0), idem.ErrTooLate)
}

// issuedVolatile1970: a volatile store cannot tell when it began until it knows the
// time.
func issuedVolatile1970(t *testing.T, e *env) {
	if !e.h.Volatile {
		t.Skip("the engine is durable")
	}
	e.clock = NewClock(time.Unix(100, 0))
	e.open(idem.Options{Retention: day})
	e.clock.Advance(time.Minute)
	require.ErrorIs(t, e.asks("k", start, 0), idem.ErrTooLate, "before or after it began, nobody knows")
	require.NoError(t, e.asks("k", time.Time{}, 0))
	e.clock.StepWall(start.Sub(e.wall())) // NTP: it began a minute ago
	require.ErrorIs(t, e.asks("k", start.Add(-time.Minute), 0), idem.ErrTooLate)
	require.NoError(t, e.asks("k", start.Add(1-time.Minute), 0))
	e.clock.Advance(time.Hour)
	require.ErrorIs(t, e.asks("k", start.Add(-time.Minute), 0), idem.ErrTooLate)
	require.NoError(t, e.asks("k", start.Add(1-time.Minute), 0))
}
