package idemtest

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var timeCases = []testCase{
	{"lease boundary", leaseBoundary},
	{"retention boundary", retentionBoundary},
	{"retention near the largest duration", largeDurations},
	{"retention counts from completion", retentionFromCompletion},
	{"changed options touch nothing stored", changedOptions},
	{"wall clock steps at run time", wallSteps},
	{"wall clock steps across reopening", wallStepsAcrossReopen},
	{"boot in 1970", bootIn1970},
	{"killed, then the clock steps", wallStepsAcrossCrash},
	{"strange clocks", strangeClocks},
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

func leaseBoundary(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	for i, lease := range []time.Duration{time.Millisecond, time.Millisecond + 1, time.Second, time.Hour} {
		key := fmt.Sprint("k", i)
		c := e.claim(idem.Request{Key: key, Lease: lease})
		e.clock.Advance(lease - 1)
		require.Equal(t, c.Token.Fence, e.refused(idem.ErrInFlight, idem.Request{Key: key}).Fence, "at deadline minus 1 ns")
		e.clock.Advance(1)
		next := e.claim(idem.Request{Key: key, Lease: lease})
		require.Equal(t, 2, next.Record.Attempt, "at the deadline")

		e.clock.Advance(lease / 2)
		require.NoError(t, e.s.Extend(e.ctx, next.Token, lease))
		e.clock.Advance(lease - 1)
		e.refused(idem.ErrInFlight, idem.Request{Key: key})
		e.clock.Advance(1)
		require.Equal(t, 3, e.claim(idem.Request{Key: key, Lease: lease}).Record.Attempt)
	}
}

func retentionBoundary(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second})
	for i, retention := range []time.Duration{1, time.Microsecond, time.Second, day} {
		ends := map[string]func(idem.Token) error{
			"completed": func(tok idem.Token) error { return e.s.Complete(e.ctx, tok, []byte("r")) },
			"failed":    func(tok idem.Token) error { return e.s.Fail(e.ctx, tok, []byte("r")) },
			"released":  func(tok idem.Token) error { return e.s.Release(e.ctx, tok, nil) },
			"in flight": func(tok idem.Token) error { e.clock.Advance(time.Second); return nil }, // from lease end
		}
		for name, end := range ends {
			key := fmt.Sprint(name, i)
			c := e.claim(idem.Request{Key: key, Retention: retention})
			require.NoError(t, end(c.Token))
			e.clock.Advance(retention - 1)
			r := e.get(key)
			require.Equal(t, c.Token.Fence, r.Fence, "at deadline minus 1 ns")
			wall, _ := e.clock.Now()
			require.True(t, wall.Add(1).Equal(r.ExpiresAt), "it is said to expire in %v", r.ExpiresAt.Sub(wall))
			if r.State.Final() {
				_, err := e.s.Claim(e.ctx, idem.Request{Key: key})
				require.Error(t, err, "at deadline minus 1 ns")
			}
			e.clock.Advance(1)
			e.absent(key)
			_, err := e.s.Wait(e.ctx, key)
			require.ErrorIs(t, err, idem.ErrNotFound)
			require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, []byte("r")), idem.ErrFenced)
			next := e.claim(idem.Request{Key: key, Fingerprint: printB})
			require.Equal(t, 1, next.Record.Attempt, "at the deadline")
			require.Nil(t, next.Record.Result)
			require.Nil(t, next.Record.Checkpoint)
		}
	}
}

func largeDurations(t *testing.T, e *env) {
	e.open(idem.Options{})
	retentions := []time.Duration{idem.Forever, idem.Forever - 1, math.MaxInt64 / 2, 290 * year, 250 * year}
	leases := []time.Duration{time.Second, math.MaxInt64, math.MaxInt64 - 1}
	tokens := map[string]idem.Token{}
	each := func(f func(key string, lease, retention time.Duration)) {
		for i, retention := range retentions {
			for n, lease := range leases {
				f(fmt.Sprintf("%d %d", i, n), lease, retention)
			}
		}
	}
	each(func(key string, lease, retention time.Duration) {
		c := e.claim(idem.Request{Key: key, Lease: lease, Retention: retention})
		tokens[key] = c.Token
		e.refused(idem.ErrInFlight, idem.Request{Key: key}) // not born lapsed
		if retention == idem.Forever {
			require.True(t, c.Record.ExpiresAt.IsZero())
		}
	})
	e.clock.Advance(year)
	each(func(key string, lease, retention time.Duration) {
		require.Equal(t, tokens[key].Fence, e.get(key).Fence) // not born expired
		require.NoError(t, e.s.Extend(e.ctx, tokens[key], lease))
		require.NoError(t, e.s.Complete(e.ctx, tokens[key], []byte("r")))
		e.refused(idem.ErrCompleted, idem.Request{Key: key})
	})
	e.clock.Advance(100 * year)
	require.Zero(t, e.sweepAll())
	e.reopenDurable()
	each(func(key string, _, _ time.Duration) {
		require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: key}).Result))
	})
}

func retentionFromCompletion(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute, Retention: time.Hour})
	slow := e.claim(idem.Request{Key: "slow"})
	for range 100 { // works for more than its lease and retention together
		e.clock.Advance(50 * time.Second)
		require.NoError(t, e.s.Extend(e.ctx, slow.Token, 0))
		e.sweepAll()
	}
	late := e.claim(idem.Request{Key: "late"})
	e.clock.Advance(time.Minute + time.Hour - 1) // lapsed long ago, about to expire
	require.NoError(t, e.s.Complete(e.ctx, late.Token, []byte("late")))
	require.NoError(t, e.s.Complete(e.ctx, slow.Token, []byte("slow")))
	e.clock.Advance(time.Hour - 1)
	e.sweepAll()
	for _, key := range []string{"slow", "late"} {
		require.Equal(t, key, string(e.refused(idem.ErrCompleted, idem.Request{Key: key}).Result))
	}
	e.clock.Advance(1)
	e.absent("slow")
	e.absent("late")
}

func changedOptions(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{Lease: time.Hour, Retention: 10 * time.Hour})
	done, open := e.claim(idem.Request{Key: "done"}), e.claim(idem.Request{Key: "open"})
	require.NoError(t, e.s.Complete(e.ctx, done.Token, []byte("r")))
	before := e.entry("done")
	e.close()
	e.open(idem.Options{Lease: time.Second, Retention: time.Second})
	e.clock.Advance(time.Hour - 1)
	e.sweepAll()
	require.Equal(t, before, e.entry("done"))
	e.refused(idem.ErrInFlight, idem.Request{Key: "open"})
	require.NoError(t, e.s.Complete(e.ctx, open.Token, []byte("r")), "with the retention it was claimed with")
	e.clock.Advance(9*time.Hour + 1 - 1)
	e.refused(idem.ErrCompleted, idem.Request{Key: "done"})
	e.clock.Advance(1)
	e.absent("done")
	e.clock.Advance(time.Hour - 2)
	e.refused(idem.ErrCompleted, idem.Request{Key: "open"})
	e.clock.Advance(1)
	e.absent("open")
}

// timed is a set of records with known deadlines in elapsed time.
type timed struct {
	e          *env
	lease      time.Duration
	retention  time.Duration
	sinceStart time.Duration // time passed on the store's timeline, as the case counts it
}

// timedRecords stores one record in flight, one completed, and one expired but not
// swept.
func timedRecords(e *env, lease, retention time.Duration) *timed {
	e.t.Helper()
	gone := e.claim(idem.Request{Key: "gone", Retention: time.Second})
	require.NoError(e.t, e.s.Complete(e.ctx, gone.Token, []byte("gone")))
	e.clock.Advance(time.Second)
	e.claim(idem.Request{Key: "open", Lease: lease, Retention: 100 * year})
	done := e.claim(idem.Request{Key: "done", Retention: retention})
	require.NoError(e.t, e.s.Complete(e.ctx, done.Token, []byte("done")))
	return &timed{e: e, lease: lease, retention: retention}
}

// pass lets d pass on the store's timeline without moving any clock.
func (r *timed) pass(d time.Duration) { r.sinceStart += d }

// check requires that each record is as the time passed demands, and that the times
// shown to people are the wall clock's.
func (r *timed) check(what string) {
	e := r.e
	e.t.Helper()
	e.absent("gone")
	wall, _ := e.clock.Now()
	rec := e.get("open")
	require.True(e.t, wall.Add(r.lease-r.sinceStart).Equal(rec.LeaseUntil),
		"%s: the lease is shown to end in %v, %v are left", what, rec.LeaseUntil.Sub(wall), r.lease-r.sinceStart)
	if r.sinceStart < r.lease {
		e.refused(idem.ErrInFlight, idem.Request{Key: "open"})
	} else {
		waited, err := e.s.Wait(e.ctx, "open")
		require.NoError(e.t, err, what)
		require.Equal(e.t, idem.InFlight, waited.State, what)
	}
	if r.sinceStart < r.retention {
		rec := e.refused(idem.ErrCompleted, idem.Request{Key: "done"})
		require.Equal(e.t, "done", string(rec.Result), what)
		require.True(e.t, wall.Add(r.retention-r.sinceStart).Equal(rec.ExpiresAt),
			"%s: shown to expire in %v, %v are left", what, rec.ExpiresAt.Sub(wall), r.retention-r.sinceStart)
		require.True(e.t, wall.Add(-r.sinceStart).Equal(rec.FinishedAt), what)
	} else {
		e.absent("done")
	}
}

// advance moves the clock and checks on both sides of the deadlines it passes.
func (r *timed) advance(d time.Duration, what string) {
	e := r.e
	e.t.Helper()
	for _, deadline := range []time.Duration{r.lease, r.retention} {
		if left := deadline - r.sinceStart; 0 < left && left <= d {
			e.clock.Advance(left - 1)
			r.pass(left - 1)
			r.check(what)
			e.clock.Advance(1)
			r.pass(1)
			r.check(what)
			d -= left
		}
	}
	e.clock.Advance(d)
	r.pass(d)
	r.check(what)
}

func wallSteps(t *testing.T, e *env) {
	e.open(idem.Options{})
	r := timedRecords(e, time.Hour, 2*time.Hour)
	for _, step := range []time.Duration{-day, 10 * year, -10 * year, -30 * day, 30*day + time.Second, -1, 1} {
		e.clock.StepWall(step)
		r.check(fmt.Sprintf("after a step by %v", step))
		r.advance(time.Minute, fmt.Sprintf("after a step by %v", step))
		e.sweepAll()
	}
	c := e.claim(idem.Request{Key: "new", Lease: time.Minute}) // claims made after a step
	e.clock.StepWall(-10 * year)
	e.refused(idem.ErrInFlight, idem.Request{Key: "new"})
	e.clock.Advance(time.Minute)
	require.Greater(t, e.claim(idem.Request{Key: "new"}).Token.Fence, c.Token.Fence)
	r.pass(time.Minute)
	r.advance(3*time.Hour, "to the end")
}

func wallStepsAcrossReopen(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{})
	r := timedRecords(e, 20*day, 40*day)
	// Steps while the store is open: Close saves the time, so they have no effect.
	for _, step := range []time.Duration{-day, 30 * day, -60 * day} {
		e.clock.StepWall(step)
		e.reopen()
		r.check(fmt.Sprintf("a step by %v, then reopened", step))
		r.advance(time.Minute, "after it")
	}
	// Steps while it is closed: only time beyond the saved wall clock counts as
	// downtime, and none counts after a life whose clock was behind it. The saved clock
	// is 60 days ahead now, because it does not go back.
	for _, c := range []struct{ step, counts time.Duration }{
		{-day, 0},
		{60 * day, 0},
		{2 * day, 0},
		{time.Hour, time.Hour},
		{-time.Nanosecond, 0},
		{2 * time.Nanosecond, 0},
		{time.Nanosecond, time.Nanosecond},
		{-365 * day, 0},
		{365*day + time.Hour, 0},
		{day, day},
	} {
		e.close()
		e.clock.StepWall(c.step)
		e.reboot()
		e.open(e.opts)
		r.pass(c.counts)
		r.check(fmt.Sprintf("closed, a step by %v, reopened", c.step))
		r.advance(time.Minute, "after it")
	}
	// Real downtime counts, even if the machine then boots with a new clock.
	e.close()
	e.clock.Advance(time.Hour)
	e.reboot()
	e.open(e.opts)
	r.pass(time.Hour)
	r.check("after an hour of downtime")
	r.advance(40*day, "to the end")
	e.clock.StepWall(-10 * year)
	r.check("nothing is revived at run time")
	e.reopen()
	r.check("nor by reopening")
	e.close()
	e.clock.StepWall(10 * year)
	e.open(e.opts)
	e.absent("done")
}

func bootIn1970(t *testing.T, e *env) {
	boot := func() { e.clock = NewClock(time.Unix(0, 0)) }
	ntp := func() {
		wall, _ := e.clock.Now()
		e.clock.StepWall(start.Sub(wall))
	}
	boot()
	e.open(idem.Options{})
	r := timedRecords(e, time.Hour, 2*time.Hour)
	ntp()
	r.check("NTP set 2026")
	r.advance(time.Minute, "and time passes")
	if e.h.Volatile {
		r.advance(3*time.Hour, "to the end")
		return
	}
	e.reopen()
	r.check("reopened in 2026")

	e.close()
	boot()
	e.open(e.opts)
	r.check("the machine boots in 1970 again")
	r.advance(10*time.Minute, "and works on in 1970")
	c := e.claim(idem.Request{Key: "new", Lease: time.Minute})
	ntp()
	r.check("NTP set 2026 again")
	e.refused(idem.ErrInFlight, idem.Request{Key: "new"})
	e.reopen()
	e.refused(idem.ErrInFlight, idem.Request{Key: "new"})
	r.advance(50*time.Minute, "and time passes")
	require.Greater(t, e.claim(idem.Request{Key: "new"}).Token.Fence, c.Token.Fence)

	// Closed in 1970, opened in 2026: how long that was is unknown.
	e.close()
	boot()
	e.open(e.opts)
	r.check("1970 once more")
	e.close()
	ntp()
	e.open(e.opts)
	r.check("and the year 2026 again")
}

func wallStepsAcrossCrash(t *testing.T, e *env) {
	if e.h.Crash == nil {
		t.Skip("Harness.Crash is nil: no crash can be staged")
	}
	e.open(idem.Options{})
	r := timedRecords(e, 10*time.Hour, 20*time.Hour)
	e.clock.StepWall(-day)
	e.clock.Advance(time.Hour)
	e.crash()
	// The last commit saved the wall clock before it was set back. The clock has not
	// reached that yet, so time has stood still since.
	r.check("stepped back, killed")
	e.clock.StepWall(2 * time.Hour)
	tok := e.claim(idem.Request{Key: "commit"}).Token
	e.crash()
	r.check("a step before the last commit is not downtime")
	require.NoError(t, e.s.Complete(e.ctx, tok, nil))
	e.clock.StepWall(3 * time.Hour)
	e.crash()
	r.check("the wall clock is not where it was yet")
	e.clock.StepWall(day - 7*time.Hour)
	tok = e.claim(idem.Request{Key: "another commit"}).Token
	e.clock.StepWall(3 * time.Hour)
	e.crash()
	r.check("nothing is downtime after a life whose clock was behind")
	require.NoError(t, e.s.Complete(e.ctx, tok, nil))
	e.clock.StepWall(2 * time.Hour)
	e.crash()
	r.pass(2 * time.Hour)
	r.check("a step after the last commit is, of a life whose clock was not")
	require.NoError(t, e.s.Forget(e.ctx, e.claim(idem.Request{Key: "one more commit"}).Token))
	e.clock.Advance(time.Hour)
	e.crash()
	r.pass(time.Hour)
	r.check("killed an hour after its last commit")
	e.clock.StepWall(30 * day)
	e.claim(idem.Request{Key: "a last commit"})
	e.crash()
	r.check("a step forward before the last commit is not downtime either")
	r.advance(20*time.Hour, "to the end")
}

func strangeClocks(t *testing.T, e *env) {
	for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Unix(0, 1), time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		e.clock, e.dir = NewClock(at), t.TempDir()
		e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
		c := e.claim(idem.Request{Key: "k"})
		e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
		require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("r")))
		require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: "k"}).Result), "at %v", at)
		if !e.h.Volatile {
			e.reopen()
			require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: "k"}).Result), "reopened at %v", at)
		}
		e.close()
	}
}
