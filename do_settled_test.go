package idem_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// Work that has settled its claim by itself, in its own commit for one, has not lost it.
// What it still does is not cancelled, however long that takes.
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
				switch name {
				case "failed":
					require.ErrorIs(t, err, idem.ErrFailed)
					return
				case "held":
					require.Equal(t, idem.ErrHeld, err)
					assert.Equal(t, idem.Held, get(t, s, "k").State)
					return
				}
				require.NoError(t, err, "the value is the one that is recorded")
				assert.Equal(t, "7", string(get(t, s, "k").Result))
			})
		})
	}
}

// What the work has settled or held by itself stays so, whatever it returns then.
func TestDoLeavesAloneWhatTheWorkSettled(t *testing.T) {
	t.Parallel()
	settle := map[idem.State]func(context.Context, *idem.Store, idem.Token) error{
		idem.Completed: func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Complete(ctx, t, []byte("7")) },
		idem.Failed:    func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Fail(ctx, t, []byte("7")) },
		idem.Released:  func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Release(ctx, t, []byte("7")) },
		idem.Held:      func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Hold(ctx, t, []byte("7")) },
	}
	ends := map[string]error{
		"plain": errBoom, "permanent": idem.Permanent(errBoom), "unknown": idem.Unknown(errBoom), "retryable": idem.Retryable(errBoom),
	}
	for state, itself := range settle {
		for name, end := range ends {
			for _, hold := range []bool{false, true} {
				s := newStore(t, idem.Options{})
				r := idem.Request{Key: "k", HoldUnknown: hold}
				_, replayed, err := idem.Do(t.Context(), s, r, func(ctx context.Context, c idem.Claim) (int, error) {
					require.NoError(t, itself(ctx, s, c.Token))
					return 0, end
				})
				require.ErrorIs(t, err, errBoom)
				require.False(t, replayed)
				rec := get(t, s, "k")
				assert.Equal(t, state, rec.State, "%s, %v", name, hold)
				assert.Equal(t, "7", string(rec.Result))
				if state != idem.Released {
					assert.Equal(t, end, err, "there is nothing to add")
				}
			}
		}
	}
}

// Work that completes its claim with one value, and returns another, is answered with the
// one that duplicates get.
func TestDoReturnsWhatTheWorkRecorded(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{})
	do := func(key string, settle func(context.Context, idem.Token) error) (int, error) {
		v, replayed, err := idem.Do(t.Context(), s, idem.Request{Key: key}, func(ctx context.Context, c idem.Claim) (int, error) {
			require.NoError(t, settle(ctx, c.Token))
			return 8, nil
		})
		require.False(t, replayed)
		return v, err
	}
	v, err := do("completed", func(ctx context.Context, tok idem.Token) error { return s.Complete(ctx, tok, []byte("7")) })
	require.NoError(t, err)
	require.Equal(t, 7, v)
	_, err = do("failed", func(ctx context.Context, tok idem.Token) error { return s.Fail(ctx, tok, []byte("no money")) })
	require.ErrorIs(t, err, idem.ErrFailed)
	require.ErrorContains(t, err, "no money")
	_, err = do("no JSON", func(ctx context.Context, tok idem.Token) error { return s.Complete(ctx, tok, []byte("{")) })
	require.ErrorContains(t, err, "not JSON of a int")
	v, err = do("released", func(ctx context.Context, tok idem.Token) error { return s.Release(ctx, tok, nil) })
	require.Equal(t, idem.ErrFenced, err, "there is nothing to replay: the next call runs the work")
	require.Equal(t, 8, v)
	v, err = do("forgotten since", func(ctx context.Context, tok idem.Token) error {
		require.NoError(t, s.Complete(ctx, tok, []byte("7")))
		return s.Forget(ctx, tok)
	})
	require.ErrorIs(t, err, idem.ErrFenced)
	require.Equal(t, 8, v)
}

// A claim that its holder holds, and somebody else forgets, is lost like any other.
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
