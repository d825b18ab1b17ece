package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idemkv/idem/bench"
)

// The program starts itself to have contenders traced; here that is the test binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-one" {
		main()
	}
	os.Exit(m.Run())
}

// Everything runs with everybody, as "make bench" does, in little time. What is not
// installed is noted.
func TestSmoke(t *testing.T) {
	out := filepath.Join(t.TempDir(), "results")
	var stdout, stderr bytes.Buffer
	err := run([]string{"-smoke", "-out", out, "-dir", t.TempDir()}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, &stderr, &stdout)
	}
	r, err := bench.Load(filepath.Join(out, "raw.txt"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, row := range r.Rows {
		seen[row.Group+" "+row.Param("backend")] = true
	}
	// What the table compares with is there under the names that it looks for.
	for _, want := range []string{
		bench.GetHit + " raw-bbolt-view", bench.GetHit + " raw-pebble-get", bench.GetMiss + " raw-pebble-seek",
		bench.CycleDurable + " limit-log", bench.CycleDurable + " raw-bbolt-two", bench.CycleDurable + " raw-bbolt-grouped",
		bench.CycleDurable + " raw-bbolt-update", bench.CycleDurable + " raw-bbolt-batch", bench.CycleDurable + " raw-pebble-two",
		bench.CycleDurable + " raw-pebble-grouped", bench.CycleDurable + " raw-pebble-per-op",
		bench.SweepUnloaded + " raw-bbolt-deletes", bench.SweepUnloaded + " raw-pebble-deletes",
		bench.CycleDurable + " badger", bench.CycleDurable + " sqlite", bench.OpenLoop + " limit-log",
	} {
		if !seen[want] {
			t.Errorf("%s was not measured", want)
		}
	}
	if !strings.Contains(stdout.String(), "fastest map + clock + Record copy, 2 procs") {
		t.Errorf("no table: %s", &stdout)
	}
	for _, l := range bench.Table(r) {
		// A smoke run has neither 256 callers nor, perhaps, strace.
		if l.Reached == "not measured" && !strings.Contains(l.What, "callers") {
			t.Errorf("not measured: %s", l.What)
		}
	}

	// The report can be made again, elsewhere.
	stdout.Reset()
	again := filepath.Join(t.TempDir(), "again")
	if err := run([]string{"-report", filepath.Join(out, "raw.txt"), "-out", again}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"raw.txt", "table.txt", "report.html"} {
		was, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.ReadFile(filepath.Join(again, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(was, is) {
			t.Errorf("%s was made differently the second time", name)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nonsense"},
		{"something"},
		{"-full", "-smoke"},
		{"-run", "("},
		{"-contenders", "["},
		{"-report", "/no/such/raw.txt"},
		{"-dir", "/no/such/directory"},
		{"-one", "nobody"},
		{"-one", "limit/log", "-callers", "0"},
		{"-one", "limit/log", "-callers", "9", "-ops", "3"},
		{"-cpuprofile", "cpu.prof"},
		{"-one", "limit/log", "-cpuprofile", "/no/such/directory/cpu.prof"},
	} {
		var out bytes.Buffer
		if err := run(args, &out, &out); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

// One contender by itself is a line of figures, as a file of benchmarks has it.
func TestOneIsPrinted(t *testing.T) {
	t.Parallel()
	var out, stderr bytes.Buffer
	if err := run([]string{"-one", "idem/pebble", "-callers", "3", "-ops", "10", "-dir", t.TempDir()}, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	said := out.String()
	r, err := bench.Parse(&out)
	if err != nil || len(r.Rows) != 1 {
		t.Fatalf("%v: %s", err, said)
	}
	row := r.Rows[0]
	if row.Name() != "Cycle/durable/backend=pebble/callers=3" || row.Ops != 9 {
		t.Errorf("not what was run: %s", said)
	}
	if ns, ok := row.Value("ns/op"); !ok || ns <= 0 {
		t.Errorf("no time: %s", said)
	}
	if written, ok := row.Value("written-B/op"); len(r.Notes) == 0 && (!ok || written < 256) {
		t.Errorf("a cycle writes its result: %s", said)
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "cpu.prof")
	var out bytes.Buffer
	if err := run([]string{"-one", "limit/log", "-ops", "8", "-dir", t.TempDir(), "-cpuprofile", file}, &out, &out); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the profile: %v, %v", info, err)
	}
}
