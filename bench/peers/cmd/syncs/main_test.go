package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/bench"
)

func TestMain(m *testing.M) {
	if os.Getenv(oneEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// needStrace skips a test where strace is not installed or may not trace.
func needStrace(t *testing.T) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
}

// counted are the rows of a table: contender and callers, and the syncs of a cycle.
func counted(t *testing.T, table string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for line := range strings.Lines(table) {
		var name string
		var callers, cycles, syncs int
		var each float64
		if n, _ := fmt.Sscan(line, &name, &callers, &cycles, &syncs, &each); n == 5 {
			require.InDelta(t, float64(syncs)/float64(cycles), each, 0.006, line)
			out[fmt.Sprintf("%s %d", name, callers)] = each
		}
	}
	return out
}

// syncs runs the program and returns its table, which it also writes to a file.
func syncs(t *testing.T, args ...string) (table string, got map[string]float64) {
	t.Helper()
	needStrace(t)
	file := filepath.Join(t.TempDir(), "syncs.txt")
	var stdout, stderr bytes.Buffer
	args = append(args, "-cycles", "16", "-dir", t.TempDir(), "-out", file)
	require.NoError(t, run(args, &stdout, &stderr), "%s%s", &stdout, &stderr)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, stdout.String(), string(written))
	return stdout.String(), counted(t, stdout.String())
}

// Nobody that idem is compared with leaves out a sync: each of the two steps of a
// lone caller has one of its own at least.
func TestEverybodySyncs(t *testing.T) {
	t.Parallel()
	table, got := syncs(t, "-callers", "1")
	for _, c := range contenders() {
		name := bench.Label(c.Name)
		if strings.Contains(table, "absent: "+bench.Syncs+" "+name+":") {
			continue
		}
		require.Contains(t, got, name+" 1")
		require.GreaterOrEqual(t, got[name+" 1"], 2.0, name)
	}
	// What the documents say. A file that has to grow adds one now and then.
	for name, want := range map[string]float64{
		"bolt": 4, "pebble": 2, "limit-log": 2, "raw-bbolt-two": 4, "raw-bbolt-grouped": 4, "raw-bbolt-update": 4,
		"raw-bbolt-batch": 4, "raw-pebble-two": 2, "raw-pebble-grouped": 2, "raw-pebble-per-op": 2, "sqlite": 2, "badger": 4,
	} {
		require.InDelta(t, want, got[name+" 1"], 0.2, name)
	}
}

// Every contender's process, or its server's, is seen to write the result of each cycle.
func TestEverybodyWrites(t *testing.T) {
	t.Parallel()
	needStrace(t)
	var stdout, stderr bytes.Buffer
	args := []string{"-callers", "1", "-cycles", "16", "-dir", t.TempDir()}
	require.NoError(t, run(args, &stdout, &stderr), "%s%s", &stdout, &stderr)
	if strings.Contains(stdout.String(), "absent: "+bench.Written+" written-B/op:") {
		t.Skip("bytes written are not counted here")
	}
	for line := range strings.Lines(stdout.String()) {
		var name string
		var callers, cycles, syncs int
		var each, written float64
		if n, _ := fmt.Sscan(line, &name, &callers, &cycles, &syncs, &each, &written); n >= 5 {
			require.Equal(t, 6, n, line)
			require.Greater(t, written, 256.0, line)
		}
	}
}

// Callers of whoever groups share syncs, and SQLite's own do not.
func TestWhoSharesSyncs(t *testing.T) {
	t.Parallel()
	_, got := syncs(t, "-callers", "8", "-contenders", "^(idem/.*|limit/log|raw-.*/grouped|raw-pebble/two|sqlite.*)$")
	for name, alone := range map[string]float64{
		"bolt": 4, "pebble": 2, "limit-log": 2, "raw-bbolt-grouped": 4, "raw-pebble-grouped": 2, "raw-pebble-two": 2, "sqlite-grouped": 2,
	} {
		require.Contains(t, got, name+" 8")
		require.Positive(t, got[name+" 8"], name)
		require.Less(t, got[name+" 8"], alone, name)
	}
	require.InDelta(t, 2, got["sqlite 8"], 0.2)
}

// A contender that does not sync stands in the table as such, and one that failed
// makes the program fail.
func TestTable(t *testing.T) {
	t.Parallel()
	r := &bench.Results{Rows: []bench.Row{
		{
			Group: bench.Syncs, Params: []bench.Param{{Name: "backend", Value: "good"}, {Name: "callers", Value: "1"}}, Ops: 100,
			Values: []bench.Value{{Unit: "syncs/op", Amount: 2.5}, {Unit: "fsync/op", Amount: 0.5}, {Unit: "msync/op", Amount: 2}},
		},
		{
			Group: bench.Syncs, Params: []bench.Param{{Name: "backend", Value: "bad"}, {Name: "callers", Value: "16"}}, Ops: 32,
			Values: []bench.Value{{Unit: "syncs/op", Amount: 0}},
		},
		{
			Group: bench.Written, Params: []bench.Param{{Name: "backend", Value: "good"}, {Name: "callers", Value: "1"}}, Ops: 100,
			Values: []bench.Value{{Unit: "written-B/op", Amount: 8601.6}, {Unit: "device-B/op", Amount: 12288}},
		},
	}, Notes: []bench.Note{{Kind: "absent", Subject: "x", Text: "no x here"}}}
	var out strings.Builder
	require.NoError(t, write(&out, r))
	require.Regexp(t, `(?m)^good +1 +100 +250 +2\.50 +8602 +12288 +fsync, msync$`, out.String())
	require.Regexp(t, `(?m)^bad +16 +32 +0 +0\.00 +– +– +nothing: IT DOES NOT SYNC$`, out.String())
	require.Contains(t, out.String(), "absent: x: no x here")
	r.Notes = append(r.Notes, bench.Note{Kind: "failed", Subject: "y", Text: "boom"})
	require.Error(t, write(&out, r))
	require.Contains(t, out.String(), "failed: y: boom")
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-callers", "0"},
		{"-callers", "x"},
		{"-callers", "4", "-cycles", "3"},
		{"-contenders", "("},
		{"more"},
		{"-unknown"},
		{"-dir", filepath.Join(t.TempDir(), "not there")},
	} {
		var stdout, stderr bytes.Buffer
		require.Error(t, run(args, &stdout, &stderr), args)
		require.Empty(t, stdout.String())
	}
}
