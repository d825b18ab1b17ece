package txbackend

import (
	"testing"

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
	require.Equal(t, 1, e.gets(func() { require.NoError(t, e.s.Forget(ctx, idem.Token{Key: "j"})) }))
	require.Equal(t, 1, e.gets(func() { require.Equal(t, idem.ErrFenced, e.s.Complete(ctx, token, nil)) }))
}

// Two claims that both found nothing and share a commit: what the second saw
// does not count any more once the first has run.
func TestOneCommitGrantsAKeyOnce(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
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

// The same in a commit that is begun again: a function that was done in the
// first pass, and fails in the next, leaves the key to the claim that came after it.
func TestCommitBegunAgainGrantsAKeyOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		runs := 0
		fickle := sameCommit(func(*fakeTx) ([]byte, error) {
			if runs++; runs > 1 {
				return nil, errDisk
			}
			return nil, nil
		})
		var done, first, second, update error
		e.together(
			func() { _, _, done = e.s.DoEffect(ctx, idem.Request{Key: "k"}, fickle) },
			func() { _, first = e.s.Claim(ctx, idem.Request{Key: "k"}) },
			func() { _, second = e.s.Claim(ctx, idem.Request{Key: "k"}) },
			func() { update = e.b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) { return nil, errDisk })) },
		)
		require.Equal(t, errDisk, update)
		if spoils {
			require.Equal(t, []error{errDisk, nil, idem.ErrInFlight}, []error{done, first, second})
			require.Equal(t, idem.InFlight, e.state("k"))
		} else {
			require.Equal(t, []error{nil, idem.ErrCompleted, idem.ErrCompleted}, []error{done, first, second})
			require.Equal(t, idem.Completed, e.state("k"))
		}
	})
}
