package main

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// made is a series of n samples a second apart.
func made(n int, f func(i int) float64) series {
	s := series{name: "made"}
	for i := range n {
		s.at = append(s.at, float64(i))
		s.value = append(s.value, f(i))
	}
	return s
}

func limitOf(t *testing.T, name string) limit {
	t.Helper()
	for _, m := range measures {
		if m.name == name {
			require.NotNil(t, m.limit)
			return *m.limit
		}
	}
	t.Fatalf("nothing is named %q", name)
	return limit{}
}

// What must be found, and what must not be taken for growth, whatever the noise.
func TestJudge(t *testing.T) {
	t.Parallel()
	const n, warm, rate = 240, 60, 400
	for name, c := range map[string]struct {
		measure string
		value   func(i int, noise func(amplitude float64) float64) float64
		flat    bool
	}{
		"goroutines that come and go": {"goroutines", func(i int, noise func(float64) float64) float64 { return math.Round(40 + noise(10)) }, true},
		"a goroutine leaked every 1,000 calls": {"goroutines", func(i int, noise func(float64) float64) float64 {
			return math.Round(40 + noise(10) + float64(i*rate/1000))
		}, false},
		"a descriptor leaked every 5,000 calls": {"open files", func(i int, noise func(float64) float64) float64 {
			return math.Round(20 + noise(4) + float64(i*rate/5000))
		}, false},
		"descriptors of tables that come and go": {"open files", func(i int, noise func(float64) float64) float64 { return math.Round(30 + noise(10)) }, true},
		"a file that grows steadily":             {"size", func(i int, noise func(float64) float64) float64 { return 10*mib + 0.05*mib*float64(i) }, false},
		"a file that grows in chunks": {"size", func(i int, noise func(float64) float64) float64 {
			return 16 * mib * (1 + math.Floor(float64(i)/50))
		}, false},
		"a file that grew while it was warming up": {"size", func(i int, noise func(float64) float64) float64 { return min(float64(i), warm) * mib }, true},
		"a file that takes one more small chunk": {"size", func(i int, noise func(float64) float64) float64 {
			if i > 150 {
				return 18 * mib
			}
			return 16 * mib
		}, true},
		"a saw-tooth": {"size", func(i int, noise func(float64) float64) float64 {
			return 6*mib + 4*mib*math.Mod(float64(i), 17)/17 + noise(mib/4)
		}, true},
		"a saw-tooth on a slope": {"size", func(i int, noise func(float64) float64) float64 {
			return 6*mib + 4*mib*math.Mod(float64(i), 17)/17 + noise(mib/4) + 0.04*mib*float64(i)
		}, false},
		"a saw-tooth of which every tooth is higher": {"size", func(i int, noise func(float64) float64) float64 {
			return 6*mib + mib*(4+float64(i)/20)*math.Mod(float64(i), 17)/17
		}, false},
		"a heap between collections": {"heap", func(i int, noise func(float64) float64) float64 { return 30*mib + noise(6*mib) }, true},
		"a heap that keeps a bit of every call": {"heap", func(i int, noise func(float64) float64) float64 {
			return 30*mib + noise(6*mib) + float64(i)*rate*200
		}, false},
		"spikes":                     {"heap", func(i int, noise func(float64) float64) float64 { return 30*mib + 300*mib*float64(i/7%5/4) }, true},
		"what shrinks":               {"heap", func(i int, noise func(float64) float64) float64 { return (100 - float64(i)/4) * mib }, true},
		"nothing at all":             {"open files", func(i int, noise func(float64) float64) float64 { return 0 }, true},
		"records that pile up":       {"records live", func(i int, noise func(float64) float64) float64 { return 2000 + 20*float64(i) }, false},
		"a sweep that falls behind":  {"records expired", func(i int, noise func(float64) float64) float64 { return noise(50) + 100 + 10*float64(i) }, false},
		"a sweep that keeps up":      {"records expired", func(i int, noise func(float64) float64) float64 { return 100 + noise(100) }, true},
		"growth with gaps in it":     {"heap", func(i int, noise func(float64) float64) float64 { return gap(i, 30*mib+mib*float64(i)) }, false},
		"flat with gaps in it":       {"heap", func(i int, noise func(float64) float64) float64 { return gap(i, 30*mib+noise(mib)) }, true},
		"growth in the warm-up only": {"records live", func(i int, noise func(float64) float64) float64 { return min(float64(i), 50) * 100 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(10) {
				rng := rand.New(rand.NewPCG(seed, 0))
				noise := func(amplitude float64) float64 { return (2*rng.Float64() - 1) * amplitude }
				s := made(n, func(i int) float64 { return c.value(i, noise) })
				v := judge(s, warm, limitOf(t, c.measure))
				assert.Equal(t, c.flat, v.flat, "seed %d: %+v", seed, v)
				assert.Empty(t, v.why)
			}
		})
	}
}

func gap(i int, v float64) float64 {
	if i%3 == 0 {
		return math.NaN()
	}
	return v
}

// What was measured too seldom has not been shown to be flat; what cannot be measured
// here is not held against anybody.
func TestJudgeTooLittle(t *testing.T) {
	t.Parallel()
	rise := func(i int) float64 { return float64(i) }
	v := judge(made(minJudged+9, rise), 10, limit{})
	assert.False(t, v.flat)
	assert.Contains(t, v.why, "soak for longer")
	v = judge(made(minJudged+10, rise), 10, limit{})
	assert.False(t, v.flat)
	assert.Empty(t, v.why)
	assert.InDelta(t, minJudged-1, v.grew, 1e-9)

	v = judge(made(100, func(int) float64 { return math.NaN() }), 10, limit{})
	assert.True(t, v.flat)
	assert.Contains(t, v.why, "not measured")
	v = judge(made(100, func(i int) float64 {
		if i < 50 {
			return 1
		}
		return math.NaN()
	}), 49, limit{})
	assert.False(t, v.flat, "measured, but not after the warm-up")
}

func TestTheilSen(t *testing.T) {
	t.Parallel()
	s := made(101, func(i int) float64 { return 3 + 0.5*float64(i) })
	assert.InDelta(t, 0.5, theilSen(s.at, s.value), 1e-9)
	for i := 0; i < 101; i += 4 { // a quarter of it wild
		s.value[i] = 1e9
	}
	assert.InDelta(t, 0.5, theilSen(s.at, s.value), 0.1)
	assert.Zero(t, median(nil))
	assert.Equal(t, 2.0, median([]float64{3, 1, 2}))
	assert.Equal(t, 2.5, median([]float64{3, 1, 2, 4}))
}
