package memory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func open(t *testing.T, o memory.Options) (*idem.Store, *memory.Backend, *idemtest.Clock) {
	t.Helper()
	b := memory.New(o)
	clock := idemtest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	s, err := idem.New(b, idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, b, clock
}

func size(t *testing.T, b *memory.Backend) int64 {
	t.Helper()
	n, err := b.Size()
	require.NoError(t, err)
	return n
}

// TestMaxRecords: the bound on records is exact, also for claims at once, and what
// leaves makes room for as much.
func TestMaxRecords(t *testing.T) {
	t.Parallel()
	const limit, callers = 50, 16
	s, _, _ := open(t, memory.Options{MaxRecords: limit})
	ctx := context.Background()
	var granted, full atomic.Int64
	var wg sync.WaitGroup
	for w := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range limit {
				switch _, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint(w, " ", i)}); {
				case err == nil:
					granted.Add(1)
				case errors.Is(err, idem.ErrFull):
					full.Add(1)
				}
			}
		}()
	}
	wg.Wait()
	require.EqualValues(t, limit, granted.Load())
	require.EqualValues(t, callers*limit-limit, full.Load())

	var keys []string
	for r, err := range s.Records(ctx, idem.Filter{}) {
		require.NoError(t, err)
		keys = append(keys, r.Key)
	}
	require.Len(t, keys, limit)
	for _, key := range keys[:3] {
		require.NoError(t, s.Forget(ctx, idem.Token{Key: key}))
	}
	for i := range 3 {
		_, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint("new ", i)})
		require.NoError(t, err)
	}
	_, err := s.Claim(ctx, idem.Request{Key: "one too many"})
	require.ErrorIs(t, err, idem.ErrFull)
	require.ErrorContains(t, err, "50 records, Options.MaxRecords")
	_, err = s.Claim(ctx, idem.Request{Key: keys[5]})
	require.ErrorIs(t, err, idem.ErrInFlight, "a key that is there takes no room")
}

// TestMaxBytes: bytes are counted as records grow, shrink and go, and a token
// operation may overshoot the bound.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	s, b, clock := open(t, memory.Options{MaxBytes: limit})
	ctx := context.Background()
	require.Zero(t, size(t, b))
	c, err := s.Claim(ctx, idem.Request{Key: "a", Retention: time.Second})
	require.NoError(t, err)
	empty := size(t, b)
	require.Greater(t, empty, int64(0))
	require.NoError(t, s.Checkpoint(ctx, c.Token, make([]byte, 1000)))
	require.Equal(t, empty+1000, size(t, b))
	require.NoError(t, s.Checkpoint(ctx, c.Token, make([]byte, 10)))
	require.Equal(t, empty+10, size(t, b))
	require.NoError(t, s.Complete(ctx, c.Token, make([]byte, 5000)))
	require.Equal(t, empty+5000, size(t, b), "the checkpoint is dropped")

	c, err = s.Claim(ctx, idem.Request{Key: "b"})
	require.NoError(t, err)
	result := bytes.Repeat([]byte("x"), limit)
	require.NoError(t, s.Complete(ctx, c.Token, result), "over the bound")
	_, err = s.Claim(ctx, idem.Request{Key: "c"})
	require.ErrorIs(t, err, idem.ErrFull)
	require.ErrorContains(t, err, "Options.MaxBytes")
	require.NoError(t, s.Forget(ctx, idem.Token{Key: "b"}))
	require.Equal(t, empty+5000, size(t, b))
	_, err = s.Claim(ctx, idem.Request{Key: "c"})
	require.NoError(t, err)

	// An expired record is replaced, and counted once.
	clock.Advance(time.Second)
	before := size(t, b)
	_, err = s.Claim(ctx, idem.Request{Key: "a"})
	require.NoError(t, err)
	require.Equal(t, before-5000, size(t, b))
	for _, key := range []string{"a", "b", "c"} {
		require.NoError(t, s.Forget(ctx, idem.Token{Key: key}))
	}
	require.Zero(t, size(t, b), "nothing is there, and nothing is counted")
}

// TestNoBound: negative bounds are none.
func TestNoBound(t *testing.T) {
	t.Parallel()
	s, b, _ := open(t, memory.Options{MaxRecords: -1, MaxBytes: -1})
	for i := range 2000 {
		_, err := s.Claim(context.Background(), idem.Request{Key: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	require.Greater(t, size(t, b), int64(2000))
}
