package main

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A quantile is not below the true one and at most 1/32 above it.
func TestHistogram(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7))
	var h histogram
	assert.Equal(t, summary{}, h.summary())
	all := make([]time.Duration, 10_000)
	for i := range all {
		all[i] = time.Duration(math.Exp(rng.Float64() * 25))
		h.add(all[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		exact := all[int(math.Ceil(q*float64(len(all))))-1]
		got := h.quantile(q)
		assert.GreaterOrEqual(t, got, exact)
		assert.LessOrEqual(t, float64(got), float64(exact)*33/32+1)
	}
	assert.Equal(t, all[len(all)-1], h.max)
	for _, d := range []time.Duration{-1, 0, 1, 31, 32, 33, 63, 64, 1<<40 + 12345, math.MaxInt64} {
		b := bucketOf(d)
		require.Less(t, b, len(h.counts))
		assert.GreaterOrEqual(t, ceiling(b), max(d, 0))
		if b > 0 {
			assert.Less(t, ceiling(b-1), max(d, 0))
		}
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	m.add(complete, time.Second)
	m.add(get, time.Millisecond)
	calls, since := m.take()
	assert.EqualValues(t, 2, calls)
	assert.Equal(t, summary{1, time.Second, time.Second, time.Second}, since[complete])
	calls, since = m.take()
	assert.EqualValues(t, 2, calls)
	assert.Zero(t, since[complete].n)
	assert.Equal(t, 1, m.all()[get].n)
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

// Calls come evenly, and what a stall put off is not made good in a rush.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(100, 10) // each of ten workers every 100 ms
		start := time.Now()
		for range 11 {
			p.wait(context.Background())
		}
		assert.Equal(t, time.Second, time.Since(start))
		time.Sleep(500 * time.Millisecond) // short: caught up
		start = time.Now()
		for range 6 {
			p.wait(context.Background())
		}
		assert.Equal(t, 100*time.Millisecond, time.Since(start))
		time.Sleep(time.Minute)
		start = time.Now()
		p.wait(context.Background())
		p.wait(context.Background())
		assert.Equal(t, 100*time.Millisecond, time.Since(start))

		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		start = time.Now()
		p.wait(ctx)
		assert.Zero(t, time.Since(start))
		p = newPace(0, 1)
		p.wait(context.Background())
		assert.Zero(t, time.Since(start))
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

func TestUnits(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0": countUnit.format(0), "999": countUnit.format(999), "1.5k": countUnit.format(1500), "20M": countUnit.format(2e7),
		"0 B": byteUnit.format(0), "1 KiB": byteUnit.format(1024), "-3.5 MiB": byteUnit.format(-3.5 * mib),
		"1 s": secondUnit.format(1), "10 ms": secondUnit.format(0.01), "1 µs": secondUnit.format(1e-6), "-": countUnit.format(math.NaN()),
	} {
		assert.Equal(t, want, got)
	}
}

func TestAxis(t *testing.T) {
	t.Parallel()
	of := func(u unit, log bool, values ...float64) axis {
		p := panel{unit: u, log: log, lines: []line{{series: series{value: values}}}}
		return p.axis()
	}
	a := of(countUnit, false, 3, 43, math.NaN())
	assert.Equal(t, []float64{0, 20, 40, 60}, a.ticks)
	assert.InDelta(t, 0.5, a.share(30), 1e-9)
	assert.Equal(t, []float64{0, 1 << 20, 2 << 20, 3 << 20, 4 << 20}, of(byteUnit, false, 3.1*mib).ticks)
	a = of(secondUnit, true, 0, 0.002, 0.03)
	assert.Len(t, a.ticks, 3)
	assert.InDelta(t, 0.5, a.share(0.01), 1e-9)
	for _, empty := range []axis{of(countUnit, false), of(countUnit, true), of(countUnit, false, 0, 0), of(secondUnit, true, 0.01)} {
		assert.Greater(t, empty.high, empty.low)
		assert.NotEmpty(t, empty.ticks)
	}
	for end, n := range map[float64]int{1: 11, 30: 7, 300: 11, 600: 11, 7200: 9, 400_000: 11} {
		assert.InDelta(t, n, len(timeTicks(end)), 4, "%v", end)
	}
}
