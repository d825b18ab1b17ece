package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
)

// counted is a plan of so many calls, whose clock moves between the samples: what is
// done does not depend on how fast the machine is.
func counted(t *testing.T, engine string, calls int64) config {
	clock := idemtest.NewClock(time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC))
	return config{
		engine: engine, dir: t.TempDir(), seed: 1, workers: 4, calls: calls, samples: 48,
		retention: 40 * time.Second, sweep: time.Second, clock: clock,
		between: func() {
			clock.Advance(5 * time.Second)
			runtime.GC()
		},
	}
}

// The tests that soak are not parallel: goroutines, files and heap are the process's.

// A short soak of each engine: everything in the mix is done, no answer is wrong,
// nothing grows, and what is written can be read.
func TestSoak(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			c := counted(t, engine, 48*60)
			p, err := soak(context.Background(), c)
			require.NoError(t, err)
			require.Empty(t, p.trouble)
			require.Len(t, p.samples, c.samples)
			for i, l := range p.latency {
				assert.Positive(t, l.n, "no call of class %v", class(i))
			}
			require.Len(t, p.verdicts, 6)
			for _, v := range p.verdicts {
				assert.True(t, v.flat, "%+v", v)
			}
			assert.True(t, p.good())
			last := p.samples[c.samples-1]
			assert.Positive(t, last.value["records live"])
			assert.Less(t, last.value["records live"], float64(p.calls)/2, "the sweep has removed what expired")
			assert.Positive(t, last.value["size"])
			assert.Positive(t, last.value["heap"])

			out := t.TempDir()
			var printed strings.Builder
			require.NoError(t, p.write(out, &printed))
			for _, want := range []string{"0 wrong answers", "goroutines", "records expired", "next-claim", "flat"} {
				assert.Contains(t, printed.String(), want)
			}
			assert.NotContains(t, printed.String(), "GROWS")
			assert.NoDirExists(t, c.dir, "a good store is removed")
			f, err := os.Open(filepath.Join(out, engine+".txt"))
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			rows := 0
			for in := benchfmt.NewReader(f, engine); in.Scan(); rows++ {
				row, ok := in.Result().(*benchfmt.Result)
				require.True(t, ok, in.Result())
				for _, unit := range []string{"records-live", "size-B", "calls/s", "at-sec"} {
					_, ok := row.Value(unit)
					assert.True(t, ok, unit)
				}
			}
			assert.Equal(t, c.samples, rows)
			svg, err := os.ReadFile(filepath.Join(out, engine+".svg"))
			require.NoError(t, err)
			for _, want := range []string{"idem soak, " + engine, "goroutines: flat", "open files: flat", "latency of complete", "warm-up"} {
				assert.Contains(t, string(svg), want)
			}
		})
	}
}

// Growth of each kind is found in a run.
func TestSoakFindsLeaks(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name, engine, grows string
		leak                func(dir string, n int) error // at every call
	}{
		{"a goroutine every 20 calls", "memory", "goroutines", func(_ string, n int) error {
			if n%20 == 0 {
				go func() { <-release }()
			}
			return nil
		}},
		{"a descriptor every 20 calls", "memory", "open files", func(_ string, n int) error {
			if n%20 == 0 {
				f, err := os.Open(os.DevNull)
				if err == nil {
					t.Cleanup(func() { _ = f.Close() })
				}
				return err
			}
			return nil
		}},
		{"memory at every call", "memory", "heap", func() func(string, int) error {
			var kept [][]byte
			t.Cleanup(func() { runtime.KeepAlive(kept) })
			return func(string, int) error { kept = append(kept, make([]byte, 8<<10)); return nil }
		}()},
		{"a file at every call", "bolt", "size", func(dir string, n int) error {
			f, err := os.OpenFile(filepath.Join(dir, "more"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = f.Write(make([]byte, 8<<10))
				err = errors.Join(err, f.Close())
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := counted(t, c.engine, 48*30)
			plan.workers = 1 // and leak runs on its goroutine
			plan.sabotage = func(int) func() {
				n := 0
				return func() {
					n++
					assert.NoError(t, c.leak(plan.dir, n))
				}
			}
			r := newRun(plan)
			require.NoError(t, r.open())
			p := r.drive(context.Background())
			require.NoError(t, r.store.Close())
			for _, v := range p.verdicts {
				if v.name == c.grows && (c.grows != "open files" || runtime.GOOS == "linux") {
					assert.False(t, v.flat, "%+v", v)
					assert.Equal(t, "GROWS", v.word())
				}
			}
			assert.False(t, p.good())
			var printed strings.Builder
			require.NoError(t, p.write(t.TempDir(), &printed))
			assert.Contains(t, printed.String(), "GROWS")
			assert.Contains(t, printed.String(), "the store is left in "+plan.dir)
		})
	}
}

// What a store must not do is said when it does it.
func TestFinishFindsWrongAnswers(t *testing.T) {
	ctx := context.Background()
	claimed := func(r *run, key string) idem.Token {
		c, err := r.store.Claim(ctx, idem.Request{Key: key, Retention: keptRetention})
		require.NoError(t, err)
		return c.Token
	}
	for name, c := range map[string]struct {
		wrong func(r *run)
		says  string
	}{
		"nothing was kept":          {func(r *run) { r.kept = ring[string]{} }, "no key was kept"},
		"a result of another claim": {func(r *run) { mustComplete(t, r, claimed(r, "a"), resultOf("a", 1)); r.kept.put("a") }, "replays"},
		"a key that is gone":        {func(r *run) { r.kept.put("never claimed") }, "and now gets <nil>"},
		"a recent key is wrong":     {func(r *run) { mustComplete(t, r, claimed(r, "b"), nil); r.recent.put("b", 0) }, "replays 0 bytes"},
		"a fence that fell":         {func(r *run) { r.fence.Store(1 << 62) }, "a new claim got fence"},
		"an effect too few":         {func(r *run) { r.effects.Add(1) }, "1 effects were acknowledged, the accounts have 0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			r := newRun(counted(t, "bolt", 1))
			require.NoError(t, r.open())
			good := claimed(r, "good")
			mustComplete(t, r, good, resultOf("good", good.Fence))
			r.kept.put("good")
			c.wrong(r)
			require.NoError(t, r.finish(before))
			require.NotEmpty(t, r.trouble.said)
			assert.Contains(t, r.trouble.said[0], c.says)
			assert.False(t, (&report{troubles: r.trouble.count}).good())
		})
	}
}

func mustComplete(t *testing.T, r *run, token idem.Token, result []byte) {
	t.Helper()
	require.NoError(t, r.store.Complete(context.Background(), token, result))
}

func TestCommandRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"-engine", "sqlite"}, `there is no engine "sqlite"`},
		{[]string{"-duration", "3s"}, "soak for 16s at least"},
		{[]string{"-workers", "0"}, "0 workers"},
		{[]string{"-rate", "-1"}, "rate of -1"},
		{[]string{"-what"}, "not defined"},
	} {
		var out, errs strings.Builder
		assert.Equal(t, 2, command(context.Background(), c.args, &out, &errs), c.args)
		assert.Contains(t, errs.String(), c.says)
		assert.Empty(t, out.String())
	}
}

// An interrupted soak ends soon, with 1, and leaves its chart.
func TestCommandInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := t.TempDir()
	var out, errs strings.Builder
	assert.Equal(t, 1, command(ctx, []string{"-engine", "memory", "-out", dir}, &out, &errs))
	assert.Contains(t, out.String(), dir)
	assert.Contains(t, errs.String(), "interrupted")
}
