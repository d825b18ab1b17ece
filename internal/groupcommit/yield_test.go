package groupcommit

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a run of several the worker lets those it answered come back before it takes
// the next group. After a run of one it yields to nobody.
func TestAnsweredCallersShareTheNextRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type job struct{ Ticket }
		var groups []int
		hold, yields := make(chan struct{}), 0
		q := New(100, nil, func(jobs []*job) (int, func()) {
			if groups = append(groups, len(jobs)); len(groups) == 1 {
				<-hold
			}
			return len(jobs), nil
		})
		q.yield = func() {
			yields++
			synctest.Wait() // until all others are as far as they can be
		}
		do := func() { assert.NoError(t, q.Do(context.Background(), &job{}, 1)) }
		var callers sync.WaitGroup
		callers.Go(do)
		synctest.Wait()
		for range 4 {
			callers.Go(func() {
				for range 5 {
					do()
				}
			})
		}
		synctest.Wait()
		close(hold)
		callers.Wait()
		require.Equal(t, []int{1, 4, 4, 4, 4, 4}, groups)
		q.Wait()
		require.Equal(t, 2*5, yields)

		yields = 0
		do() // alone, after a run of several
		q.Wait()
		require.Equal(t, 2, yields)
		do()
		q.Wait()
		require.Equal(t, 2, yields, "a lone caller waited for others")
	})
}
