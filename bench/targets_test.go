package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	c "github.com/idemkv/idem/bench/contenders"
)

// exemplary is a run in which everything is reached, each figure well inside.
func exemplary() *results {
	r := &results{}
	add := func(values []benchfmt.Value, name ...string) {
		for range 6 {
			r.add(1, append([]benchfmt.Value(nil), values...), name...)
		}
	}
	quick := func(ns float64) []benchfmt.Value {
		return []benchfmt.Value{value(ns, "ns/op"), value(0.004, "allocs/op")}
	}
	for _, procs := range []string{"procs=1", "procs=2"} {
		for _, keys := range []string{"keys=1e5", "keys=1e6"} {
			look := func(group, backend string, ns float64) { add(quick(ns), group, "backend="+backend, keys, procs) }
			for _, group := range []string{c.GetHit, c.GetMiss, c.ClaimReplay} {
				look(group, "memory", 100)
				look(group, "bolt", 120)
				look(group, "pebble", 120)
			}
			look(c.ClaimReplay, "memory-get", 90)
			look(c.GetHit, "floor-map-slow", 500)
			look(c.GetHit, "floor-map-xsync", 95)
			look(c.GetHit, "bolt-uncached", 1100)
			look(c.GetHit, "raw-bbolt-view", 1000)
			for _, group := range []string{c.GetHit, c.GetMiss} {
				look(group, "pebble-uncached", 1100)
				look(group, "raw-pebble-get", 3000)
				look(group, "raw-pebble-seek", 1000)
			}
		}
	}
	add([]benchfmt.Value{value(800, "ns/op"), value(4.97, "allocs/op")}, c.CycleMemory, "backend=memory", "procs=1")
	for callers, all := range map[string]map[string]float64{
		"1":   {"bolt": 1.1e6, "pebble": 0.5e6, "raw-bbolt-two": 1e6, "raw-pebble-two": 0.5e6, "redis": 0.6e6, "liar": 1},
		"16":  {"pebble": 50, "redis": 60, "liar": 1},
		"64":  {"pebble": 50, "redis": 60, "liar": 1},
		"256": {"pebble": 50, "redis": 60, "liar": 1, "bolt": 100, "raw-pebble-grouped": 45, "raw-pebble-per-op": 150, "limit-log": 30, "raw-bbolt-grouped": 90, "raw-bbolt-update": 2500, "raw-bbolt-batch": 130},
	} {
		for backend, ns := range all {
			add(quick(ns), c.CycleDurable, "backend="+backend, "callers="+callers, "procs=2")
		}
	}
	for backend, n := range map[string]float64{"bolt": 4, "pebble": 2, "redis": 2, "liar": 0} {
		r.made("syncs/op", []float64{n}, syncs, "backend="+backend, "callers=1")
	}
	r.add(1, []benchfmt.Value{value(8600, "written-B/op"), value(9216, "device-B/op")}, written, "backend=pebble", "callers=1")
	for backend, ns := range map[string]float64{
		"raw-bbolt-one": 600, "raw-bbolt-two": 1000, "bolt": 500, "bolt-claim-complete": 1000, "bolt-claim-write-complete": 1500,
		"pebble": 500, "pebble-claim-complete": 1000, "pebble-claim-write-complete": 1500,
	} {
		add(quick(ns), c.DoSameCommit, "backend="+backend, "callers=1", "procs=2")
	}
	for backend, raw := range map[string]string{"bolt": "raw-bbolt-deletes", "pebble": "raw-pebble-deletes"} {
		add(quick(100), c.SweepUnloaded, "backend="+backend, "keys=1e5")
		add(quick(90), c.SweepUnloaded, "backend="+raw, "keys=1e5")
		add([]benchfmt.Value{value(100, "p99-ns")}, sweepLoaded, "backend="+backend, "sweep=off")
		add([]benchfmt.Value{value(150, "p99-ns"), value(30_000, "removed/s")}, sweepLoaded, "backend="+backend, "sweep=on")
	}
	for keys, ns := range map[string]float64{"keys=1e5": 1000, "keys=1e6": 1500, "keys=1e7": 1900} {
		add([]benchfmt.Value{value(ns, "p50-ns")}, scaleHit, "backend=pebble", keys)
		add([]benchfmt.Value{value(ns, "p50-ns")}, scaleMiss, "backend=pebble", keys)
		add([]benchfmt.Value{value(1e8, "ns/op")}, scaleReopen, "backend=pebble", keys)
		add([]benchfmt.Value{value(250, "disk-B/record"), value(200, "raw-B/record")}, scaleSize, "backend=pebble", keys)
		add([]benchfmt.Value{value(300, "heap-B/record")}, scaleSize, "backend=memory", keys)
	}
	for _, callers := range []string{"callers=1", "callers=2"} {
		add([]benchfmt.Value{value(300, "in-gc-p99-ns"), value(200, "no-gc-p99-ns")}, scaleGC, "backend=memory", "keys=1e7", callers)
	}
	add([]benchfmt.Value{value(1e6, "cpu-ns/s")}, idle, "backend=none")
	for _, backend := range c.Engines {
		add([]benchfmt.Value{value(1.2e6, "cpu-ns/s"), value(1, "own-goroutines")}, idle, "backend="+backend)
	}
	return r
}

func TestTableOfAnExemplaryRun(t *testing.T) {
	t.Parallel()
	judged, text := 0, map[string]line{}
	for _, l := range targets(exemplary()) {
		text[l.What] = l
		if l.Target == "" {
			assert.Equal(t, "-", l.Reached, "%+v", l)
			continue
		}
		judged++
		assert.Equal(t, "yes", l.Reached, "%+v", l)
		assert.NotEmpty(t, l.Figure)
	}
	assert.Equal(t, 63, judged)
	for what, figure := range map[string]string{
		"memory: Get hit to the fastest map + clock + Record copy, procs: 2":                                         "1.05x floor-map-xsync",
		"pebble: uncached Get/miss to the faster of raw Get and raw seek, procs: 1":                                  "1.1x raw-pebble-seek",
		"bolt: cycles/s, 256 callers, of DB.Update":                                                                  "25x ",
		"pebble: cycles/s, 256 callers, of the bare log":                                                             "0.6x ",
		"pebble: growth of the median of Scale/hit, keys=1e5 to keys=1e7":                                            "1.9x 64 MB block cache",
		"memory: bytes besides key and result, keys=1e7":                                                             "220.0B ",
		"bolt: same-commit Do, 1 caller, cycles/s of Claim + Complete":                                               "2x ",
		"pebble: idle store, CPU beyond the process without it":                                                      "0.2 ms/s ",
		"pebble: cycles/s of the best peer, 256 callers":                                                             "1.2x redis", // nobody is compared with one that does not sync
		"syncs for each cycle, 1 caller: liar":                                                                       "0 does not sync both steps: not compared with",
		"bytes written for each cycle, 1 caller: pebble":                                                             "8.398KiB its device was sent 9.000KiB",
		"memory: Claim + Complete of a new key, allocations beyond the bench's key and the copies of key and result": "2 ",
	} {
		assert.Equal(t, figure, text[what].Figure+" "+text[what].Of, what)
	}
}

// Whatever gets several times as bad is seen: each line fails in its turn.
func TestTableSeesWhatIsNotReached(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		unit  string
		parts []string
		what  string // begins with
		n     int
	}{
		{"sec/op", []string{c.GetHit, "backend=memory", "procs=1"}, "memory: Get hit to the fastest map + clock + Record copy, procs: 1", 1},
		{"allocs/op", []string{c.GetHit, "backend=memory"}, "memory: Get hit, allocations", 2},
		{"sec/op", []string{c.ClaimReplay, "backend=memory"}, "memory: replay to Get", 2},
		{"allocs/op", []string{c.ClaimReplay, "backend=memory"}, "memory: replay, allocations", 2},
		{"allocs/op", []string{c.CycleMemory, "backend=memory"}, "memory: Claim + Complete", 1},
		{"sec/op", []string{c.GetHit, "backend=bolt"}, "bolt: cached Get/hit to memory's", 2},
		{"sec/op", []string{c.ClaimReplay, "backend=pebble"}, "pebble: cached Claim/replay to memory's", 2},
		{"allocs/op", []string{c.ClaimReplay, "backend=pebble"}, "pebble: cached Claim/replay, allocations", 2},
		{"sec/op", []string{c.GetHit, "backend=bolt-uncached"}, "bolt: uncached Get hit", 2},
		{"sec/op", []string{c.GetMiss, "backend=pebble-uncached"}, "pebble: uncached Get/miss", 2},
		{"sec/op", []string{c.CycleDurable, "backend=bolt", "callers=1"}, "bolt: durable cycle, 1 caller", 1},
		{"sec/op", []string{c.CycleDurable, "backend=bolt", "callers=256"}, "bolt: cycles/s, 256 callers", 3},
		{"sec/op", []string{c.CycleDurable, "backend=pebble", "callers=1"}, "pebble: durable cycle, 1 caller", 2},
		{"sec/op", []string{c.CycleDurable, "backend=pebble", "callers=16"}, "pebble: cycles/s of the best peer, 16 callers", 1},
		{"sec/op", []string{c.CycleDurable, "backend=pebble", "callers=256"}, "pebble: cycles/s", 3},
		{"sec/op", []string{c.DoSameCommit, "backend=bolt"}, "bolt: same-commit Do, 1 caller, cycles/s of Claim + Complete", 1},
		{"p50-sec", []string{scaleHit, "keys=1e7"}, "pebble: growth of the median of Scale/hit", 1},
		{"p50-sec", []string{scaleMiss, "keys=1e7"}, "pebble: growth of the median of Scale/miss", 1},
		{"disk-B/record", []string{scaleSize, "backend=pebble"}, "pebble: bytes on disk", 1},
		{"heap-B/record", []string{scaleSize, "backend=memory"}, "memory: bytes besides", 1},
		{"sec/op", []string{scaleReopen, "backend=pebble", "keys=1e7"}, "pebble: reopening", 1},
		{"in-gc-p99-sec", []string{scaleGC}, "memory: p99 of Get inside a GC cycle", 2},
		{"sec/op", []string{c.SweepUnloaded, "backend=pebble"}, "pebble: unloaded sweep", 1},
		{"p99-sec", []string{sweepLoaded, "backend=bolt", "sweep=on"}, "bolt: p99 of 16 callers", 1},
		{"removed/s", []string{sweepLoaded, "backend=pebble"}, "pebble: removed under", 1},
		{"removed/s", []string{sweepLoaded, "backend=bolt"}, "bolt: removed under", 1},
		{"cpu-sec/s", []string{idle, "backend=pebble"}, "pebble: idle store, CPU", 1},
		{"own-goroutines", []string{idle, "backend=memory"}, "memory: idle store, goroutines", 1},
	} {
		r, hit := exemplary(), false
		for _, row := range r.rows {
			for i, v := range row.Values {
				if !fits(row, x.parts) || v.Unit != x.unit {
					continue
				}
				hit = true
				switch {
				case x.unit == "removed/s":
					row.Values[i].Value /= 30
				case x.unit == "allocs/op":
					row.Values[i].Value++
				case x.parts[0] == scaleReopen:
					row.Values[i].Value *= 20
				default:
					row.Values[i].Value *= 4.5
				}
			}
		}
		require.True(t, hit, x)
		missed := 0
		for _, l := range targets(r) {
			if l.Reached == "NO" {
				missed++
				assert.True(t, strings.HasPrefix(l.What, x.what), "%q was to fail, %q did", x.what, l.What)
			}
		}
		assert.Equal(t, x.n, missed, x.what)
	}
}

func TestTableOfNothing(t *testing.T) {
	t.Parallel()
	for _, l := range targets(&results{}) {
		assert.Equal(t, "not measured", l.Reached, l.What)
		assert.Empty(t, l.Figure)
	}
}

func TestTableSaysHowSureItIs(t *testing.T) {
	t.Parallel()
	tab := &table{results: &results{}}
	tab.add("six", "x", []float64{1, 2, 3, 4, 5, 6}, atMost(3), "")
	tab.add("five", "x", []float64{1, 2, 3, 4, 5}, &bound{"more than", 3}, "")
	tab.add("exact", "sec", []float64{1e-6, 1e-6}, nil, "")
	assert.Equal(t, []line{
		{What: "six", Figure: "3.5x", Interval: "1x to 6x", Target: "at most 3x", Reached: "NO"},
		{What: "five", Figure: "3x", Interval: "too few rounds: 5", Target: "more than 3x", Reached: "NO"},
		{What: "exact", Figure: "1.000µs", Reached: "-"},
	}, tab.lines)
}

func TestWriteTable(t *testing.T) {
	t.Parallel()
	r := exemplary()
	r.set("cpu", "Some CPU")
	r.set("absent/get/hit/redis", "not installed")
	var b strings.Builder
	require.NoError(t, writeTable(&b, r))
	lines := strings.Split(b.String(), "\n")
	assert.Contains(t, lines, "cpu: Some CPU")
	assert.Contains(t, lines, "absent: get/hit/redis: not installed")
	column, rows := 0, 0
	for _, l := range lines {
		assert.Equal(t, strings.TrimRight(l, " "), l)
		if strings.HasPrefix(l, "what ") {
			column = strings.Index(l, "reached")
		} else if column > 0 && rows < 60 {
			rows++
			assert.Contains(t, []string{"yes", "-"}, strings.Fields(l[column:])[0], l)
		}
	}
	assert.Equal(t, 60, rows)
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for backend, k := range map[string]kind{
		"memory": ours, "bolt-uncached": ours, "pebble-claim-complete": ours, "raw-bbolt-two": bare, "raw-map-xsync": bare,
		"floor-map-xsync": limits, "limit-log": limits, "redis": rival, "badger-grouped": rival, "boltdb": rival,
	} {
		assert.Equal(t, k, kindOf(backend), backend)
	}
}
