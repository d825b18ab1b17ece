package idem_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/memory"
)

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for field, bad := range map[string][]idem.Options{
		"Lease":       {{Lease: -1}, {Lease: math.MinInt64}},
		"Retention":   {{Retention: -time.Hour}},
		"MaxAttempts": {{MaxAttempts: -1}},
		"MaxResult":   {{MaxResult: -1}, {MaxResult: 256<<20 + 1}},
		"MaxBatch":    {{MaxBatch: -1}},
		"SweepSlice":  {{SweepSlice: -1}},
	} {
		for _, o := range bad {
			t.Run(field, func(t *testing.T) {
				t.Parallel()
				b := memory.New(memory.Options{})
				s, err := idem.New(b, o)
				require.ErrorIs(t, err, idem.ErrInvalid)
				assert.Nil(t, s)
				assert.Contains(t, err.Error(), "Options."+field+" is ")

				s, err = idem.New(b, idem.Options{})
				require.NoError(t, err, "the backend is still the caller's")
				require.NoError(t, s.Close())
			})
		}
	}
}

func TestMaxAttemptsOverItsRange(t *testing.T) {
	t.Parallel()
	if math.MaxInt == math.MaxInt32 {
		t.Skip("an int cannot be over the range here")
	}
	over := int64(math.MaxUint32) + 1
	_, err := idem.New(memory.New(memory.Options{}), idem.Options{MaxAttempts: int(over)})
	require.ErrorIs(t, err, idem.ErrInvalid)
	assert.Contains(t, err.Error(), "Options.MaxAttempts is ")
}

func TestBadBackend(t *testing.T) {
	t.Parallel()
	for _, b := range []engine.Backend{nil, (*memory.Backend)(nil)} {
		_, err := idem.New(b, idem.Options{})
		require.ErrorIs(t, err, idem.ErrInvalid)
		assert.Contains(t, err.Error(), "backend is nil")
	}

	b := memory.New(memory.Options{})
	s, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	_, err = idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrInvalid, "in use by another store")
	require.NoError(t, s.Close())
	_, err = idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrClosed)
}

// The defaults are what each field says they are.
func TestDefaultOptions(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock})
	ctx := t.Context()
	c, err := s.Claim(ctx, idem.Request{Key: "k"})
	require.NoError(t, err)
	assert.Equal(t, 30*time.Second, c.Record.LeaseUntil.Sub(c.Record.ClaimedAt))
	assert.Equal(t, 30*time.Second+24*time.Hour, c.Record.ExpiresAt.Sub(c.Record.ClaimedAt))

	require.NoError(t, s.Checkpoint(ctx, c.Token, make([]byte, 1<<20)), "MaxResult is 1 MiB")
	require.ErrorIs(t, s.Checkpoint(ctx, c.Token, make([]byte, 1<<20+1)), idem.ErrTooLarge)

	rs := make([]idem.Request, 1001)
	for i := range rs {
		rs[i].Key = strings.Repeat("b", i+1)
	}
	results := s.ClaimMany(ctx, rs[:1001])
	require.NoError(t, results[999].Err, "MaxBatch is 1,000")
	require.ErrorIs(t, results[1000].Err, idem.ErrInvalid)

	for range 100 { // MaxAttempts is unlimited
		clock.Advance(30 * time.Second)
		c, err = s.Claim(ctx, idem.Request{Key: "k"})
		require.NoError(t, err)
	}
	assert.Equal(t, 101, c.Record.Attempt)
	require.NoError(t, s.Complete(ctx, c.Token, nil))
	r, err := s.Get(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, 24*time.Hour, r.ExpiresAt.Sub(r.FinishedAt))
}
