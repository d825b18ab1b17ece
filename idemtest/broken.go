package idemtest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var brokenCases = []testCase{
	{"a failed commit breaks the store", commitFails},
	{"a commit fails in traffic", commitFailsInTraffic},
	{"a broken store wakes Wait", brokenWakesWait},
	{"a damaged record", damaged},
	{"a damaged record does not stop the sweep", damagedSweep},
}

func (e *env) failCommit() {
	e.t.Helper()
	if e.h.FailCommit == nil {
		e.t.Skip("Harness.FailCommit is nil: commits cannot be made to fail")
	}
	e.h.FailCommit(e.t, e.backend)
}

// everything calls every method of the store and returns the errors.
func (e *env) everything(tok idem.Token) map[string]error {
	errs := map[string]error{}
	for name, op := range e.tokenOps() {
		errs[name] = op(tok)
	}
	_, errs["Claim"] = e.s.Claim(e.ctx, idem.Request{Key: "another"})
	_, errs["Claim of the same"] = e.s.Claim(e.ctx, idem.Request{Key: tok.Key})
	errs["ClaimMany"] = e.s.ClaimMany(e.ctx, []idem.Request{{Key: "another"}})[0].Err
	_, errs["Get"] = e.s.Get(e.ctx, tok.Key)
	_, errs["Wait"] = e.s.Wait(e.ctx, tok.Key)
	errs["Forget"] = e.s.Forget(e.ctx, idem.Token{Key: "another"})
	if e.canScan() {
		_, errs["Stats"] = e.s.Stats(e.ctx)
		for _, err := range e.s.Records(e.ctx, idem.Filter{}) {
			errs["Records"] = err
		}
	}
	if e.canExpire() {
		_, errs["Sweep"] = e.s.Sweep(e.ctx, 1)
	}
	return errs
}

func commitFails(t *testing.T, e *env) {
	e.open(idem.Options{})
	ops := []struct {
		name string
		do   func(open idem.Token) error
		// whole reports whether the operation took effect; otherwise nothing of it did.
		whole func(open idem.Token) bool
	}{
		{"Claim", func(idem.Token) error {
			_, err := e.s.Claim(e.ctx, idem.Request{Key: "new"})
			return err
		}, func(idem.Token) bool { return e.entry("new") != nil }},
		{
			"Complete", func(open idem.Token) error { return e.s.Complete(e.ctx, open, []byte("late")) },
			func(open idem.Token) bool { return e.get(open.Key).State == idem.Completed },
		},
		{
			"Forget", func(idem.Token) error { return e.s.Forget(e.ctx, idem.Token{Key: "done"}) },
			func(idem.Token) bool { return e.entry("done") == nil },
		},
		{"ClaimMany", func(idem.Token) error {
			got := e.s.ClaimMany(e.ctx, []idem.Request{{Key: "m1"}, {Key: "m2"}})
			if got[0].Err == nil || got[1].Err == nil {
				return nil
			}
			return errors.Join(got[0].Err, got[1].Err)
		}, func(idem.Token) bool {
			one, two := e.entry("m1") != nil, e.entry("m2") != nil
			require.Equal(t, one, two, "a batch is there whole or not at all")
			return one
		}},
	}
	highest := uint64(0)
	for i, op := range ops {
		_, err := e.s.Get(e.ctx, "done")
		if err != nil {
			e.completed(idem.Request{Key: "done"}, []byte("r"))
		}
		open := e.claim(idem.Request{Key: fmt.Sprint("open", i)}).Token
		require.Greater(t, open.Fence, highest)
		before := e.entry(open.Key)
		e.get("done") // into the cache
		e.failCommit()
		call := async(func() error { return op.do(open) })
		err = call.wait(e, "a call whose commit fails")
		require.ErrorIs(t, err, idem.ErrBroken, "%s: the outcome is unknown", op.name)
		require.NotErrorIs(t, err, idem.ErrClosed)
		require.Greater(t, len(err.Error()), len(idem.ErrBroken.Error()), "it wraps the cause")
		e.within("a broken store", func() {
			for name, err := range e.everything(open) {
				require.ErrorIs(t, err, idem.ErrBroken, "%s of a broken store", name)
			}
			e.refused(idem.ErrBroken, idem.Request{Key: "done"}) // it replays nothing
		})
		_ = e.closeStore(e.s) // in bounded time, with or without an error
		e.within("a closed store", func() {
			for name, err := range e.everything(open) {
				require.ErrorIs(t, err, idem.ErrClosed, "%s: closed outranks broken", name)
				require.NotErrorIs(t, err, idem.ErrBroken)
			}
		})
		e.open(idem.Options{})
		if !op.whole(open) {
			require.Equal(t, before, e.entry(open.Key), "%s is there whole or not at all", op.name)
		}
		c := e.claim(idem.Request{Key: fmt.Sprint("after ", i)})
		require.Greater(t, c.Token.Fence, open.Fence)
		highest = c.Token.Fence
	}
}

func commitFailsInTraffic(t *testing.T, e *env) {
	const workers = 8
	e.open(idem.Options{})
	if e.h.FailCommit == nil {
		e.failCommit() // skips
	}
	type done struct {
		tok      idem.Token
		complete bool
	}
	acknowledged := make([][]done, workers)
	last := make([]error, workers)
	var begun atomic.Int64
	var failing atomic.Bool
	traffic := async(func() struct{} {
		inParallel(workers, func(w int) {
			// If the store goes on after the commit that fails, a few more operations
			// reveal it.
			for i, more := 0, 100; more > 0; i++ {
				begun.Add(1)
				if failing.Load() {
					more--
				}
				c, err := e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprintf("%d %d", w, i)})
				if err == nil {
					acknowledged[w] = append(acknowledged[w], done{tok: c.Token})
					if err = e.s.Complete(e.ctx, c.Token, []byte(c.Token.Key)); err == nil {
						acknowledged[w][i].complete = true
					}
				}
				if last[w] = err; err != nil {
					return
				}
			}
		})
		return struct{}{}
	})
	e.within("traffic", func() {
		for begun.Load() < 5*workers && !traffic.isDone() {
			settle()
		}
	})
	e.failCommit()
	failing.Store(true)
	traffic.wait(e, "traffic on a store that breaks")
	for _, err := range last {
		require.ErrorIs(t, err, idem.ErrBroken)
	}
	_ = e.closeStore(e.s)
	e.open(idem.Options{})
	fences := map[uint64]bool{}
	for _, all := range acknowledged {
		for _, d := range all {
			require.False(t, fences[d.tok.Fence])
			fences[d.tok.Fence] = true
			r := e.get(d.tok.Key)
			require.Equal(t, d.tok.Fence, r.Fence)
			if d.complete {
				require.Equal(t, d.tok.Key, string(r.Result))
			}
		}
	}
	require.False(t, fences[e.claim(idem.Request{Key: "next"}).Token.Fence])
}

func brokenWakesWait(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.claim(idem.Request{Key: "k"})
	wait := e.waits("k")
	e.failCommit()
	e.refused(idem.ErrBroken, idem.Request{Key: "other"})
	require.ErrorIs(t, wait.wait(e, "Wait").err, idem.ErrBroken)
	down := async(func() error { return e.s.Shutdown(e.ctx) })
	_ = down.wait(e, "Shutdown of a broken store")
	_, err := e.s.Get(e.ctx, "k")
	require.ErrorIs(t, err, idem.ErrClosed)
}

func (e *env) damage(key string) {
	e.t.Helper()
	e.h.Damage(e.t, e.dir, key)
}

func damaged(t *testing.T, e *env) {
	if e.h.Damage == nil {
		t.Skip("Harness.Damage is nil: the engine keeps nothing to be damaged")
	}
	e.open(idem.Options{})
	var tok idem.Token
	for _, key := range []string{"a", "bad", "c", "open bad"} {
		c := e.claim(idem.Request{Key: key, Fingerprint: printA})
		if key == "open bad" {
			tok = c.Token
			continue
		}
		require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("result of "+key)))
	}
	e.close()
	e.damage("bad")
	e.damage("open bad")
	e.open(e.opts)

	for _, key := range []string{"bad", "open bad"} {
		_, err := e.s.Get(e.ctx, key)
		require.ErrorIs(t, err, idem.ErrCorrupt, "Get")
		c, err := e.s.Claim(e.ctx, idem.Request{Key: key, Fingerprint: printA})
		require.ErrorIs(t, err, idem.ErrCorrupt, "Claim: never a grant, never a replay")
		require.Zero(t, c.Token)
		_, err = e.s.Wait(e.ctx, key)
		require.ErrorIs(t, err, idem.ErrCorrupt, "Wait")
		for name, op := range e.tokenOps() {
			require.ErrorIs(t, op(idem.Token{Key: key, Fence: tok.Fence}), idem.ErrCorrupt, name)
		}
	}
	many := e.s.ClaimMany(e.ctx, []idem.Request{{Key: "new"}, {Key: "bad"}, {Key: "a"}})
	require.NoError(t, many[0].Err, "every other key works")
	require.ErrorIs(t, many[1].Err, idem.ErrCorrupt)
	require.ErrorIs(t, many[2].Err, idem.ErrCompleted)
	for _, key := range []string{"a", "c"} {
		require.Equal(t, "result of "+key, string(e.refused(idem.ErrCompleted, idem.Request{Key: key, Fingerprint: printA}).Result))
	}
	if e.canScan() {
		var good, bad []string
		for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
			if err != nil {
				require.ErrorIs(t, err, idem.ErrCorrupt)
				bad = append(bad, r.Key)
				continue
			}
			good = append(good, r.Key)
		}
		require.ElementsMatch(t, []string{"bad", "open bad"}, bad)
		require.ElementsMatch(t, []string{"a", "c", "new"}, good)
		st := e.stats()
		require.Equal(t, 2, st.Corrupt)
		require.Equal(t, 2, st.Completed)
	}
	e.reopen() // none of the above changed the damaged record
	_, err := e.s.Get(e.ctx, "bad")
	require.ErrorIs(t, err, idem.ErrCorrupt)

	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "open bad"}), "an operator can remove it")
	e.absent("open bad")
	require.ErrorIs(t, e.s.Complete(e.ctx, tok, nil), idem.ErrFenced)
	require.Greater(t, e.claim(idem.Request{Key: "open bad"}).Token.Fence, tok.Fence)
}

func damagedSweep(t *testing.T, e *env) {
	if e.h.Damage == nil {
		t.Skip("Harness.Damage is nil: the engine keeps nothing to be damaged")
	}
	o := idem.Options{SweepSlice: 3}
	events := watch(&o, idem.SweepDone)
	e.open(o)
	e.expirer()
	for i := range 9 {
		e.completed(idem.Request{Key: fmt.Sprint("k", i)}, nil)
	}
	e.close()
	e.damage("k0")
	e.damage("k4")
	e.open(o)
	e.clock.Advance(100 * 24 * 3600 * 1e9)
	removed, err := e.s.Sweep(e.ctx, 100)
	require.NoError(t, err)
	require.Equal(t, 7, removed)
	ev := e.next("sweep", events)
	require.Equal(t, 7, ev.Count)
	require.Equal(t, 2, ev.Corrupt, "counted and passed over")
	for i := range 9 {
		key := fmt.Sprint("k", i)
		_, err := e.s.Get(e.ctx, key)
		if i == 0 || i == 4 {
			require.ErrorIs(t, err, idem.ErrCorrupt)
		} else {
			require.ErrorIs(t, err, idem.ErrNotFound)
		}
	}
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "k0"}))
	e.claim(idem.Request{Key: "k0"})
}
