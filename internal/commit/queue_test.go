package commit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/commit"
)

// A lone caller waits for nobody: no timer runs, and one job makes a group.
func TestLoneCallerRunsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var groups [][]string
		q := commit.New(10, func(jobs []string) func() {
			groups = append(groups, jobs)
			return nil
		})
		start := time.Now()
		for _, job := range []string{"a", "b", "c"} {
			require.NoError(t, q.Do(context.Background(), job, 1))
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
		require.Equal(t, [][]string{{"first"}}, l.ran(), "nobody runs beside the leader")
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

// A14: a ctx that has ended before the call: its error, and nothing is run.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	q := commit.New(10, func([]string) func() {
		t.Error("a job with an ended ctx was run")
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, context.Canceled, q.Do(ctx, "a", 1))
}

// A14: cancelled while queued, a job leaves and is never run; the others keep
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

// A14, rule 11: once its group is taken, a job has that run's answer whatever ctx does.
func TestCancelledAfterTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 100)
		l.do("first", 1)
		synctest.Wait()
		b, c := l.do("b", 1), l.do("c", 1)
		synctest.Wait()
		l.step <- struct{}{}
		synctest.Wait() // b and c are running, led by one of them
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

// Nobody is left behind when those who would have led give up: neither the next in
// their group, nor who waits for that group to be taken because it is full.
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
			require.True(t, done, "waits for a group that nobody is left to lead")
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

// What run returns is called when leadership is free again: it may use the queue.
func TestAfterMayUseTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q *commit.Queue[string]
		var order []string
		q = commit.New(10, func(jobs []string) func() {
			order = append(order, "run "+jobs[0])
			if jobs[0] != "a" {
				return nil
			}
			return func() {
				require.NoError(t, q.Do(context.Background(), "b", 1))
				order = append(order, "after a")
			}
		})
		require.NoError(t, q.Do(context.Background(), "a", 1))
		require.Equal(t, []string{"run a", "run b", "after a"}, order)
	})
}

// What run returns holds up its own caller and nobody else: the group has its
// answer and the next one runs.
func TestAfterHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		block := make(chan struct{})
		l.after = func() { <-block }
		leader := l.do("leads", 1)
		synctest.Wait()
		follower := l.do("follows", 1)
		l.step <- struct{}{}
		synctest.Wait()
		l.mu.Lock()
		l.after = nil
		l.mu.Unlock()
		require.Equal(t, [][]string{{"leads"}, {"follows"}}, l.ran())
		l.step <- struct{}{}
		synctest.Wait()
		done, err := l.ended(follower)
		require.True(t, done)
		require.NoError(t, err)
		done, _ = l.ended(leader)
		require.False(t, done, "after is called by the leader before its Do returns")
		close(block)
		synctest.Wait()
		done, err = l.ended(leader)
		require.True(t, done)
		require.NoError(t, err)
	})
}

func BenchmarkDo(b *testing.B) {
	nothing := func([]*int) func() { return nil }
	b.Run("callers=1", func(b *testing.B) {
		q := commit.New(1<<20, nothing)
		b.ReportAllocs()
		for b.Loop() {
			_ = q.Do(context.Background(), new(int), 1)
		}
	})
	b.Run("callers=64", func(b *testing.B) {
		q := commit.New(1<<20, nothing)
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = q.Do(context.Background(), new(int), 1)
			}
		})
	})
}
