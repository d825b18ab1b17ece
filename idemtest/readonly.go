package idemtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var readOnlyCases = []testCase{
	{"a store opened read-only answers and changes nothing", readOnly},
	{"a store opened read-only is read by several at once", readOnlyTogether},
	{"closing a store opened read-only saves nothing", readOnlySavesNothing},
	{"Verify finds nothing in a whole store", verifyWhole},
	{"Verify names a damaged record and goes on", verifyDamaged},
}

// openReadOnly opens the case's folder for reading; the store on it is closed.
func (e *env) openReadOnly(o idem.Options) *idem.Store {
	e.t.Helper()
	e.durable()
	if e.h.OpenReadOnly == nil {
		e.t.Skip("the engine cannot be opened read-only")
	}
	return e.openWith(o, e.h.OpenReadOnly(e.t, e.dir))
}

func readOnly(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute, Retention: day})
	inFlight := e.claim(idem.Request{Key: "in flight"})
	held := e.claim(idem.Request{Key: "held"})
	require.NoError(t, e.s.Hold(e.ctx, held.Token, []byte("note")))
	e.completed(idem.Request{Key: "done"}, []byte("result"))
	e.completed(idem.Request{Key: "expired", Retention: time.Second}, nil)
	e.clock.Advance(time.Second)
	want := map[string]idem.Record{}
	for _, key := range []string{"in flight", "held", "done"} {
		want[key] = e.get(key)
	}
	scans := e.canScan()
	e.close()

	s := e.spied()
	o := e.opts
	o.SweepInterval = time.Second
	e.openReadOnly(o)
	for range 2 {
		for key, r := range want {
			e.same(r, e.get(key))
		}
		e.absent("expired")
		if scans {
			require.Len(t, e.records(idem.Filter{}), len(want))
			require.Equal(t, 1, e.stats().Completed)
		}
		r, err := e.s.Wait(e.ctx, "done")
		require.NoError(t, err)
		require.Equal(t, "result", string(r.Result))

		changes := map[string]error{
			"Claim":      func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "new"}); return err }(),
			"of a key":   func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "done"}); return err }(),
			"ClaimMany":  e.s.ClaimMany(e.ctx, []idem.Request{{Key: "new"}})[0].Err,
			"Unclaim":    e.s.Unclaim(e.ctx, inFlight.Token),
			"Forget":     e.s.Forget(e.ctx, inFlight.Token),
			"Forget any": e.s.Forget(e.ctx, idem.Token{Key: "done"}),
			"Health":     e.s.Health(e.ctx),
		}
		for op, do := range e.tokenOps() {
			changes[op] = do(inFlight.Token)
			changes[op+" of a held one"] = do(held.Token)
		}
		_, changes["Sweep"] = e.s.Sweep(e.ctx, 10)
		_, _, changes["Do"] = idem.Do(e.ctx, e.s, idem.Request{Key: "new"}, func(context.Context, idem.Claim) (string, error) {
			t.Error("Do runs its function")
			return "", nil
		})
		for what, err := range changes {
			require.ErrorIs(t, err, idem.ErrInvalid, what)
			require.ErrorContains(t, err, "read-only", what)
		}
		require.Empty(t, s.takeApplies(), "the engine is not asked")
		require.Zero(t, e.clock.Pending(), "no sweeper waits")
	}
	require.NoError(t, e.s.Shutdown(e.ctx))
	_, err := e.s.Claim(e.ctx, idem.Request{Key: "new"})
	require.ErrorIs(t, err, idem.ErrClosed, "it outranks the rest")

	e.wrap, o.SweepInterval = nil, 0
	e.open(o)
	for key, r := range want {
		e.same(r, e.get(key))
	}
	require.NoError(t, e.s.Complete(e.ctx, inFlight.Token, nil))
}

func readOnlyTogether(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.completed(idem.Request{Key: "k"}, []byte("result"))
	e.close()
	var stores []*idem.Store
	for range 3 {
		stores = append(stores, e.openReadOnly(idem.Options{}))
	}
	if e.h.OpenAgain != nil {
		require.ErrorIs(t, e.h.OpenAgain(t, e.dir), idem.ErrLocked, "nobody writes meanwhile")
	}
	for len(stores) > 0 {
		for _, s := range stores {
			r, err := s.Get(e.ctx, "k")
			require.NoError(t, err)
			require.Equal(t, "result", string(r.Result))
		}
		require.NoError(t, e.closeStore(stores[0]))
		stores = stores[1:]
	}
	e.open(idem.Options{})
	e.refused(idem.ErrCompleted, idem.Request{Key: "k"})
}

// readOnlySavesNothing: neither the time, nor the number of the opening, nor the secret.
func readOnlySavesNothing(t *testing.T, e *env) {
	e.open(idem.Options{})
	hash := e.s.KeyHash("k")
	e.close()
	s := e.spied()
	e.openReadOnly(idem.Options{LapseOnOpen: true})
	saved := s.saved
	require.NotZero(t, saved.Time)
	require.Equal(t, hash, e.s.KeyHash("k"))
	e.clock.Advance(time.Hour)
	e.close()
	e.clock.Advance(time.Hour)
	e.openReadOnly(idem.Options{})
	require.Equal(t, saved, s.saved)
	e.close()
}

// verify returns what Verify reports.
func (e *env) verify() (found []engine.Damage) {
	e.t.Helper()
	v, ok := e.backend.(engine.Verifier)
	if !ok {
		e.t.Skip("the engine cannot be verified")
	}
	last, total := int64(-1), int64(0)
	ctx := engine.WithProgress(e.ctx, func(done, of int64) {
		if done < last || done > of {
			e.t.Errorf("progress goes from %d to %d of %d", last, done, of)
		}
		last, total = done, of
	})
	require.NoError(e.t, v.Verify(ctx, func(d engine.Damage) { found = append(found, d) }))
	require.Equal(e.t, total, last, "the end is told")
	return found
}

func verifyWhole(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute, Retention: time.Hour})
	require.Empty(t, e.verify(), "an empty store")
	for i := range 300 {
		r := idem.Request{Key: fmt.Sprint("k", i), Lease: time.Duration(i+1) * time.Minute}
		if i%7 == 0 {
			r.Retention = idem.Forever
		}
		tok := e.claim(r).Token
		var err error
		switch i % 5 {
		case 0:
			err = e.s.Complete(e.ctx, tok, make([]byte, i*50))
		case 1:
			err = e.s.Hold(e.ctx, tok, nil)
		case 2:
			err = e.s.Release(e.ctx, tok, []byte("why"))
		case 3:
			err = e.s.Forget(e.ctx, tok)
		}
		require.NoError(t, err)
	}
	require.Empty(t, e.verify())
	e.clock.Advance(90 * time.Minute)
	e.sweepAll()
	require.Empty(t, e.verify(), "after a sweep")
	e.alsoReopened(func() { require.Empty(t, e.verify()) })

	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	err := e.backend.(engine.Verifier).Verify(ctx, func(engine.Damage) {})
	require.ErrorIs(t, err, context.Canceled)
	e.close()
	require.ErrorIs(t, e.backend.(engine.Verifier).Verify(e.ctx, func(engine.Damage) {}), idem.ErrClosed)
}

func verifyDamaged(t *testing.T, e *env) {
	if e.h.Damage == nil {
		t.Skip("the engine stores nothing that could be damaged")
	}
	e.open(idem.Options{Retention: day})
	const n, bad = 40, "k17"
	for i := range n {
		e.completed(idem.Request{Key: fmt.Sprint("k", i)}, []byte("result"))
	}
	hash := e.s.KeyHash(bad)
	e.close()
	e.h.Damage(t, e.dir, bad)
	check := func() {
		t.Helper()
		named := 0
		for _, d := range e.verify() {
			require.NotEmpty(t, d.What)
			require.NotContains(t, d.Err.Error(), bad, "it names no key")
			if d.KeyHash == hash {
				named++
				require.Equal(t, "record", d.What)
				require.ErrorIs(t, d.Err, idem.ErrCorrupt)
			}
		}
		require.NotZero(t, named, "the damaged record is named by its hash")
		_, err := e.s.Get(e.ctx, bad)
		require.ErrorIs(t, err, idem.ErrCorrupt)
	}
	if e.h.OpenReadOnly != nil {
		e.openReadOnly(e.opts)
		check()
		e.close()
	}
	e.open(e.opts)
	check()
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: bad}))
	for _, d := range e.verify() {
		require.NotEqual(t, "record", d.What, "%v: what is left is a place in the index", d.Err)
	}
}
