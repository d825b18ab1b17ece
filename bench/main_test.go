package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	c "github.com/idemkv/idem/bench/contenders"
)

// The program starts itself to run contenders apart; here that is the test binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-one" {
		main()
		return
	}
	os.Exit(m.Run())
}

// Everything runs with everybody, as "make bench" does, in little time, from stores to
// report. What is not installed is noted. The figures mean nothing, but the counts do.
func TestSmoke(t *testing.T) { // not parallel: it sets GOMAXPROCS and counts goroutines
	out, dir := filepath.Join(t.TempDir(), "results"), t.TempDir()
	var stdout, stderr bytes.Buffer
	require.NoError(t, run([]string{"-smoke", "-out", out, "-dir", dir}, &stdout, &stderr), "%s%s", &stderr, &stdout)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "nothing stays behind")
	r, err := load(filepath.Join(out, "raw.txt"))
	require.NoError(t, err)
	assert.Empty(t, r.notes("failed"))

	missing := func(name string) bool {
		return r.get("absent/cycle/durable/"+name) != "" || r.get("absent/get/hit/"+name) != ""
	}
	for _, group := range []string{c.GetHit, c.GetMiss, c.ClaimReplay, c.CycleMemory, c.CycleDurable, c.DoSameCommit, c.SweepUnloaded} {
		for _, x := range c.All(group) {
			if !missing(x.Name) {
				assert.Contains(t, r.values("backend", group), x.Name, group)
			}
		}
	}
	for _, group := range []string{sweepLoaded, scaleHit, scaleMiss, scaleSize, scaleReopen, scaleGC, idle, open} {
		assert.NotEmpty(t, r.values("backend", group), group)
	}
	swept := 0
	for _, row := range r.rows {
		if fits(row, []string{c.SweepUnloaded, "backend=bolt"}) {
			swept += row.Iters
		}
	}
	assert.Equal(t, 512/64, swept, "in batches of 64")
	assert.Greater(t, r.median("raw-B/record", scaleSize, "backend=pebble", "keys=1e3"), float64(c.KeyBytes+scaleResult))

	// What the table compares with is there under the names that it looks for.
	assert.Contains(t, stdout.String(), "fastest map + clock + Record copy, procs: 2")
	unmeasured := regexp.MustCompile(`16 callers|64 callers`) // a smoke run has none, or too few samples for p99
	for _, l := range targets(r) {
		assert.True(t, l.Reached != "not measured" || unmeasured.MatchString(l.What), l.What)
	}

	// Nobody that idem is compared with leaves out a sync: each of the two steps of a lone
	// caller has one of its own at least. The documents say how many there are. A file that
	// has to grow adds one now and then.
	if r.get("absent/syncs/cycle") == "" {
		for name, want := range map[string]float64{
			"bolt": 4, "pebble": 2, "limit-log": 2, "raw-bbolt-two": 4, "raw-bbolt-grouped": 4, "raw-bbolt-update": 4, "raw-bbolt-batch": 4,
			"raw-bbolt-batch-tuned": 4, "raw-pebble-two": 2, "raw-pebble-grouped": 2, "raw-pebble-per-op": 2, "sqlite": 2, "sqlite-grouped": 2, "badger": 4, "badger-grouped": 4,
		} {
			assert.InDelta(t, want, r.median("syncs/op", syncs, "backend="+name, "callers=1"), 0.26, name)
		}
		for _, name := range r.values("backend", syncs) {
			assert.GreaterOrEqual(t, r.median("syncs/op", syncs, "backend="+name), 2.0, name)
		}
	}
	for _, name := range r.values("backend", written) {
		assert.Greater(t, r.median("written-B/op", written, "backend="+name), 64.0, "it writes the result: %s", name)
	}
	page, err := os.ReadFile(filepath.Join(out, "report.html"))
	require.NoError(t, err)
	checkPage(t, string(page))
	assert.Contains(t, string(page), "View and Get of the record bytes", "who does what")

	// The report can be made again, elsewhere.
	again := filepath.Join(t.TempDir(), "again")
	require.NoError(t, run([]string{"-report", filepath.Join(out, "raw.txt"), "-out", again}, &stdout, &stderr))
	for _, name := range []string{"raw.txt", "table.txt", "report.html"} {
		was, err1 := os.ReadFile(filepath.Join(out, name))
		is, err2 := os.ReadFile(filepath.Join(again, name))
		require.NoError(t, err1)
		require.NoError(t, err2)
		assert.True(t, bytes.Equal(was, is), "%s was made differently the second time", name)
	}
}

// checkPage: it is readable offline, and nothing in it runs.
func checkPage(t *testing.T, page string) {
	t.Helper()
	assert.Equal(t, strings.Count(page, "<svg"), strings.Count(page, "</svg>"))
	assert.Empty(t, regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|\bsrc=|href="[^#]|ZgotmplZ`).FindString(page))
	assert.False(t, strings.Contains(page, "NaN"))
}

// Every group has its latencies, its medians, and charts over what it takes several of.
func TestReport(t *testing.T) {
	t.Parallel()
	r := exemplary()
	latencies := []benchfmt.Value{value(1e6, "p50-ns"), value(2e6, "p99-ns"), value(3e6, "p99.9-ns"), value(4e6, "max-ns")}
	for _, row := range r.rows {
		if row.Values[0].Unit == "sec/op" {
			row.Values = append(row.Values, latencies...)
		}
	}
	for _, rate := range []string{"rate=500", "rate=8000"} {
		r.add(1, latencies, open, "backend=redis", rate, "procs=2")
	}
	var b strings.Builder
	require.NoError(t, writeReport(&b, r))
	page := b.String()
	checkPage(t, page)
	for _, want := range []string{
		`id="Get/hit"`, `id="Cycle/durable"`, `id="Open/durable"`, `id="Scale/gc"`, `id="Idle"`, "What the figures do not show", "63 of 63 targets",
		">Get/hit, keys=1e6, procs=2<", ">Cycle/durable, callers=256, procs=2<", ">Cycle/durable: operations a second by callers<",
		">Open/durable: p99-sec by rate<", ">Open/durable: p99.9-sec by rate<", ">Scale/miss: p50-sec by keys<", ">limit-log<", ">raw-pebble-grouped<",
		">backend=pebble/callers=16/procs=2</td><td>6</td><td>50.00ns<", "View and Get of the record bytes",
	} {
		assert.True(t, strings.Contains(page, want), want)
	}
}

func TestReportOfNothing(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.set("cpu", `CPU <1> & "2"`)
	r.set("absent/get/hit/redis", "not installed")
	var b strings.Builder
	require.NoError(t, writeReport(&b, r))
	for _, want := range []string{"CPU &lt;1&gt; &amp; &#34;2&#34;", "<b>absent</b> get/hit/redis: not installed", "0 of 0 targets"} {
		assert.Contains(t, b.String(), want)
	}
	assert.NotContains(t, b.String(), "<svg")
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
		{"-one", "limit-log", "-callers", "0"},
		{"-one", "limit-log", "-callers", "9", "-ops", "3"},
		{"-cpuprofile", "cpu.prof"},
		{"-one", "limit-log", "-cpuprofile", "/no/such/directory/cpu.prof"},
	} {
		var out bytes.Buffer
		assert.Error(t, run(args, &out, &out), args)
	}
}

// One contender by itself is a line of figures, as a file of benchmarks has it.
func TestOneIsPrinted(t *testing.T) {
	t.Parallel()
	var out, stderr bytes.Buffer
	profile := filepath.Join(t.TempDir(), "cpu.prof")
	require.NoError(t, run([]string{"-one", "pebble", "-callers", "3", "-ops", "10", "-dir", t.TempDir(), "-cpuprofile", profile}, &out, &stderr))
	r, err := parse(&out, "its output")
	require.NoError(t, err)
	require.Len(t, r.rows, 1)
	assert.Equal(t, "Cycle/durable/backend=pebble/callers=3", r.rows[0].Name.String())
	assert.Equal(t, 10, r.rows[0].Iters)
	assert.Positive(t, r.median("sec/op"))
	if len(r.notes("absent")) == 0 {
		assert.Greater(t, r.median("written-B/op"), 256.0)
	}
	info, err := os.Stat(profile)
	require.NoError(t, err)
	assert.Positive(t, info.Size())
}

func TestMachine(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.machine(t.TempDir())
	for _, key := range []string{"goos", "goarch", "pkg", "cores", "go", "clock-cost", "disk-sync"} {
		assert.True(t, r.get(key) != "", key)
	}
}
