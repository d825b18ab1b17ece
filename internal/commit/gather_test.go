package commit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A leader gathers until all are back, or nobody has come for a moment, or for long
// enough, and after a commit of one not at all.
func TestGather(t *testing.T) {
	t.Parallel()
	const tick = 10 * time.Microsecond
	for name, c := range map[string]struct {
		last   last
		comes  int           // one with each yield, so many
		takes  time.Duration // a yield
		want   int           // yields
		inVain bool          // and the next groups are not gathered for
		ago    time.Duration // since the last group
	}{
		"nobody was answered":   {last: last{took: time.Hour, expect: 9}, comes: 9},
		"one was answered":      {last: last{jobs: 1, took: time.Hour, expect: 9}, comes: 9},
		"long ago":              {last: last{jobs: 7, took: time.Second, expect: 8}, ago: 2 * time.Second, comes: 9},
		"a third is missing":    {last: last{jobs: 6, took: time.Hour, expect: 8}, comes: 5, takes: tick, want: 5 + 5},
		"all are back":          {last: last{jobs: 7, took: time.Hour, expect: 8}, comes: 9, takes: tick, want: 7},
		"all were there":        {last: last{jobs: 2, took: time.Hour, expect: 1}, takes: tick, want: 1},
		"nobody comes":          {last: last{jobs: 7, took: time.Hour, expect: 8}, takes: tick, want: 1 + 5, inVain: true},
		"three come":            {last: last{jobs: 7, took: time.Hour, expect: 8}, comes: 3, takes: tick, want: 3 + 5, inVain: true},
		"two are missing":       {last: last{jobs: 7, took: time.Hour, expect: 8}, comes: 5, takes: tick, want: 5 + 5},
		"three are missing":     {last: last{jobs: 7, took: time.Hour, expect: 8}, comes: 4, takes: tick, want: 4 + 5, inVain: true},
		"time stands still":     {last: last{jobs: 7, took: time.Hour, expect: 8}, comes: 3, want: 3 + gatherYields - 1, inVain: true},
		"a yield takes long":    {last: last{jobs: 7, took: time.Hour, expect: 8}, takes: time.Second, want: 2, inVain: true},
		"many come":             {last: last{jobs: 70, took: gatherShare * 6 * tick, expect: 80}, comes: 90, takes: tick, want: 7},
		"the last was too fast": {last: last{jobs: 70, took: 0, expect: 80}, comes: 90, takes: tick, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := New(100, func([]int) func() { return nil })
				join := func(job int) *group[int] {
					g, err := q.join(context.Background(), job, 1)
					require.NoError(t, err)
					return g
				}
				g := join(0)
				yields := 0
				q.yield = func() {
					if yields++; yields <= c.comes {
						join(yields)
					}
					time.Sleep(c.takes)
				}
				q.last = c.last
				q.last.ended = time.Now().Add(-c.ago)
				q.gather(g)
				require.Equal(t, c.want, yields)
				require.Equal(t, c.inVain, q.hasty > 0)
			})
		})
	}
}

// Where gathering was in vain it is tried again after some groups.
func TestGatherAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New(100, func([]int) func() { return nil })
		g, err := q.join(context.Background(), 0, 1)
		require.NoError(t, err)
		yields := 0
		q.yield = func() { yields++ }
		q.last = last{jobs: 7, took: time.Hour, expect: 8, ended: time.Now()}
		q.gather(g)
		require.Greater(t, yields, 100)
		for range gatherAgain {
			yields = 0
			q.gather(g)
			require.Equal(t, 2, yields)
		}
		yields = 0
		q.gather(g)
		require.Greater(t, yields, 100)
	})
}

// Those who come while the leader gathers are in its group.
func TestGatheredShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var groups [][]int
		q := New(100, func(jobs []int) func() {
			groups = append(groups, jobs)
			return nil
		})
		q.last = last{jobs: 2, took: time.Hour, expect: 2, ended: time.Now()}
		came := false
		q.yield = func() {
			if !came {
				came = true
				go func() { assert.NoError(t, q.Do(context.Background(), 2, 1)) }()
			}
			time.Sleep(time.Microsecond)
		}
		require.NoError(t, q.Do(context.Background(), 1, 1))
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2}}, groups)
	})
}

// Nobody is waited for whom the group has no room for, and who leaves has not come.
func TestGatherFullAndLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New(8, func([]int) func() { return nil })
		var g *group[int]
		for job := range 8 {
			var err error
			g, err = q.join(context.Background(), job, 1)
			require.NoError(t, err)
		}
		yields := 0
		q.yield = func() {
			yields++
			q.leave(g, yields, 1)
			time.Sleep(10 * time.Microsecond)
		}
		q.last = last{jobs: 8, took: time.Hour, expect: 16, ended: time.Now()}
		q.gather(g)
		require.Equal(t, 1+5, yields, "others left")

		_, err := q.join(context.Background(), 9, 1)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { _, _ = q.join(ctx, 10, 8) }()
		synctest.Wait()
		yields, q.hasty = 0, 0
		q.yield = func() { yields++ }
		q.gather(g)
		require.Equal(t, 1, yields, "one was turned away")
		cancel()
		synctest.Wait()
	})
}

// Who is expected: those who are about to be answered, and those who came meanwhile.
func TestExpected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q *Queue[int]
		running, step := make(chan struct{}, 1), make(chan struct{})
		q = New(100, func([]int) func() {
			running <- struct{}{}
			<-step
			time.Sleep(time.Millisecond)
			return nil
		})
		do := func(job int) {
			go func() { assert.NoError(t, q.Do(context.Background(), job, 1)) }()
			synctest.Wait()
		}
		do(1)
		<-running
		do(2)
		do(3)
		step <- struct{}{}
		<-running // the two who came while the first ran
		require.Equal(t, last{jobs: 1, took: time.Millisecond, expect: 3, ended: time.Now()}, q.last)
		do(4)
		step <- struct{}{}
		<-running
		require.Equal(t, last{jobs: 2, took: time.Millisecond, expect: 3, ended: time.Now()}, q.last)
		step <- struct{}{}
		time.Sleep(time.Second) // until all have their answers
	})
}
