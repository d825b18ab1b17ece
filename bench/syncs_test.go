package bench

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const traceText = `100 openat(AT_FDCWD, "/tmp/x", O_RDWR|O_CREAT, 0644) = 3
100 fsync(3) = 0
101 openat(AT_FDCWD, "/idem-bench-operations-begin", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
100 fdatasync(3 <unfinished ...>
102 fsync(4) = 0
100 <... fdatasync resumed>) = 0
102 openat(AT_FDCWD, "/tmp/y", O_RDONLY) = 9
103 msync(0x7f0000000000, 4096, MS_SYNC) = 0
103 msync(0x7f0000000000, 4096, MS_ASYNC) = 0
fdatasync(3) = 0
104 openat(AT_FDCWD, "/idem-bench-operations-end", O_RDONLY|O_CLOEXEC <unfinished ...>
104 <... openat resumed>) = -1 ENOENT (No such file or directory)
100 fsync(3) = 0
100 +++ exited with 0 +++
`

func TestCountSyncs(t *testing.T) {
	t.Parallel()
	counts, err := countSyncs(strings.NewReader(traceText))
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"fdatasync": 2, "fsync": 1, "msync": 1}, counts, "what is between the marks, once each")
	_, err = countSyncs(strings.NewReader(strings.ReplaceAll(traceText, "operations-end", "else")))
	assert.Error(t, err, "a process that ended in its work was not counted")
}

func TestOneRuns(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	dir := t.TempDir()
	boom := errors.New("boom")
	contenders := []Contender{
		r.contender("good", ok), r.contender("bad", func(uint64) error { return boom }),
		{Name: "absent", Open: func(string, Workload) (Instance, error) { return Instance{}, ErrAbsent }},
	}
	o := One{Group: CycleDurable, Contender: "good", Callers: 3, Ops: 12, Dir: dir}
	res, err := o.Run(contenders)
	require.NoError(t, err)
	require.Len(t, res.Rows, 1)
	assert.Equal(t, "Cycle/durable/backend=good/callers=3", res.Rows[0].Name())
	assert.Equal(t, uint64(12), res.Rows[0].Ops)
	assert.Len(t, r.seen, 12)
	assert.Empty(t, r.twice)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)

	for name, code := range map[string]int{"bad": 1, "absent": absentExit, "unknown": 1} {
		o.Contender = name
		_, err := o.Run(contenders)
		require.Error(t, err)
		assert.Equal(t, code, ExitCode(err), name)
	}
	assert.Zero(t, ExitCode(nil))
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	const second = 1_000_000_000
	times := arrivals(5000, second, 7)
	assert.InDelta(t, 5000, len(times), 300)
	last, gaps := int64(0), map[int64]bool{}
	for _, at := range times {
		assert.True(t, int64(at) >= last && at < second)
		gaps[int64(at)-last] = true
		last = int64(at)
	}
	assert.Greater(t, len(gaps), 4000, "not at a fixed beat")
	assert.Equal(t, times, arrivals(5000, second, 7), "the same for everybody")
	assert.NotEqual(t, times, arrivals(5000, second, 8))
}

// An era's records expire when it begins, and no others.
func TestEras(t *testing.T) {
	t.Parallel()
	for _, e := range Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			w := Workload{Keys: NewKeys(60), ResultBytes: 16}
			x, err := openEras(e, t.TempDir(), w, 20)
			require.NoError(t, err)
			defer func() { require.NoError(t, x.store.Close()) }()
			ctx := context.Background()
			for round := range 3 {
				left, err := x.left()
				require.NoError(t, err)
				assert.False(t, left, "nothing is to be swept before round %d", round)
				done := make(chan struct{})
				cancel := x.sweeps(func() { close(done) })
				<-done // the store's own sweeper did it
				cancel()
				require.NoError(t, x.err)
				assert.Positive(t, x.took)
				there := 0
				for i := range 60 {
					if _, err := x.store.Get(ctx, w.Keys.Fill(i)); err == nil {
						there++
					}
				}
				assert.Equal(t, 60-20*(round+1), there)
			}
		})
	}
}

func TestGoroutinesOfOurs(t *testing.T) { // not parallel: others have stores open
	_, before := goroutines()
	s, err := OpenStore(Engines()[0], "", cacheless)
	require.NoError(t, err)
	all, ours := goroutines()
	assert.Equal(t, before+1, ours, "the sweeper")
	assert.Greater(t, all, ours)
	require.NoError(t, s.Close())
	_, after := goroutines()
	assert.Equal(t, before, after)
}
