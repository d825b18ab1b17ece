package idemtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var healthCases = []testCase{
	{"Health says what a claim would", health},
	{"Health of a full store", healthFull},
	{"Health of a broken store", healthBroken},
	{"KeyHash is the store's own, and stays", keyHash},
	{"Filter.KeyHash", filterKeyHash},
}

func health(t *testing.T, e *env) {
	s := e.spied()
	e.open(idem.Options{})
	require.NoError(t, e.s.Health(e.ctx))
	c := e.claim(idem.Request{Key: "k"})
	s.takeApplies()
	require.NoError(t, e.s.Health(e.ctx))
	require.Empty(t, s.takeApplies(), "it writes nothing")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	require.ErrorIs(t, e.s.Health(ctx), context.Canceled)

	down := e.startShutdown(e.ctx, "k")
	require.ErrorIs(t, e.s.Health(e.ctx), idem.ErrClosed, "shutting down: no new claims")
	require.NoError(t, e.s.Complete(e.ctx, c.Token, nil))
	require.NoError(t, down.wait(e, "Shutdown"))
	require.ErrorIs(t, e.s.Health(e.ctx), idem.ErrClosed)
}

func healthFull(t *testing.T, e *env) {
	tokens := e.fill(64, idem.Request{Lease: time.Hour, Retention: time.Hour})
	if _, ok := e.backend.(engine.Checker); !ok {
		t.Skip("the engine does not tell whether it is full")
	}
	// An engine's bound may be a little soft. It counts as full if the claims before and
	// after the call are both refused.
	for i := 0; ; i++ {
		require.Less(t, i, 100, "never full for two claims in a row")
		before := e.tryNew(fmt.Sprint("before ", i))
		err := e.s.Health(e.ctx)
		after := e.tryNew(fmt.Sprint("after ", i))
		if before != nil && after != nil {
			require.ErrorIs(t, err, idem.ErrFull)
			require.Greater(t, len(err.Error()), len(idem.ErrFull.Error()), "it says of what")
			break
		}
	}
	for _, tok := range tokens {
		require.NoError(t, e.s.Forget(e.ctx, tok))
	}
	require.NoError(t, e.s.Health(e.ctx), "there is room again")
	e.claim(idem.Request{Key: "another"})
}

// tryNew claims key, and returns ErrFull if it is refused for that.
func (e *env) tryNew(key string) error {
	e.t.Helper()
	_, err := e.s.Claim(e.ctx, idem.Request{Key: key, Lease: time.Hour, Retention: time.Hour})
	require.True(e.t, err == nil || errors.Is(err, idem.ErrFull), "Claim: %v", err)
	return err
}

func healthBroken(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.failCommit()
	e.refused(idem.ErrBroken, idem.Request{Key: "k"})
	require.ErrorIs(t, e.s.Health(e.ctx), idem.ErrBroken)
	_ = e.closeStore(e.s)
	require.ErrorIs(t, e.s.Health(e.ctx), idem.ErrClosed, "closed outranks broken")
}

func keyHash(t *testing.T, e *env) {
	e.open(idem.Options{})
	keys := []string{"k", "K", "k\x00", "another", "\xff"}
	hashes := map[string]string{}
	seen := map[string]bool{}
	for _, key := range keys {
		h := e.s.KeyHash(key)
		require.NotEmpty(t, h)
		require.Equal(t, h, e.s.KeyHash(key))
		require.NotContains(t, h, key)
		require.False(t, seen[h], "two keys share %q", h)
		hashes[key], seen[h] = h, true
	}
	// Without the store's secret, a key cannot be recognized by its hash.
	dir := e.dir
	e.close() // without a commit
	e.dir = t.TempDir()
	e.open(idem.Options{})
	for _, key := range keys {
		require.NotEqual(t, hashes[key], e.s.KeyHash(key), "two stores share a secret")
	}
	if e.h.Volatile {
		return
	}
	e.close()
	e.dir = dir
	e.open(idem.Options{})
	check := func() {
		t.Helper()
		for _, key := range keys {
			require.Equal(t, hashes[key], e.s.KeyHash(key))
		}
	}
	check()
	e.claim(idem.Request{Key: "k"})
	e.reopen()
	check()
	if e.h.Crash != nil {
		e.claim(idem.Request{Key: "another"})
		e.crash()
		check()
	}
}

func filterKeyHash(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.scanner()
	for i := range 30 {
		key := fmt.Sprint("k", i)
		c := e.claim(idem.Request{Key: key})
		if i%2 == 0 {
			require.NoError(t, e.s.Complete(e.ctx, c.Token, nil))
		}
	}
	check := func() {
		t.Helper()
		for i := range 30 {
			key := fmt.Sprint("k", i)
			found := e.records(idem.Filter{KeyHash: e.s.KeyHash(key)})
			require.Len(t, found, 1)
			require.Contains(t, found, key)
			found = e.records(idem.Filter{KeyHash: e.s.KeyHash(key), State: idem.InFlight})
			require.Len(t, found, i%2, "all fields of a filter count")
			require.Empty(t, e.records(idem.Filter{KeyHash: e.s.KeyHash(key), Prefix: "x"}))
		}
		require.Empty(t, e.records(idem.Filter{KeyHash: e.s.KeyHash("absent")}))
		require.Empty(t, e.records(idem.Filter{KeyHash: "k1"}), "a key is no hash")
	}
	e.alsoReopened(check)
}
