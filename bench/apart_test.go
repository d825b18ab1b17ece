package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	c "github.com/idemkv/idem/bench/contenders"
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
	values := syncValues(counts, 2)
	assert.Len(t, values, 4)
	assert.Equal(t, value(2, "syncs/op"), values[0])
	_, err = countSyncs(strings.NewReader(strings.ReplaceAll(traceText, "operations-end", "else")))
	assert.Error(t, err, "a process that ended in its work was not counted")
}

// needCounters skips a test where bytes written are not counted.
func needCounters(t *testing.T, dir string) {
	t.Helper()
	if _, err := processBytes(0, dir); err != nil {
		t.Skip(err)
	}
}

// The rest of the process writes too: this can only tell too little. A page that was
// dirty before the operations counts when they change it, as it was written back.
func TestWrittenCountsEveryPage(t *testing.T) { // not parallel: all tests share the counter
	dir := t.TempDir()
	needCounters(t, dir)
	const pages = 256
	page := int64(os.Getpagesize())
	f, err := os.Create(filepath.Join(dir, "f"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	touch := func(b []byte) (err error) {
		for i := range int64(pages) {
			_, e := f.WriteAt(b, i*page)
			err = errors.Join(err, e)
		}
		return err
	}
	require.NoError(t, touch(make([]byte, page)))
	values, missing, err := countWritten(0, dir, pages, func() error { return errors.Join(touch([]byte("x")), f.Sync()) })
	require.NoError(t, err)
	require.NotEmpty(t, values, missing)
	assert.Equal(t, "written-B/op", values[0].Unit)
	assert.GreaterOrEqual(t, values[0].Value, float64(page))
}

// What another process writes counts when it is the one that is asked about.
func TestWrittenCountsAServer(t *testing.T) {
	dir := t.TempDir()
	needCounters(t, dir)
	server := exec.Command("sh", "-c", `read go && head -c 1048576 /dev/zero > "$0" && echo done && read end`, filepath.Join(dir, "f"))
	in, err := server.StdinPipe()
	require.NoError(t, err)
	out, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	defer func() { assert.NoError(t, server.Wait()) }()
	defer func() { _, err := in.Write([]byte("end\n")); assert.NoError(t, err) }()
	values, missing, err := countWritten(server.Process.Pid, dir, 1, func() error {
		if _, err := in.Write([]byte("go\n")); err != nil {
			return err
		}
		_, err := out.Read(make([]byte, 8))
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, values, missing)
	assert.GreaterOrEqual(t, values[0].Value, 1048576.0)
}

func TestWrittenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, missing, err := countWritten(1<<30, t.TempDir(), 1, func() error { return nil })
	require.NoError(t, err)
	require.ErrorContains(t, missing, "written-B/op")
	boom := errors.New("boom")
	_, _, err = countWritten(0, t.TempDir(), 1, func() error { return boom })
	assert.Equal(t, boom, err)

	shm, err := os.MkdirTemp("/dev/shm", "idem-")
	if err != nil {
		t.Skip(err)
	}
	defer func() { require.NoError(t, os.RemoveAll(shm)) }()
	b := newBench(t)
	b.dir = shm // nothing is run where nothing is counted: b.alone is nil
	b.apart(written, []int{1}, 1, 1)
	assert.Empty(t, b.rows)
	assert.Len(t, b.notes("absent"), 1)
	assert.False(t, b.failed)
}

// What the processes print becomes the rows of the group.
func TestApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	needCounters(t, b.dir)
	says := map[string]string{
		"bolt":   `echo "BenchmarkCycle/durable/backend=bolt/callers=2 8 5 ns/op 8600 written-B/op 9000 device-B/op"`,
		"pebble": `echo "absent/written/cycle: no such file"; echo "BenchmarkCycle/durable/backend=pebble/callers=2 8 5 ns/op"`,
		"redis":  `echo "bench: no server" >&2; exit 3`,
		"sqlite": `echo "boom" >&2; exit 1`,
		"badger": `echo hello`,
	}
	b.only = func(name string) bool { return says[name] != "" }
	b.alone = func(contender string, callers, ops, result int) []string {
		assert.Equal(t, []int{2, 8, 64}, []int{callers, ops, result})
		return []string{"sh", "-c", says[contender]}
	}
	b.apart(written, []int{2}, 9, 64)
	require.Len(t, b.rows, 1)
	assert.Equal(t, "Written/cycle/backend=bolt/callers=2", b.rows[0].Name.String())
	assert.Equal(t, 8, b.rows[0].Iters)
	assert.Equal(t, []float64{8600}, b.series("written-B/op"))
	assert.Equal(t, []float64{9000}, b.series("device-B/op"))
	assert.True(t, b.failed)
	for name, want := range map[string]string{
		"absent/written/cycle/pebble": "absent: no such file", "absent/written/cycle/redis": "absent: bench: no server",
		"failed/written/cycle/sqlite": "exit status 1: boom", "absent/written/cycle/badger": "absent:",
	} {
		assert.Contains(t, b.get(name), want, name)
	}
}

func TestAloneRefuses(t *testing.T) {
	t.Parallel()
	w := c.Workload{Group: c.CycleDurable, Callers: 1}
	require.ErrorContains(t, newBench(t).runAlone("nobody", w, 1), `no contender "nobody"`)
}
