package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exemplary is a run in which everything is reached, each figure well inside.
func exemplary() *Results {
	r := &Results{}
	add := func(group, backend string, values []Value, params ...string) {
		for range 3 {
			x := row(group, backend, "", 0, params...)
			x.Values = values
			r.Rows = append(r.Rows, x)
		}
	}
	quick := func(ns float64) []Value { return []Value{{nsOp, ns}, {allocsOp, 0.004}} }
	for _, procs := range []string{"1", "2"} {
		for _, keys := range []string{"1e5", "1e6"} {
			look := func(group, backend string, ns float64) { add(group, backend, quick(ns), "keys", keys, "procs", procs) }
			for _, group := range []string{GetHit, GetMiss, ClaimReplay} {
				look(group, "memory", 100)
				look(group, "bolt", 120)
				look(group, "pebble", 120)
			}
			look(ClaimReplay, "memory-get", 90)
			look(GetHit, "floor-map-slow", 500)
			look(GetHit, "floor-map-xsync", 95)
			look(GetHit, "bolt-uncached", 1100)
			look(GetHit, "raw-bbolt-view", 1000)
			for _, group := range []string{GetHit, GetMiss} {
				look(group, "pebble-uncached", 1100)
				look(group, "raw-pebble-get", 3000)
				look(group, "raw-pebble-seek", 1000)
			}
		}
	}
	add(CycleMemory, "memory", []Value{{nsOp, 800}, {allocsOp, 4.97}}, "procs", "1")
	for callers, ns := range map[string]map[string]float64{
		"1":   {"bolt": 1.1e6, "pebble": 0.5e6, "raw-bbolt-two": 1e6, "raw-pebble-two": 0.5e6, "redis": 0.6e6, "liar": 1},
		"16":  {"pebble": 50, "redis": 60, "liar": 1},
		"64":  {"pebble": 50, "redis": 60, "liar": 1},
		"256": {"pebble": 50, "redis": 60, "liar": 1, "bolt": 100, "raw-pebble-grouped": 45, "raw-pebble-per-op": 150, "limit-log": 30, "raw-bbolt-grouped": 90, "raw-bbolt-update": 2500, "raw-bbolt-batch": 130},
	} {
		for backend, ns := range ns {
			add(CycleDurable, backend, quick(ns), "callers", callers, "procs", "2")
		}
	}
	for backend, n := range map[string]float64{"bolt": 4, "pebble": 2, "redis": 2, "liar": 0} {
		add(Syncs, backend, []Value{{"syncs/op", n}}, "callers", "1")
	}
	add(DoSameCommit, Label(RawBoltOne), quick(600), "callers", "1", "procs", "2")
	add(DoSameCommit, Label(RawBoltHalves), quick(1000), "callers", "1", "procs", "2")
	for _, backend := range []string{"bolt", "pebble"} {
		add(DoSameCommit, backend, quick(500), "callers", "1", "procs", "2")
		add(DoSameCommit, backend+"-claim-complete", quick(1000), "callers", "1", "procs", "2")
		add(DoSameCommit, backend+"-claim-write-complete", quick(1500), "callers", "1", "procs", "2")
		add(SweepUnloaded, backend, quick(100), "keys", "1e5", "callers", "1", "procs", "2")
		add(SweepUnloaded, "raw-"+map[string]string{"bolt": "bbolt", "pebble": "pebble"}[backend]+"-deletes", quick(90), "keys", "1e5", "callers", "1", "procs", "2")
		add(SweepLoaded, backend, []Value{{"p99-ns", 100}}, "sweep", "off", "callers", "16", "procs", "2")
		add(SweepLoaded, backend, []Value{{"p99-ns", 150}, {"removed/s", 30_000}}, "sweep", "on", "callers", "16", "procs", "2")
	}
	for keys, ns := range map[string]float64{"1e5": 1000, "1e6": 1500, "1e7": 1900} {
		add(ScaleHit, "pebble", []Value{{"p50-ns", ns}}, "keys", keys, "procs", "2")
		add(ScaleMiss, "pebble", []Value{{"p50-ns", ns}}, "keys", keys, "procs", "2")
		add(ScaleReopen, "pebble", []Value{{nsOp, 1e8}}, "keys", keys)
		add(ScaleSize, "pebble", []Value{{"disk-B/record", 250}, {"raw-B/record", 200}}, "keys", keys)
		add(ScaleSize, "memory", []Value{{"heap-B/record", 300}}, "keys", keys)
	}
	add(ScaleGC, "memory", []Value{{"in-gc-p99-ns", 300}, {"no-gc-p99-ns", 200}}, "keys", "1e7", "callers", "1", "procs", "2")
	add(Idle, "none", []Value{{"cpu-ns/s", 1e6}})
	for _, backend := range []string{"memory", "bolt", "pebble"} {
		add(Idle, backend, []Value{{"cpu-ns/s", 1.2e6}, {"own-goroutines", 1}})
	}
	return r
}

func TestTableOfAnExemplaryRun(t *testing.T) {
	t.Parallel()
	lines := Table(exemplary())
	judged := 0
	for _, l := range lines {
		if l.Target == "" {
			assert.Equal(t, "-", l.Reached, "%+v", l)
			continue
		}
		judged++
		assert.Equal(t, "yes", l.Reached, "%+v", l)
		assert.NotEmpty(t, l.Figure)
	}
	assert.Equal(t, 62, judged)

	text := map[string]Line{}
	for _, l := range lines {
		text[l.What] = l
	}
	assert.Equal(t, "1.05x", text["memory: Get hit to the fastest map + clock + Record copy, 2 procs"].Figure)
	assert.Equal(t, "floor-map-xsync", text["memory: Get hit to the fastest map + clock + Record copy, 2 procs"].Detail)
	assert.Equal(t, "raw-pebble-seek", text["pebble: uncached Get/miss to the faster of raw Get and raw seek, 1 proc"].Detail)
	assert.Equal(t, "25x", text["bolt: cycles/s, 256 callers, of DB.Update"].Figure)
	assert.Equal(t, "0.6x", text["pebble: cycles/s, 256 callers, of the bare log"].Figure)
	assert.Equal(t, "1.9x", text["pebble: growth of the median of Scale/hit, 1e5 to 1e7 keys"].Figure)
	assert.Equal(t, "220 B", text["memory: bytes beside key and result, 1e7 keys"].Figure)
	assert.Equal(t, "2x", text["bolt: same-commit Do, 1 caller, cycles/s of Claim + Complete"].Figure)
	assert.Equal(t, "0.2 ms/s", text["pebble: idle store, CPU beyond the process without it"].Figure)
	assert.Equal(t, "redis", text["pebble: cycles/s of the best peer, 256 callers"].Detail, "nobody is compared with one that does not sync")
	assert.Contains(t, text["syncs for each cycle, 1 caller: liar"].Detail, "not compared with")
	assert.Equal(t, "2", text["memory: Claim + Complete of a new key, allocations beyond the bench's key and the copies of key and result"].Figure)
}

// Whatever gets three times as bad is seen: each line fails in its turn.
func TestTableSeesWhatIsNotReached(t *testing.T) {
	t.Parallel()
	worse := func(group, backend, unit string, params ...string) *Results {
		r := exemplary()
		m, hit := where(group, append([]string{"backend", backend}, params...)...), false
		for i, row := range r.Rows {
			if !m.fits(row) {
				continue
			}
			r.Rows[i].Values = append([]Value(nil), row.Values...)
			for j, v := range row.Values {
				if v.Unit != unit {
					continue
				}
				hit = true
				switch {
				case unit == "removed/s":
					r.Rows[i].Values[j].Amount = v.Amount / 30
				case unit == allocsOp:
					r.Rows[i].Values[j].Amount = v.Amount + 1
				default:
					r.Rows[i].Values[j].Amount = v.Amount * 4.5
				}
			}
		}
		require.True(t, hit, "%s %s %s", group, backend, unit)
		return r
	}
	for _, x := range []struct {
		r    *Results
		what string // begins with
		n    int
	}{
		{worse(GetHit, "memory", nsOp, "procs", "1"), "memory: Get hit to the fastest map + clock + Record copy, 1 proc", 1},
		{worse(GetHit, "memory", allocsOp), "memory: Get hit, allocations", 2},
		{worse(ClaimReplay, "memory", nsOp), "memory: replay to Get", 2},
		{worse(ClaimReplay, "memory", allocsOp), "memory: replay, allocations", 2},
		{worse(CycleMemory, "memory", allocsOp), "memory: Claim + Complete", 1},
		{worse(GetHit, "bolt", nsOp), "bolt: cached Get/hit to memory's", 2},
		{worse(ClaimReplay, "pebble", nsOp), "pebble: cached Claim/replay to memory's", 2},
		{worse(ClaimReplay, "pebble", allocsOp), "pebble: cached Claim/replay, allocations", 2},
		{worse(GetHit, "bolt-uncached", nsOp), "bolt: uncached Get hit", 2},
		{worse(GetMiss, "pebble-uncached", nsOp), "pebble: uncached Get/miss", 2},
		{worse(CycleDurable, "bolt", nsOp, "callers", "1"), "bolt: durable cycle, 1 caller", 1},
		{worse(CycleDurable, "bolt", nsOp, "callers", "256"), "bolt: cycles/s, 256 callers", 3},
		{worse(CycleDurable, "pebble", nsOp, "callers", "1"), "pebble: durable cycle, 1 caller", 2},
		{worse(CycleDurable, "pebble", nsOp, "callers", "16"), "pebble: cycles/s of the best peer, 16 callers", 1},
		{worse(CycleDurable, "pebble", nsOp, "callers", "256"), "pebble: cycles/s", 3},
		{worse(DoSameCommit, "bolt", nsOp), "bolt: same-commit Do, 1 caller, cycles/s of Claim + Complete", 1},
		{worse(ScaleHit, "pebble", "p50-ns", "keys", "1e7"), "pebble: growth of the median of Scale/hit", 1},
		{worse(ScaleMiss, "pebble", "p50-ns", "keys", "1e7"), "pebble: growth of the median of Scale/miss", 1},
		{worse(ScaleSize, "pebble", "disk-B/record"), "pebble: bytes on disk", 1},
		{worse(ScaleSize, "memory", "heap-B/record"), "memory: bytes beside", 1},
		{worse(ScaleGC, "memory", "in-gc-p99-ns"), "memory: p99 of Get inside a GC cycle", 1},
		{worse(SweepUnloaded, "pebble", nsOp), "pebble: unloaded sweep", 1},
		{worse(SweepLoaded, "bolt", "p99-ns", "sweep", "on"), "bolt: p99 of 16 callers", 1},
		{worse(SweepLoaded, "pebble", "removed/s"), "pebble: removed under", 1},
		{worse(SweepLoaded, "bolt", "removed/s"), "bolt: removed under", 1},
		{worse(Idle, "pebble", "cpu-ns/s"), "pebble: idle store, CPU", 1},
		{worse(Idle, "memory", "own-goroutines"), "memory: idle store, goroutines", 1},
	} {
		missed := 0
		for _, l := range Table(x.r) {
			if l.Reached == "NO" {
				missed++
				assert.True(t, strings.HasPrefix(l.What, x.what), "%q was to fail, %q did", x.what, l.What)
			}
		}
		assert.Equal(t, x.n, missed, x.what)
	}
	slow := exemplary()
	for i, row := range slow.Rows {
		if row.Group == ScaleReopen {
			slow.Rows[i].Values = []Value{{nsOp, 2e9}}
		}
	}
	assert.Contains(t, Table(slow), Line{What: "pebble: reopening 1e7 keys", Figure: "2 s", Target: "at most 1 s", Reached: "NO"})
}

func TestTableOfNothing(t *testing.T) {
	t.Parallel()
	for _, l := range Table(&Results{}) {
		assert.Equal(t, "not measured", l.Reached, l.What)
		assert.Empty(t, l.Figure)
	}
}

func TestWriteTable(t *testing.T) {
	t.Parallel()
	r := exemplary()
	r.Header = []Param{{"cpu", "Some CPU"}, {"commit", "abc"}}
	r.note("absent", "Get/hit redis", "not installed")
	r.note("does", "Get/hit memory", "Get")
	var b strings.Builder
	require.NoError(t, WriteTable(&b, r))
	lines := strings.Split(b.String(), "\n")
	assert.Contains(t, lines, "cpu: Some CPU")
	assert.Contains(t, lines, "absent: Get/hit redis: not installed")
	assert.NotContains(t, b.String(), "Get/hit memory: Get")
	column := -1
	for i, l := range lines {
		assert.Equal(t, strings.TrimRight(l, " "), l)
		if strings.HasPrefix(l, "what ") {
			column = strings.Index(l, "reached")
			lines = lines[i+2:]
			break
		}
	}
	require.Positive(t, column)
	for _, l := range lines[:50] {
		reached := strings.Fields(l[column:])[0]
		assert.Contains(t, []string{"yes", "-"}, reached, l)
	}
}
