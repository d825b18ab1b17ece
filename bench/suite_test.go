package bench

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var cacheless = idem.Options{CacheBytes: -1}

// All that is measured of idem runs, from stores to report. The figures mean nothing.
func TestSmoke(t *testing.T) { // not parallel: it sets GOMAXPROCS and counts goroutines
	s := Suite{Plan: Smoke()}
	saved := 0
	out := t.TempDir()
	s.After = func(r *Results) error { saved++; return Save(out, r) }
	dir := t.TempDir()
	b := &Bench{Results: &Results{Header: Machine(dir)}, Dir: dir, Log: t.Logf}
	require.NoError(t, s.Measure(b))
	assert.False(t, b.Failed, "%v", b.Results.Notes)

	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "nothing stays behind")
	assert.Equal(t, 12, saved-1, "saved after each part")
	back, err := Load(filepath.Join(out, "raw.txt"))
	require.NoError(t, err)
	assert.Equal(t, len(b.Results.Rows), len(back.Rows))

	for group, backends := range map[string][]string{
		GetHit:        {"memory", "bolt", "bolt-uncached", "pebble", "pebble-uncached"},
		GetMiss:       {"memory", "bolt", "bolt-uncached", "pebble", "pebble-uncached"},
		ClaimReplay:   {"memory", "memory-get", "bolt", "bolt-uncached", "pebble", "pebble-uncached"},
		CycleMemory:   {"memory"},
		CycleDurable:  {"bolt", "pebble"},
		DoSameCommit:  {"bolt", "bolt-claim-complete", "bolt-claim-write-complete", "pebble", "pebble-claim-complete", "pebble-claim-write-complete"},
		SweepUnloaded: {"memory", "bolt", "pebble"},
		SweepLoaded:   {"memory", "bolt", "pebble"},
		ScaleHit:      {"memory", "bolt", "pebble"},
		ScaleMiss:     {"memory", "bolt", "pebble"},
		ScaleSize:     {"memory", "bolt", "pebble"},
		ScaleReopen:   {"bolt", "pebble"},
		ScaleGC:       {"memory"},
		Idle:          {"none", "memory", "bolt", "pebble"},
		OpenLoop:      {"bolt", "pebble"},
	} {
		got := b.Results.Distinct(where(group), "backend")
		assert.ElementsMatch(t, backends, got, group)
	}
	assert.Equal(t, []string{"1", "2"}, b.Results.numbers(where(GetHit, "backend", "bolt"), "procs"))
	assert.Equal(t, []string{"1", "4"}, b.Results.numbers(where(CycleDurable), "callers"))
	swept := uint64(0)
	for _, row := range b.Results.Rows {
		if row.Group == SweepUnloaded && row.Param("backend") == "bolt" {
			swept += row.Ops
		}
	}
	assert.Equal(t, uint64(512/64), swept, "in batches of 64")
	for _, unit := range []string{"disk-B/record", "raw-B/record", "heap-B/record"} {
		v, ok := b.Results.Median(where(ScaleSize, "backend", "pebble", "keys", "1e3"), unit)
		assert.True(t, ok && (v > KeyBytes+scaleResult || unit == "heap-B/record"), "%s: %v", unit, v)
	}
	unmeasured := 0
	for _, l := range Table(b.Results) {
		if l.Reached == "not measured" {
			unmeasured++
		}
	}
	assert.Less(t, unmeasured, 35, "what needs no rival is measured")
}

func TestSuiteRunsWhatIsAskedFor(t *testing.T) {
	s := Suite{Plan: Smoke().WithRounds(1), Run: regexp.MustCompile(`^Get/miss$`), Rivals: func(w Workload) []Contender {
		assert.Equal(t, GetMiss, w.Group)
		return []Contender{newRecorder().contender("rival", ok)}
	}}
	b := &Bench{Results: &Results{}, Dir: t.TempDir(), Only: func(name string) bool { return !strings.Contains(name, "pebble") }}
	require.NoError(t, s.Measure(b))
	assert.ElementsMatch(t, []string{"memory", "bolt", "bolt-uncached", "rival"}, b.Results.Distinct(where(GetMiss), "backend"))
	assert.Len(t, b.Results.Rows, 4*2)
}

func TestPlans(t *testing.T) {
	t.Parallel()
	for _, p := range []Plan{Quick(), Full(), Smoke()} {
		assert.True(t, slices.Contains(p.Callers, 1))
		assert.NotContains(t, p.String(), "%!")
		assert.Equal(t, 3, p.WithRounds(3).Scale.Rounds)
		assert.NotEqual(t, 3, p.Scale.Rounds, "the plan itself stays")
		assert.LessOrEqual(t, p.Batch, p.Expired/p.Sweep.Rounds, "a batch at least for each round")
	}
	for _, p := range []Plan{Quick(), Full()} {
		for _, callers := range []int{1, 16, 64, 256} {
			assert.Contains(t, p.Callers, callers)
		}
		assert.Equal(t, 16, p.LoadCallers)
	}
}

// A filled store holds every key, whoever copies it, and is settled.
func TestFilled(t *testing.T) {
	t.Parallel()
	f, err := NewFilled(t.TempDir())
	require.NoError(t, err)
	w := Workload{Keys: NewKeys(300), ResultBytes: 20}
	ctx := context.Background()
	for _, e := range Engines() {
		for range 2 {
			s, err := f.Open(ctx, e, t.TempDir(), w, cacheless)
			require.NoError(t, err)
			results := map[string]bool{}
			for i := range 300 {
				r, err := s.Get(ctx, w.Keys.Fill(i))
				require.NoError(t, err)
				assert.Len(t, r.Result, w.ResultBytes)
				results[string(r.Result)] = true
			}
			assert.Len(t, results, 300, "each has another")
			_, err = s.Get(ctx, w.Keys.Miss(0, 0))
			assert.Equal(t, idem.ErrNotFound, err)
			require.NoError(t, s.Close())
		}
	}
	assert.Len(t, f.made, 2, "each durable engine was filled once")
	require.NoError(t, f.Close())
}
