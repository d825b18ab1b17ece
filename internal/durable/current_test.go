package durable

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// gets returns how many reads fn makes in transactions.
func (e *env) gets(fn func()) (n int) {
	e.fake.at(func(p point, _ string) error {
		if p == getting {
			n++
		}
		return nil
	})
	defer e.fake.at(nil)
	fn()
	return n
}

// What the store knows is not read for in a commit, where everybody waits for it.
func TestKnownEntriesAreNotRead(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	require.Zero(t, e.gets(func() { e.completed("k", "r") }))
	token := e.claim("j")
	require.Equal(t, 1, e.gets(func() { require.NoError(t, e.s.Forget(ctx, "j")) }))
	require.Equal(t, 1, e.gets(func() { require.Equal(t, idem.ErrFenced, e.s.Complete(ctx, token, nil)) }))
}

// A1: two claims that both found nothing and share a commit: what the second saw
// does not count any more once the first has run.
func TestOneCommitGrantsAKeyOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t)
		var first, second error
		require.Zero(t, e.gets(func() {
			e.together(
				func() { _, first = e.s.Claim(ctx, idem.Request{Key: "k"}) },
				func() { _, second = e.s.Claim(ctx, idem.Request{Key: "k"}) },
			)
		}), "the commit's own change is known too")
		require.NoError(t, first)
		require.Equal(t, idem.ErrInFlight, second)
	})
}
