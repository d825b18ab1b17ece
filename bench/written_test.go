package bench

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// needCounters skips a test where bytes written are not counted.
func needCounters(t *testing.T, dir string) {
	t.Helper()
	if _, err := processBytes(0, dir); err != nil {
		t.Skip(err)
	}
}

// The rest of the process writes too, so this can only tell too little. A page that was
// dirty before the operations counts when they change it, as it was written back.
func TestWrittenCountsEveryPage(t *testing.T) { // not parallel: all tests share the counter
	dir := t.TempDir()
	needCounters(t, dir)
	const pages = 256
	page := int64(os.Getpagesize())
	f, err := os.Create(filepath.Join(dir, "f"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	for i := range int64(pages) {
		_, err = f.WriteAt(make([]byte, page), i*page)
		require.NoError(t, err)
	}
	values, missing, err := countWritten(0, dir, pages, func() error {
		for i := range int64(pages) {
			if _, err := f.WriteAt([]byte("x"), i*page); err != nil {
				return err
			}
		}
		return f.Sync()
	})
	require.NoError(t, err)
	for _, v := range values {
		if v.Unit == writtenOp {
			assert.GreaterOrEqual(t, v.Amount, float64(page), "%v", missing)
			return
		}
	}
	t.Fatalf("not counted: %v", missing)
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
	require.NotEmpty(t, values, "%v", missing)
	assert.Equal(t, writtenOp, values[0].Unit)
	assert.GreaterOrEqual(t, values[0].Amount, 1048576.0)
}

func TestWrittenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, missing, err := countWritten(1<<30, t.TempDir(), 1, func() error { return nil })
	require.NoError(t, err)
	require.Error(t, missing)
	assert.Contains(t, missing.Error(), writtenOp)
	boom := errors.New("boom")
	_, _, err = countWritten(0, t.TempDir(), 1, func() error { return boom })
	assert.Equal(t, boom, err)

	shm, err := os.MkdirTemp("/dev/shm", "idem-")
	if err != nil {
		t.Skip(err)
	}
	defer func() { require.NoError(t, os.RemoveAll(shm)) }()
	b := &Bench{Results: &Results{}, Dir: shm}
	b.CountWritten(One{Ops: 1}, []Contender{newRecorder().contender("one", ok)}, []int{1}, func(One) *exec.Cmd {
		t.Error("run where nothing is counted")
		return exec.Command("false")
	})
	assert.Empty(t, b.Results.Rows)
	require.Len(t, b.Results.Notes, 1)
	want := "only Linux"
	if runtime.GOOS == "linux" {
		want = "tmpfs"
	}
	assert.Contains(t, b.Results.Notes[0].Text, want)
}

// What the processes print becomes the rows of the group.
func TestCountWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	needCounters(t, dir)
	says := map[string]string{
		"good":    `echo "BenchmarkCycle/durable/backend=good/callers=2 8 5 ns/op 8600 written-B/op 9000 device-B/op"`,
		"blind":   `echo "# absent Written/cycle blind: no such file"; echo "BenchmarkCycle/durable/backend=blind/callers=2 8 5 ns/op"`,
		"absent":  `echo "bench: absent: no server" >&2; exit 3`,
		"broken":  `echo "boom" >&2; exit 1`,
		"chatter": `echo hello`,
	}
	var contenders []Contender
	for _, name := range []string{"good", "blind", "absent", "broken", "chatter"} {
		contenders = append(contenders, Contender{Name: name})
	}
	b := &Bench{Results: &Results{}, Dir: dir}
	b.CountWritten(One{Group: CycleDurable, Ops: 9}, contenders, []int{2}, func(o One) *exec.Cmd {
		assert.Equal(t, One{Group: CycleDurable, Contender: o.Contender, Callers: 2, Ops: 8, Dir: dir}, o)
		return exec.Command("sh", "-c", says[o.Contender])
	})
	assert.Equal(t, []Row{{
		Group: Written, Params: []Param{{"backend", "good"}, {"callers", "2"}}, Ops: 8, Values: []Value{{writtenOp, 8600}, {deviceOp, 9000}},
	}}, b.Results.Rows)
	assert.True(t, b.Failed)
	var notes []string
	for _, n := range b.Results.Notes {
		notes = append(notes, n.Kind+" "+n.Subject+": "+n.Text)
	}
	assert.Equal(t, []string{
		"absent Written/cycle blind: bench: absent: no such file",
		"absent Written/cycle absent: bench: absent: bench: absent: no server",
		"failed Written/cycle broken: exit status 1: boom",
		"failed Written/cycle chatter: 0 rows in the output, not 1",
	}, notes)

	lines := writtenLines(&Results{Rows: []Row{
		{Group: Written, Params: []Param{{"backend", "good"}, {"callers", "1"}}, Ops: 8, Values: []Value{{writtenOp, 8600}, {deviceOp, 9000}}},
		{Group: Written, Params: []Param{{"backend", "half"}, {"callers", "1"}}, Ops: 8, Values: []Value{{writtenOp, 700}}},
	}})
	require.Len(t, lines, 2)
	assert.Equal(t, Line{What: "bytes written for each cycle, 1 caller: good", Figure: "8,600 B", Reached: "-", Detail: "its device was sent 9 KB"}, lines[0])
	assert.Equal(t, Line{What: "bytes written for each cycle, 1 caller: half", Figure: "700 B", Reached: "-"}, lines[1])
	assert.Equal(t, []table{{
		Title: writtenTable(b.Results)[0].Title, Left: 1, Head: []string{"", "callers: 2", "disk"}, Rows: [][]string{{"good", "8.6 KB", "9 KB"}},
	}}, writtenTable(b.Results))
	assert.False(t, strings.Contains(writtenTable(b.Results)[0].Title, "strace"))
}
