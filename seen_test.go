package idem_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A claim brings what it read, and its completion what the claim left, so that
// neither is read for in the commit.
func TestCommitsNeedNoRead(t *testing.T) {
	t.Parallel()
	b := newStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	known := func(want bool, what string, do func()) {
		t.Helper()
		before := b.known.Load()
		do()
		assert.Equal(t, want, b.known.Load() > before, what)
	}
	var c idem.Claim
	known(true, "a claim of a new key", func() { c = mustClaim(t, s, k) })
	known(true, "a checkpoint", func() { require.NoError(t, s.Checkpoint(ctx, c.Token, []byte("half"))) })
	known(true, "an extension", func() { require.NoError(t, s.Extend(ctx, c.Token, time.Hour)) })
	other := idem.Token{Key: "other", Fence: c.Token.Fence}
	known(false, "a token of another key with this fence", func() {
		require.Equal(t, idem.ErrFenced, s.Complete(ctx, other, nil))
	})
	known(true, "a completion", func() { require.NoError(t, s.Complete(ctx, c.Token, []byte("r"))) })
	known(false, "the same again: what is settled is let go", func() {
		require.NoError(t, s.Complete(ctx, c.Token, []byte("r")))
	})
	known(false, "nothing is known to Forget", func() { require.NoError(t, s.Forget(ctx, "k")) })
	rs := s.ClaimMany(ctx, []idem.Request{{Key: "a"}, {Key: "b"}, {Key: "a"}})
	require.NoError(t, rs[0].Err)
	require.NoError(t, rs[1].Err)
	require.Equal(t, idem.ErrInFlight, rs[2].Err)
	assert.Zero(t, b.mistaken.Load())
}

// A1: of claims that all found nothing one is granted: what the others saw is not
// current any more, whether the commit that changed it was under way when they
// looked or came after.
func TestWhatWasSeenIsOvertaken(t *testing.T) {
	t.Parallel()
	b := newStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	looked := make(chan struct{})
	b.afterGet = func(string) {
		b.afterGet = nil
		close(looked)
		mustClaim(t, s, k) // overtakes the reader
	}
	_, err := s.Claim(ctx, k)
	<-looked
	require.Equal(t, idem.ErrInFlight, err)

	// And by a commit that had begun.
	second := idem.Request{Key: "second"}
	var wg sync.WaitGroup
	b.onCommit = func() error {
		b.onCommit = nil
		wg.Add(1)
		read := make(chan struct{})
		b.afterGet = func(string) { b.afterGet = nil; close(read) }
		go func() {
			defer wg.Done()
			_, err := s.Claim(ctx, second)
			assert.Equal(t, idem.ErrInFlight, err)
		}()
		<-read
		return nil
	}
	mustClaim(t, s, second)
	wg.Wait()
	assert.Zero(t, b.mistaken.Load())
}

// Whatever is done to a few keys at once, what an operation brings along is what
// the engine has, or is not used.
func TestSeenIsNeverMistaken(t *testing.T) {
	t.Parallel()
	b := newStub()
	s := open(t, b, idem.Options{SweepInterval: -1, Lease: time.Nanosecond})
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			var tokens []idem.Token
			for range 400 {
				if len(tokens) == 0 || rng.IntN(3) == 0 {
					c, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint("k", rng.IntN(5))})
					if err == nil {
						tokens = append(tokens, c.Token)
					}
					continue
				}
				token := tokens[rng.IntN(len(tokens))]
				var err error
				switch rng.IntN(6) {
				case 0:
					err = s.Complete(ctx, token, nil)
				case 1:
					err = s.Release(ctx, token)
				case 2:
					err = s.Extend(ctx, token, 0)
				case 3:
					err = s.Checkpoint(ctx, token, []byte{byte(w)})
				case 4:
					err = s.Hold(ctx, token, nil)
				default:
					err = s.Forget(ctx, token.Key)
				}
				if errors.Is(err, idem.ErrInvalid) || errors.Is(err, idem.ErrBroken) {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	assert.Zero(t, b.mistaken.Load())
	assert.Positive(t, b.known.Load())
}
