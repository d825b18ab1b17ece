package idemhttp

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The middleware reads back every key that the client writes, also when it is strict.
func TestFormatKeyIsParsed(t *testing.T) {
	t.Parallel()
	check := func(key string) {
		value, err := FormatKey(key)
		require.NoError(t, err)
		got, wrong := parseKey([]string{value}, true)
		require.Empty(t, wrong)
		require.Equal(t, key, got)
	}
	for a := byte(' '); a <= '~'; a++ {
		check(string(a))
		for b := byte(' '); b <= '~'; b++ {
			check(string([]byte{a, b}))
		}
	}
	for range 100 {
		key, err := randomKey(nil)
		require.NoError(t, err)
		check(key)
	}
}

func TestRandomKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10_000 {
		key, err := randomKey(nil)
		require.NoError(t, err)
		require.False(t, seen[key])
		seen[key] = true
	}
}

// Full jitter: each tenth of the range below the bound is met.
func TestBackoffSpread(t *testing.T) {
	t.Parallel()
	for tries, bound := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 50: 5 * time.Second} {
		var tenths [10]int
		for range 1000 {
			tenths[10*backoff(time.Second, 5*time.Second, tries)/bound]++
		}
		for i, n := range tenths {
			assert.Greater(t, n, 30, "tenth %d below %v", i, bound) // of 100; less once in 10^13
		}
	}
}

func TestBackoffBounds(t *testing.T) {
	t.Parallel()
	assert.Zero(t, backoff(0, time.Second, 1))
	assert.Zero(t, backoff(-1, time.Second, 9))
	assert.Zero(t, backoff(1, -1, 9))
	for range 1000 {
		assert.Less(t, backoff(time.Hour, time.Second, 1), time.Second, "the most counts")
		assert.Less(t, backoff(1, time.Second, math.MaxInt), time.Second)
		assert.GreaterOrEqual(t, backoff(math.MaxInt64/2, math.MaxInt64, 100), time.Duration(0), "no overflow")
	}
}
