package contenders

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Callers that come while a group is being committed share the next one, each job is
// in exactly one, and each caller gets its own group's error.
func TestGroup(t *testing.T) {
	t.Parallel()
	const callers = 50
	boom := errors.New("boom")
	begun, goOn := make(chan struct{}), make(chan struct{})
	var groups [][]int
	g := newGroup(
		func(all *[]int, job int) { *all = append(*all, job) },
		func(all *[]int) error { // one at a time
			groups = append(groups, append([]int(nil), *all...))
			*all = (*all)[:0]
			if len(groups) == 1 {
				close(begun)
				<-goOn
				return boom
			}
			return nil
		},
	)
	var first, rest sync.WaitGroup
	errs := make([]error, callers)
	first.Go(func() { errs[0] = g.do(0) })
	<-begun
	for i := 1; i < callers; i++ {
		rest.Go(func() { errs[i] = g.do(i) })
	}
	for joined := 0; joined < callers-1; { // all but the first are in the group that forms
		g.mu.Lock()
		if g.forming != nil {
			joined = len(*g.forming.all)
		}
		g.mu.Unlock()
		runtime.Gosched()
	}
	close(goOn)
	first.Wait()
	rest.Wait()
	require.Equal(t, boom, errs[0])
	for _, err := range errs[1:] {
		require.NoError(t, err)
	}
	require.Len(t, groups, 2)
	require.Equal(t, []int{0}, groups[0])
	seen := map[int]bool{}
	for _, job := range groups[1] {
		require.False(t, seen[job])
		seen[job] = true
	}
	require.Len(t, seen, callers-1)
}

// Under a storm every job is run once, and none is answered before it was.
func TestGroupStorm(t *testing.T) {
	t.Parallel()
	const callers, jobs = 16, 500
	done := map[int]int{} // by run alone, or with the lock
	var mu sync.Mutex
	g := newGroup(
		func(all *[]int, job int) { *all = append(*all, job) },
		func(all *[]int) error {
			mu.Lock()
			defer mu.Unlock()
			for _, job := range *all {
				done[job]++
			}
			*all = (*all)[:0]
			return nil
		},
	)
	work(t, Workload{Callers: callers}, Instance{Op: func(worker int, n uint64) error {
		job := worker*jobs + int(n)
		if err := g.do(job); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if done[job] != 1 {
			return errors.New("answered before it was run")
		}
		return nil
	}}, jobs)
	require.Len(t, done, callers*jobs)
}

// The log goes on at its start when it is full, and refuses a group that can never
// fit.
func TestLogWrapsAround(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLog(filepath.Join(dir, "log"), 1<<20)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.f.Close()) }()
	var s step
	wrapped := false
	for n := uint64(0); !wrapped; n++ {
		before := l.at
		s.claim(l.stamps, Fresh(0, n))
		s.complete(make([]byte, 100_000))
		require.NoError(t, l.group.do(&s))
		wrapped = l.at < before
	}
	pairs := logPairsFrom(t, dir, l.number)
	require.Equal(t, s.key, pairs[0].key, "the newest frame is the first")
	info, err := os.Stat(filepath.Join(dir, "log"))
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, info.Size(), "the file did not grow")

	s.complete(make([]byte, 2<<20))
	require.ErrorIs(t, l.group.do(&s), errLogFull)
}
