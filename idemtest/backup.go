package idemtest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var backupCases = []testCase{
	{"a restored backup says what it may have lost", backupTooLate},
	{"a backup holds what was answered before it", backupUnderTraffic},
	{"a backup restored while the clock is not set", backup1970},
}

// backsUp skips the case if the engine makes no backups.
func (e *env) backsUp() {
	e.t.Helper()
	if e.h.Backup == nil {
		e.t.Skip("the engine makes no backups")
	}
}

// backup makes a backup of the case's store and returns its folder.
func (e *env) backup() string {
	e.t.Helper()
	return e.h.Backup(e.t, e.backend, e.dir)
}

func backupTooLate(t *testing.T, e *env) {
	e.backsUp()
	e.open(idem.Options{Retention: day})
	done := e.completed(idem.Request{Key: "before"}, []byte("result"))
	inFlight := e.claim(idem.Request{Key: "in flight", Lease: day})
	want, hash := e.get("before"), e.s.KeyHash("k")
	folder := e.backup()
	e.clock.Advance(time.Minute)
	e.completed(idem.Request{Key: "after", IssuedAt: e.wall()}, []byte("result"))
	lost := e.wall() // when its client made the key
	require.NoError(t, e.asks("k", start.Add(-time.Second), 0), "the store itself has lost nothing")
	e.clock.Advance(time.Minute)
	e.close()

	e.dir = folder
	if e.h.OpenReadOnly != nil { // does not count
		e.openReadOnly(e.opts)
		e.same(want, e.get("before"))
		e.close()
		e.clock.Advance(time.Minute)
	}
	e.open(e.opts)
	restored := e.wall()
	check := func() {
		t.Helper()
		e.same(want, e.get("before"))
		require.Equal(t, hash, e.s.KeyHash("k"), "the secret is the store's")
		require.Greater(t, e.claim(idem.Request{Key: "fence"}).Token.Fence, done.Token.Fence)
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "fence"}))
		e.absent("after")
		e.refused(idem.ErrTooLate, idem.Request{Key: "after", IssuedAt: lost})
		require.ErrorIs(t, e.asks("k", restored, 0), idem.ErrTooLate)
		require.NoError(t, e.asks("k", restored.Add(1), 0))
		require.NoError(t, e.asks("k", time.Time{}, 0), "who does not say when, is not refused")
		e.refused(idem.ErrCompleted, idem.Request{Key: "before", IssuedAt: start})
	}
	e.clock.Advance(time.Second)
	check()
	e.clock.Advance(time.Second)
	e.reopen() // it counts once
	check()
	if e.h.Crash != nil {
		e.crash()
		check()
	}
	require.NoError(t, e.s.Complete(e.ctx, inFlight.Token, nil), "a token from before the backup still fits")

	// A backup of what was restored, and so on.
	e.dir = e.backup()
	e.close()
	e.clock.Advance(time.Second)
	e.open(e.opts)
	require.ErrorIs(t, e.asks("k", e.wall(), 0), idem.ErrTooLate)
	e.clock.Advance(1)
	require.NoError(t, e.asks("k", e.wall(), 0))
}

// backup1970: until the clock is set, everything may have been lost.
func backup1970(t *testing.T, e *env) {
	e.backsUp()
	e.open(idem.Options{Retention: day})
	e.completed(idem.Request{Key: "before"}, nil)
	e.dir = e.backup()
	e.close()
	e.clock = NewClock(time.Unix(50, 0))
	e.open(e.opts)
	now := start.Add(time.Hour)
	require.ErrorIs(t, e.asks("k", now, 0), idem.ErrTooLate)
	e.clock.Advance(time.Minute)
	e.clock.StepWall(now.Sub(e.wall())) // NTP: it was restored a minute ago
	require.ErrorIs(t, e.asks("k", now.Add(-time.Minute), 0), idem.ErrTooLate)
	require.NoError(t, e.asks("k", now.Add(1-time.Minute), 0))
}

// backupUnderTraffic: what was completed before the backup began is in it. What is in it
// was asked for. Its index and records fit.
func backupUnderTraffic(t *testing.T, e *env) {
	e.backsUp()
	const callers, rounds = 8, 30
	e.open(idem.Options{Retention: day})
	result := func(key string) []byte { return []byte("result of " + key) }
	var before [callers]int // of each caller's keys, how many were completed
	var asked [callers]atomic.Int64
	begun := make(chan struct{})
	var ready atomic.Int64
	traffic := async(func() error {
		inParallel(callers, func(i int) {
			for n := range rounds {
				if n == rounds/3 {
					before[i] = n
					if ready.Add(1) == callers {
						close(begun)
					}
				}
				key := fmt.Sprintf("%d/%d", i, n)
				asked[i].Store(int64(n))
				c, err := e.s.Claim(e.ctx, idem.Request{Key: key})
				if err == nil {
					err = e.s.Complete(e.ctx, c.Token, result(key))
				}
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
		return nil
	})
	e.await("the first calls", begun)
	known := before
	folder := e.backup()
	require.NoError(t, traffic.wait(e, "the traffic"))
	e.close()
	e.dir = folder
	e.open(e.opts)
	for i := range callers {
		for n := range rounds {
			key := fmt.Sprintf("%d/%d", i, n)
			r, err := e.s.Get(e.ctx, key)
			if n < known[i] {
				require.NoError(t, err, "%s was completed before", key)
				require.Equal(t, idem.Completed, r.State, key)
			}
			if err == nil && r.State == idem.Completed {
				require.LessOrEqual(t, int64(n), asked[i].Load())
				require.Equal(t, result(key), r.Result)
			}
		}
	}
	if v, ok := e.backend.(engine.Verifier); ok {
		require.NoError(t, v.Verify(e.ctx, func(d engine.Damage) { t.Errorf("%s: %v", d.What, d.Err) }))
	}
}
