package idem_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// settlers are the calls that end a claim, with what becomes of its record.
var settlers = map[string]struct {
	call func(ctx context.Context, s *idem.Store, t idem.Token) error
	want idem.State // 0: gone
}{
	"Complete": {func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Complete(ctx, t, nil) }, idem.Completed},
	"CompleteMany": {func(ctx context.Context, s *idem.Store, t idem.Token) error {
		return s.CompleteMany(ctx, []idem.Completion{{Token: t}})[0]
	}, idem.Completed},
	"Fail":    {func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Fail(ctx, t, nil) }, idem.Failed},
	"Release": {func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Release(ctx, t, nil) }, idem.Released},
	"Hold":    {func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Hold(ctx, t, nil) }, idem.Held},
	"Unclaim": {func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Unclaim(ctx, t) }, 0},
}

func settledAs(t *testing.T, s *idem.Store, want idem.State) {
	t.Helper()
	r, err := s.Get(context.Background(), "k")
	if want == 0 {
		require.Equal(t, idem.ErrNotFound, err)
		return
	}
	require.NoError(t, err)
	assert.Equal(t, want, r.State)
}

// The work is done, whatever became of its caller: its outcome is recorded.
func TestSettlingIgnoresTheEndOfContext(t *testing.T) {
	t.Parallel()
	for name, c := range settlers {
		t.Run(name+", ended before", func(t *testing.T) {
			t.Parallel()
			s := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
			claim := mustClaim(t, s, k)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.NoError(t, c.call(ctx, s, claim.Token))
			settledAs(t, s, c.want)
		})
		t.Run(name+", ends while it is queued", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := storetest.NewStub()
				s := open(t, b, idem.Options{SweepInterval: -1})
				claim := mustClaim(t, s, k)
				b.Turn <- struct{}{} // another commit is under way
				ctx, cancel := context.WithCancel(t.Context())
				answer := make(chan error, 1)
				go func() { answer <- c.call(ctx, s, claim.Token) }()
				synctest.Wait()
				cancel()
				synctest.Wait()
				require.Empty(t, answer, "it waits on")
				<-b.Turn
				require.NoError(t, <-answer)
				settledAs(t, s, c.want)
			})
		})
	}
}

// What does not settle anything is given up, and has then not been done.
func TestOthersHeedTheEndOfContext(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(ctx context.Context, s *idem.Store, t idem.Token) error{
		"Claim": func(ctx context.Context, s *idem.Store, _ idem.Token) error {
			_, err := s.Claim(ctx, idem.Request{Key: "new"})
			return err
		},
		"Extend":     func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Extend(ctx, t, 0) },
		"Checkpoint": func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Checkpoint(ctx, t, []byte("p")) },
		"Forget":     func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Forget(ctx, t) },
		"CompleteEffect": func(ctx context.Context, s *idem.Store, t idem.Token) error {
			return s.CompleteEffect(ctx, t, neverRun)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := storetest.NewStub()
				s := open(t, b, idem.Options{SweepInterval: -1})
				claim := mustClaim(t, s, k)
				was := get(t, s, "k")
				b.Turn <- struct{}{}
				ctx, cancel := context.WithCancel(t.Context())
				answer := make(chan error, 1)
				go func() { answer <- call(ctx, s, claim.Token) }()
				synctest.Wait()
				cancel()
				require.Equal(t, context.Canceled, <-answer)
				<-b.Turn
				assert.Equal(t, was, get(t, s, "k"))
				_, err := s.Get(t.Context(), "new")
				assert.Equal(t, idem.ErrNotFound, err)
			})
		})
	}
}

// Do's caller leaves while the claim is committed: the claim is undone, and not one
// attempt was used up.
func TestDoUndoesAClaimNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	leave := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		b.OnCommit = func() error { b.OnCommit = nil; cancel(); return nil }
		_, replayed, err := idem.Do(ctx, s, k, notRun[int])
		assert.False(t, replayed)
		return err
	}
	require.ErrorIs(t, leave(), context.Canceled)
	_, err := s.Get(t.Context(), "k")
	require.Equal(t, idem.ErrNotFound, err, "nothing is left of a first attempt")

	claim := mustClaim(t, s, k)
	require.NoError(t, s.Release(t.Context(), claim.Token, []byte("why")))
	require.ErrorIs(t, leave(), context.Canceled)
	r := get(t, s, "k")
	assert.Equal(t, idem.Released, r.State)
	assert.Equal(t, 1, r.Attempt)
	assert.Equal(t, "why", string(r.Result))
}
