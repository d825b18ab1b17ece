package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/idemkv/idem/internal/groupcommit"
)

// plain hides that a TB is a *testing.T: rapid would ask a bubble for its deadline.
type plain struct{ testing.TB }

// Any sequence of arrivals, cancellations and ends of runs: a job is run exactly
// once and its Do returns nil, or never and it returns ctx's error, groups keep to
// the order of arrival and to the bound, and when all runs have ended nobody waits.
func TestRandomSequences(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(plain{t}, func(rt *rapid.T) {
			bound := rapid.SampledFrom([]int{10, 1 << 20}).Draw(rt, "bound")
			l := newLine(t, bound)
			ctx, cancel := context.WithCancel(context.Background())
			defer func() { cancel(); l.finish(synctest.Wait) }()
			l.ctx = ctx
			var names []string
			weights := map[string]int{}
			steps := rapid.IntRange(1, 40).Draw(rt, "steps")
			for i := range steps {
				switch what := rapid.SampledFrom([]string{"do", "do", "do", "cancel", "end"}).Draw(rt, "step"); {
				case what == "do":
					name := fmt.Sprintf("%02d", i)
					names = append(names, name)
					weights[name] = rapid.SampledFrom([]int{0, 1, 3, 5, 10, 99}).Draw(rt, "weight")
					l.do(name, weights[name])
				case what == "cancel" && len(names) > 0:
					l.calls[rapid.SampledFrom(names).Draw(rt, "whom")].cancel()
				case what == "end" && l.busy():
					l.step <- struct{}{}
				}
				synctest.Wait()
			}
			l.finish(synctest.Wait)

			runs := map[string]int{}
			if all := slices.Concat(l.ran()...); !slices.IsSorted(all) {
				rt.Fatalf("%v overtook each other", all)
			}
			for _, group := range l.ran() {
				if len(group) == 0 {
					rt.Fatal("an empty group was run")
				}
				if !slices.IsSorted(group) {
					rt.Fatalf("group %v is not in the order of arrival", group)
				}
				weight := 0
				for _, name := range group {
					runs[name]++
					weight += weights[name]
				}
				if weight > bound && len(group) > 1 && weights[group[0]] <= bound {
					rt.Fatalf("group %v weighs %d, over %d", group, weight, bound)
				}
			}
			for _, name := range names {
				done, err := l.ended(l.calls[name])
				switch {
				case !done:
					rt.Fatalf("%s waits although nothing runs", name)
				case err == nil && runs[name] != 1, err != nil && runs[name] != 0:
					rt.Fatalf("%s: ran %d times, Do returned %v", name, runs[name], err)
				case err != nil && !errors.Is(err, context.Canceled):
					rt.Fatalf("%s: Do returned %v", name, err)
				}
			}
		})
	})
}

// The same under the race detector, with real concurrency: jobs are run exactly
// once or not at all, one group at a time, and everybody gets an answer.
func TestStress(t *testing.T) {
	t.Parallel()
	var running atomic.Int32
	var groups, shared atomic.Int64
	q := groupcommit.New(16, nil, func(jobs []*named) (int, func()) {
		if running.Add(1) != 1 {
			t.Error("two runs at once")
		}
		jobs = jobs[:1+rand.IntN(len(jobs))]
		for _, j := range jobs {
			j.runs++ // read after Do: the detector checks
		}
		groups.Add(1)
		shared.Add(int64(len(jobs)))
		running.Add(-1)
		return len(jobs), nil
	})
	var wg sync.WaitGroup
	var answered atomic.Int64
	for seed := range uint64(16) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for range 1500 {
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(3) == 0 {
					wg.Go(cancel) // at some moment
				}
				j := &named{}
				err := q.Do(ctx, j, rng.IntN(20))
				switch {
				case err == nil && j.runs != 1, err != nil && j.runs != 0:
					t.Errorf("ran %d times, Do returned %v", j.runs, err)
				case err != nil && !errors.Is(err, context.Canceled):
					t.Errorf("Do returned %v", err)
				}
				if err == nil {
					answered.Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if answered.Load() != shared.Load() {
		t.Errorf("%d jobs run, %d answered", shared.Load(), answered.Load())
	}
	t.Logf("%d jobs in %d groups", shared.Load(), groups.Load())
}
