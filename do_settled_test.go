package idem_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// D4, A6: work that has settled its claim by itself, in its own commit for one, has not
// lost it. What it still does is not cancelled, however long that takes.
func TestDoSettledByItself(t *testing.T) {
	for name, settle := range map[string]func(context.Context, *idem.Store, idem.Token) error{
		"completed": func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Complete(ctx, t, []byte("7")) },
		"failed":    func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Fail(ctx, t, []byte("no")) },
		"held":      func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Hold(ctx, t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				_, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, c idem.Claim) (int, error) {
					require.NoError(t, settle(ctx, s, c.Token))
					time.Sleep(time.Hour)
					assert.NoError(t, context.Cause(ctx))
					return 7, nil
				})
				if name == "failed" {
					require.Equal(t, idem.ErrFailed, err)
					return
				}
				require.NoError(t, err, "the value is the one that is recorded")
				assert.Equal(t, "7", string(get(t, s, "k").Result))
			})
		})
	}
}

// D4: a claim that its holder holds, and somebody else forgets, is lost like any other.
func TestDoHeldAndLost(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		_, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, c idem.Claim) (int, error) {
			require.NoError(t, s.Hold(ctx, c.Token, nil))
			time.Sleep(time.Hour)
			require.NoError(t, ctx.Err())
			require.NoError(t, s.Forget(ctx, idem.Token{Key: "k"}))
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		require.ErrorIs(t, err, idem.ErrFenced)
	})
}
