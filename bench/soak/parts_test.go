package main

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/idemkv/idem"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	m := newMeter()
	m.add(complete, time.Second)
	m.add(get, -1)
	calls, since := m.take()
	assert.EqualValues(t, 2, calls)
	assert.EqualValues(t, 1, since[complete].n)
	assert.InEpsilon(t, time.Second, since[complete].p99, 0.01)
	calls, since = m.take()
	assert.EqualValues(t, 2, calls)
	assert.Zero(t, since[complete].n)
	assert.EqualValues(t, 1, m.all()[get].n)
	m.add(get, time.Hour)
	assert.EqualValues(t, 2, m.all()[get].n, "what is out of range counts as the longest")
}

func TestResultOf(t *testing.T) {
	t.Parallel()
	sizes := map[bool]int{}
	for fence := range uint64(500) {
		a := resultOf("k", fence)
		require.Equal(t, a, resultOf("k", fence))
		require.NotEqual(t, a, resultOf("l", fence))
		require.NotEqual(t, a, resultOf("k", fence+1))
		sizes[len(a) > 4096]++
	}
	assert.Positive(t, sizes[true])
	assert.Greater(t, sizes[false], 400)

	ok := idem.Record{Key: "k", Fence: 3, Result: resultOf("k", 3)}
	assert.NoError(t, badReplay("k", ok))
	assert.Error(t, badReplay("l", ok), "another key's")
	cut := ok
	cut.Result = cut.Result[1:]
	assert.Error(t, badReplay("k", cut))
	assert.NoError(t, badReplay("effect-1", idem.Record{Key: "effect-1", Fence: 3, Result: resultOf("effect-1", effectFence)}))
}

// Calls come evenly, and what a stall put off by more than a second is not made good.
func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		wait := func(l *rate.Limiter, calls int) time.Duration {
			start := time.Now()
			for range calls {
				await(ctx, l)
			}
			return time.Since(start).Round(time.Millisecond)
		}
		start := time.Now()
		l := newLimiter(100)
		assert.Equal(t, time.Second, wait(l, 100))
		time.Sleep(time.Minute)
		assert.Equal(t, time.Second, wait(l, 200))
		assert.Zero(t, wait(newLimiter(0), 1000))
		assert.Equal(t, 10*time.Second, wait(newLimiter(0.1), 1))
		wait(newLimiter(1e-6), 1)
		assert.Equal(t, time.Hour, time.Since(start), "no call before it is due but at the end")
	})
}

func TestPools(t *testing.T) {
	t.Parallel()
	r := ring[int]{bound: 3}
	for i := range 5 {
		assert.Equal(t, i >= 3, r.full())
		r.put(i)
	}
	assert.ElementsMatch(t, []int{2, 3, 4}, r.all())
	_, ok := r.takeIf(func(n int) bool { return n == 9 })
	assert.False(t, ok)
	v, ok := r.takeIf(func(n int) bool { return n == 3 })
	assert.True(t, ok)
	assert.Equal(t, 3, v)
	r.put(5)
	assert.ElementsMatch(t, []int{2, 4, 5}, r.all())

	old := recent{keep: 10}
	_, ok = old.pick(rand.IntN)
	assert.False(t, ok)
	for i := range 30 {
		old.put(string(rune('a'+i)), time.Duration(i))
	}
	all := old.all()
	assert.Len(t, all, 11)
	assert.EqualValues(t, 19, all[0].at)
	key, ok := old.pick(func(n int) int { return n - 1 })
	assert.True(t, ok)
	assert.Equal(t, string(rune('a'+29)), key)
	for range maxRecent + 10 {
		old.put("k", 29)
	}
	assert.Len(t, old.all(), maxRecent)
}
