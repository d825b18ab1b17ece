package groupcommit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/groupcommit"
)

// A lone caller waits for nobody: no timer runs, and one job makes a group.
func TestLoneCallerRunsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var groups [][]string
		q := groupcommit.New(10, nil, func(jobs []*named) (int, func()) {
			groups = append(groups, names(jobs))
			return len(jobs), nil
		})
		start := time.Now()
		for _, job := range []string{"a", "b", "c"} {
			require.NoError(t, q.Do(context.Background(), &named{name: job}, 1))
		}
		require.Equal(t, [][]string{{"a"}, {"b"}, {"c"}}, groups)
		require.Zero(t, time.Since(start), "a lone caller waited for time to pass")
	})
}

// Those who arrive while a commit runs share the next one, in the order they came.
func TestArrivalsShareTheNextRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 100)
		l.do("first", 1)
		synctest.Wait()
		for _, job := range []string{"b", "c", "d", "e"} {
			l.do(job, 1)
			synctest.Wait()
		}
		require.Equal(t, [][]string{{"first"}}, l.ran(), "two runs at once")
		l.step <- struct{}{}
		synctest.Wait()
		l.do("late", 1)
		l.finish(synctest.Wait)
		require.Equal(t, [][]string{{"first"}, {"b", "c", "d", "e"}, {"late"}}, l.ran())
		for job, c := range l.calls {
			done, err := l.ended(c)
			require.True(t, done, job)
			require.NoError(t, err, job)
		}
	})
}

// A ctx that has ended before the call: its error, and nothing is run.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	q := groupcommit.New(10, nil, func(jobs []*named) (int, func()) {
		t.Error("a job with an ended ctx was run")
		return len(jobs), nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, context.Canceled, q.Do(ctx, &named{}, 1))
}

// Cancelled while queued, a job leaves and is never run; the others keep
// their order.
func TestCancelledWhileQueued(t *testing.T) {
	t.Parallel()
	for _, leaver := range []string{"b", "c", "d"} {
		t.Run(leaver, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLine(t, 100)
				l.do("first", 1)
				synctest.Wait()
				var want []string
				for _, job := range []string{"b", "c", "d"} {
					l.do(job, 1)
					synctest.Wait()
					if job != leaver {
						want = append(want, job)
					}
				}
				l.calls[leaver].cancel()
				synctest.Wait()
				done, err := l.ended(l.calls[leaver])
				require.True(t, done, "a cancelled job waits for a run it has no part in")
				require.Equal(t, context.Canceled, err)
				l.finish(synctest.Wait)
				require.Equal(t, [][]string{{"first"}, want}, l.ran())
			})
		})
	}
}

// Once its group is taken, a job has that run's answer whatever ctx does.
func TestCancelledAfterTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 100)
		l.do("first", 1)
		synctest.Wait()
		b, c := l.do("b", 1), l.do("c", 1)
		synctest.Wait()
		l.step <- struct{}{}
		synctest.Wait() // b and c are running
		b.cancel()
		c.cancel()
		synctest.Wait()
		for _, call := range []*call{b, c} {
			done, _ := l.ended(call)
			require.False(t, done, "a job under way was given up")
		}
		l.finish(synctest.Wait)
		for _, call := range []*call{b, c} {
			done, err := l.ended(call)
			require.True(t, done)
			require.NoError(t, err)
		}
		require.Len(t, l.ran(), 2)
	})
}

// Weights bound a group; one job that is over the bound by itself still runs.
func TestWeightsBoundGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		weights []int
		want    [][]string
	}{
		"fits exactly":    {[]int{6, 4}, [][]string{{"a", "b"}}},
		"one over":        {[]int{6, 5}, [][]string{{"a"}, {"b"}}},
		"three":           {[]int{4, 4, 4}, [][]string{{"a", "b"}, {"c"}}},
		"oversized":       {[]int{1000}, [][]string{{"a"}}},
		"after oversized": {[]int{1000, 0, 1}, [][]string{{"a"}, {"b", "c"}}},
		"oversized last":  {[]int{1, 1000}, [][]string{{"a"}, {"b"}}},
		"weightless":      {[]int{10, 0, 0}, [][]string{{"a", "b", "c"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLine(t, 10)
				l.do("first", 1)
				synctest.Wait()
				for i, w := range c.weights {
					l.do(string(rune('a'+i)), w)
					synctest.Wait()
				}
				l.finish(synctest.Wait)
				got := l.ran()
				require.Equal(t, []string{"first"}, got[0])
				require.Len(t, got[1:], len(c.want))
				for i := range c.want {
					require.ElementsMatch(t, c.want[i], got[1+i])
				}
			})
		})
	}
}

// Who leaves gives its weight back.
func TestLeavingMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		l.do("first", 1)
		synctest.Wait()
		l.do("a", 6)
		synctest.Wait()
		l.do("b", 4)
		synctest.Wait()
		l.calls["a"].cancel()
		synctest.Wait()
		l.do("c", 6)
		l.finish(synctest.Wait)
		require.Equal(t, [][]string{{"first"}, {"b", "c"}}, l.ran())
	})
}

// Nobody is left behind when others give up: neither the next in their group, nor
// those in the groups behind it.
func TestNobodyIsLeftBehind(t *testing.T) {
	t.Parallel()
	t.Run("next in the group", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newLine(t, 10)
			l.do("first", 1)
			synctest.Wait()
			l.do("a", 1)
			synctest.Wait()
			l.do("b", 1)
			synctest.Wait()
			l.calls["a"].cancel()
			l.finish(synctest.Wait)
			require.Equal(t, [][]string{{"first"}, {"b"}}, l.ran())
		})
	})
	t.Run("waiting for room", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newLine(t, 10)
			l.do("first", 1)
			synctest.Wait()
			a, b := l.do("a", 5), l.do("b", 5)
			synctest.Wait()
			waits := l.do("waits", 1)
			defer func() { // lets a failure be told instead of a deadlock
				waits.cancel()
				synctest.Wait()
			}()
			synctest.Wait()
			a.cancel()
			b.cancel()
			l.finish(synctest.Wait)
			done, err := l.ended(waits)
			require.True(t, done, "waits behind a group that all have left")
			require.NoError(t, err)
			require.Equal(t, [][]string{{"first"}, {"waits"}}, l.ran())
		})
	})
	t.Run("leaves while waiting for room", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := newLine(t, 10)
			l.do("first", 1)
			synctest.Wait()
			l.do("a", 10)
			synctest.Wait()
			waits := l.do("waits", 1)
			synctest.Wait()
			waits.cancel()
			synctest.Wait()
			done, err := l.ended(waits)
			require.True(t, done)
			require.Equal(t, context.Canceled, err)
			l.finish(synctest.Wait)
			require.Equal(t, [][]string{{"first"}, {"a"}}, l.ran())
		})
	})
}

// What run returns is called by a caller, which may use the queue there.
func TestAfterMayUseTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q *groupcommit.Queue[*named]
		var order []string
		q = groupcommit.New(10, nil, func(jobs []*named) (int, func()) {
			order = append(order, "run "+jobs[0].name)
			if jobs[0].name != "a" {
				return 1, nil
			}
			return 1, func() {
				require.NoError(t, q.Do(context.Background(), &named{name: "b"}, 1))
				order = append(order, "after a")
			}
		})
		require.NoError(t, q.Do(context.Background(), &named{name: "a"}, 1))
		require.Equal(t, []string{"run a", "run b", "after a"}, order)
	})
}

// What run returns holds up one caller and nobody else: the others have their answer
// and the next group runs.
func TestAfterHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		block := make(chan struct{})
		l.after = func() { <-block }
		first := l.do("first", 1)
		synctest.Wait()
		second := l.do("second", 1)
		l.step <- struct{}{}
		synctest.Wait()
		l.mu.Lock()
		l.after = nil
		l.mu.Unlock()
		require.Equal(t, [][]string{{"first"}, {"second"}}, l.ran())
		l.step <- struct{}{}
		synctest.Wait()
		done, err := l.ended(second)
		require.True(t, done)
		require.NoError(t, err)
		done, _ = l.ended(first)
		require.False(t, done, "after is called by the caller before its Do returns")
		close(block)
		synctest.Wait()
		done, err = l.ended(first)
		require.True(t, done)
		require.NoError(t, err)
	})
}

// What a run leaves unanswered is run again before anything else, each job is told as
// soon as its own run is over, and every run's after is called.
func TestPartOfAGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		l.partial = true
		afters := 0
		l.after = func() { // callers may be at it at once
			l.mu.Lock()
			defer l.mu.Unlock()
			afters++
		}
		l.do("first", 1)
		synctest.Wait()
		a := l.do("a", 1)
		synctest.Wait()
		b := l.do("b", 1)
		synctest.Wait()
		l.step <- struct{}{}
		synctest.Wait()
		l.do("late", 1)
		l.step <- struct{}{}
		synctest.Wait()
		done, _ := l.ended(a)
		require.True(t, done, "waits for what others still have to do")
		done, _ = l.ended(b)
		require.False(t, done)
		b.cancel()
		synctest.Wait()
		done, _ = l.ended(b)
		require.False(t, done, "it was taken")
		l.finish(synctest.Wait)
		require.Equal(t, [][]string{{"first"}, {"a", "b"}, {"b"}, {"late"}}, l.ran())
		done, err := l.ended(b)
		require.True(t, done)
		require.NoError(t, err)
		require.Equal(t, 4, afters)
	})
}

// A job that takes several runs gets all that they returned.
func TestAfterOfSeveralRuns(t *testing.T) {
	t.Parallel()
	runs := 0
	var afters []int
	q := groupcommit.New(10, nil, func(jobs []*named) (int, func()) {
		runs++
		n := runs
		return min(n/3, 1), func() { afters = append(afters, n) }
	})
	require.NoError(t, q.Do(context.Background(), &named{}, 1))
	require.Equal(t, []int{1, 2, 3}, afters)
}

// First come, first served: a large job that does not fit into the next group is not
// overtaken by small ones that do.
func TestLargeJobsAreNotOvertaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		for _, job := range []struct {
			name   string
			weight int
		}{{"first", 1}, {"a", 5}, {"large", 10}, {"b", 5}, {"c", 5}, {"d", 1}} {
			l.do(job.name, job.weight)
			synctest.Wait()
		}
		l.finish(synctest.Wait)
		require.Equal(t, [][]string{{"first"}, {"a"}, {"large"}, {"b", "c"}, {"d"}}, l.ran())
	})
}

// When the queue is stopped everybody leaves, those whose run hangs as well. What was
// not taken is never run.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		var calls []*call
		for _, job := range []string{"hangs", "waits", "too"} {
			calls = append(calls, l.do(job, 10))
			synctest.Wait()
		}
		close(l.stop)
		synctest.Wait()
		calls = append(calls, l.do("late", 1))
		synctest.Wait()
		for _, c := range calls {
			done, err := l.ended(c)
			require.True(t, done)
			require.Equal(t, groupcommit.ErrStopped, err)
		}
		idle := make(chan struct{})
		go func() { l.queue.Wait(); close(idle) }()
		synctest.Wait()
		select {
		case <-idle:
			t.Error("Wait returned under a run")
		default:
		}
		l.step <- struct{}{}
		<-idle
		require.Equal(t, [][]string{{"hangs"}}, l.ran())
	})
}

func BenchmarkDo(b *testing.B) {
	nothing := func(jobs []*named) (int, func()) { return len(jobs), nil }
	b.Run("callers=1", func(b *testing.B) {
		q := groupcommit.New(1<<20, nil, nothing)
		b.ReportAllocs()
		for b.Loop() {
			_ = q.Do(context.Background(), new(named), 1)
		}
	})
	b.Run("callers=64", func(b *testing.B) {
		q := groupcommit.New(1<<20, nil, nothing)
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = q.Do(context.Background(), new(named), 1)
			}
		})
	})
}
