package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/idemkv/idem/bench/chart"
	c "github.com/idemkv/idem/bench/contenders"
)

// line is a line of the table: something that was to be reached, and whether it was.
type line struct {
	What             string
	Figure, Interval string // the median over the rounds; empty if it was not measured
	Target           string // empty if it is only reported
	Reached          string // "yes", "NO", "not measured", or "-" without a target
	Of               string // what the figure is of, where that is not plain: the fastest of several
}

// bound is what a figure must reach.
type bound struct {
	words string // "at most", "at least", "more than"
	value float64
}

func atMost(v float64) *bound  { return &bound{"at most", v} }
func atLeast(v float64) *bound { return &bound{"at least", v} }

// table compares results with what must be reached. What was not measured is in it too.
type table struct {
	*results
	lines []line
}

func targets(r *results) []line {
	t := &table{results: r}
	for _, part := range []func(){t.lookups, t.cycles, t.effects, t.growth, t.sweeps, t.idle, t.counted} {
		part()
	}
	return t.lines
}

// add adds a line about the median of figures.
func (t *table) add(what, unit string, figures []float64, b *bound, of string) {
	l := line{What: what, Reached: "-", Of: of}
	show := func(v float64) string {
		if unit == "sec" || unit == "B" {
			return chart.Format(v, unit)
		}
		return chart.Format(v, "") + unit
	}
	if b != nil {
		l.Target = b.words + " " + show(b.value)
	}
	s, measured := summary(figures)
	switch {
	case !measured:
		l.Reached = "not measured"
		t.lines = append(t.lines, l)
		return
	case b == nil:
	case b.words == "at most" && s.Center <= b.value, b.words == "at least" && s.Center >= b.value, b.words == "more than" && s.Center > b.value:
		l.Reached = "yes"
	default:
		l.Reached = "NO"
	}
	l.Figure = show(s.Center)
	if low, high := slices.Min(figures), slices.Max(figures); math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		if low != high {
			l.Interval = fmt.Sprintf("too few rounds: %d", len(figures))
		}
	} else if s.Lo != s.Hi {
		l.Interval = show(s.Lo) + " to " + show(s.Hi)
	}
	t.lines = append(t.lines, l)
}

// slower says how many times as long one takes as another, faster how many times as many
// operations it does: the median of the rounds' ratios.
func (t *table) slower(what string, of, than []string, b *bound, detail string) {
	t.add(what, "x", ratios(t.series("sec/op", of...), t.series("sec/op", than...)), b, detail)
}

func (t *table) faster(what string, of, than []string, b *bound, detail string) {
	t.slower(what, than, of, b, detail)
}

// fastest is the backend with the least median. It is chosen once and not again in each
// round: the fastest of several in a round would owe its place to luck.
func (t *table) fastest(backends []string, parts ...string) (best string) {
	lowest := math.Inf(1)
	for _, backend := range backends {
		if v := t.median("sec/op", append([]string{"backend=" + backend}, parts...)...); v < lowest {
			best, lowest = backend, v
		}
	}
	return best
}

// largest is the last number of keys that a group has rows of, as a part of a name.
func (t *table) largest(parts ...string) string {
	keys := t.values("keys", parts...)
	if len(keys) == 0 {
		return "keys="
	}
	return "keys=" + keys[len(keys)-1]
}

// allocs is about allocations beyond those that are granted, to a tenth: what the bench
// itself allocates in a slice, and a table that grows now and then, come to less.
func (t *table) allocs(what string, parts []string, granted float64, b *bound) {
	figures := t.series("allocs/op", parts...)
	for i := range figures {
		figures[i] = math.Round(10*(figures[i]-granted)) / 10
	}
	t.add(what, "", figures, b, "")
}

func (t *table) lookups() {
	for _, procs := range []string{"1", "2"} {
		on := ", procs: " + procs
		at := func(group, backend string) []string {
			return []string{group, "backend=" + backend, t.largest(group), "procs=" + procs}
		}
		hit, replay := at(c.GetHit, "memory"), at(c.ClaimReplay, "memory")
		floors := slices.DeleteFunc(t.values("backend", c.GetHit), func(name string) bool { return !strings.HasPrefix(name, "floor-map-") })
		floor := t.fastest(floors, c.GetHit, t.largest(c.GetHit), "procs="+procs)
		t.allocs("memory: Get hit, allocations"+on, hit, 0, atMost(0))
		t.slower("memory: Get hit to the fastest map + clock + Record copy"+on, hit, at(c.GetHit, floor), atMost(1.25), floor)
		t.allocs("memory: replay, allocations"+on, replay, 0, atMost(0))
		t.slower("memory: replay to Get"+on, replay, at(c.ClaimReplay, "memory-get"), atMost(1.5), "")
		for _, group := range []string{c.GetHit, c.ClaimReplay} {
			for _, backend := range []string{"bolt", "pebble"} {
				what := fmt.Sprintf("%s: cached %s", backend, group)
				t.allocs(what+", allocations"+on, at(group, backend), 0, atMost(0))
				t.slower(what+" to memory's"+on, at(group, backend), at(group, "memory"), atMost(map[string]float64{"1": 1.5, "2": 2.5}[procs]), "")
			}
		}
		t.slower("bolt: uncached Get hit to raw View + Get"+on, at(c.GetHit, "bolt-uncached"), at(c.GetHit, "raw-bbolt-view"), atMost(1.3), "")
		for _, group := range []string{c.GetHit, c.GetMiss} {
			raw := t.fastest([]string{"raw-pebble-get", "raw-pebble-seek"}, group, t.largest(group), "procs="+procs)
			t.slower("pebble: uncached "+group+" to the faster of raw Get and raw seek"+on, at(group, "pebble-uncached"), at(group, raw), atMost(1.2), raw)
		}
	}
	t.allocs("memory: Claim + Complete of a new key, allocations beyond the bench's key and the copies of key and result",
		[]string{c.CycleMemory, "backend=memory", "procs=1"}, 3, atMost(2))
}

func (t *table) cycles() {
	at := func(backend, callers string) []string {
		return []string{c.CycleDurable, "backend=" + backend, "callers=" + callers}
	}
	t.slower("bolt: durable cycle, 1 caller, to two bare synced commits", at("bolt", "1"), at("raw-bbolt-two", "1"), atMost(1.15), "")
	t.slower("pebble: durable cycle, 1 caller, to two bare synced commits", at("pebble", "1"), at("raw-pebble-two", "1"), atMost(1.15), "")
	for _, x := range []struct {
		backend, what, than string
		b                   *bound
	}{
		{"pebble", "bare grouped Pebble", "raw-pebble-grouped", atLeast(0.8)},
		{"pebble", "raw Set(Sync) for each step", "raw-pebble-per-op", atLeast(2.5)},
		{"pebble", "the bare log", "limit-log", nil},
		{"bolt", "bare grouped bbolt", "raw-bbolt-grouped", atLeast(0.8)},
		{"bolt", "DB.Update", "raw-bbolt-update", atLeast(20)},
		{"bolt", "DB.Batch", "raw-bbolt-batch", atLeast(1.1)},
		{"bolt", "the bare log", "limit-log", nil},
	} {
		t.faster(x.backend+": cycles/s, 256 callers, of "+x.what, at(x.backend, "256"), at(x.than, "256"), x.b, "")
	}
	// Both steps of a rival's cycle must be on disk, each for itself.
	rivals := slices.DeleteFunc(t.values("backend", c.CycleDurable), func(name string) bool {
		return kindOf(name) != rival || t.median("syncs/op", syncs, "backend="+name, "callers=1") < 2
	})
	for _, callers := range []string{"1", "16", "64", "256"} {
		best := t.fastest(rivals, c.CycleDurable, "callers="+callers)
		if callers == "1" {
			t.slower("pebble: durable cycle, 1 caller, to the best peer", at("pebble", "1"), at(best, "1"), atMost(1.1), best)
			continue
		}
		t.faster("pebble: cycles/s of the best peer, "+callers+" callers", at("pebble", callers), at(best, callers), &bound{"more than", 1}, best)
	}
}

func (t *table) effects() {
	at := func(backend string) []string { return []string{c.DoSameCommit, "backend=" + backend, "callers=1"} }
	for _, e := range []string{"bolt", "pebble"} {
		t.faster(e+": same-commit Do, 1 caller, cycles/s of Claim + Complete", at(e), at(e+"-claim-complete"), atLeast(1.8), "")
		t.faster(e+": same-commit Do, 1 caller, cycles/s of Claim + own write + Complete", at(e), at(e+"-claim-write-complete"), nil, "")
	}
	t.faster("bare bbolt: one commit with an own write, 1 caller, cycles/s of two commits without", at("raw-bbolt-one"), at("raw-bbolt-two"), nil, "what bolt can reach")
}

func (t *table) growth() {
	small, large := "keys=", t.largest(scaleHit, "backend=pebble")
	if sizes := t.values("keys", scaleHit, "backend=pebble"); len(sizes) > 1 {
		small += sizes[0]
	}
	for i, group := range []string{scaleHit, scaleMiss} {
		at := func(keys string) []float64 { return t.series("p50-sec", group, "backend=pebble", keys) }
		most := []float64{4, 2}[i]
		t.add("pebble: growth of the median of "+group+", "+small+" to "+large, "x", ratios(at(large), at(small)), atMost(most), "64 MB block cache")
	}
	t.add("pebble: reopening, "+large, "sec", t.series("sec/op", scaleReopen, "backend=pebble", large), atMost(1), "")
	size := func(unit string) []float64 { return t.series(unit, scaleSize, "backend=pebble", large) }
	t.add("pebble: bytes on disk to raw record and index bytes, "+large, "x", ratios(size("disk-B/record"), size("raw-B/record")), atMost(1.5), "after compaction")

	large = t.largest(scaleSize, "backend=memory")
	heap := t.series("heap-B/record", scaleSize, "backend=memory", large)
	for i := range heap {
		heap[i] -= c.KeyBytes + scaleResult
	}
	t.add("memory: bytes besides key and result, "+large, "B", heap, atMost(256), "")
	for _, callers := range []string{"1", "2"} {
		at := func(unit string) []float64 {
			return t.series(unit, scaleGC, "backend=memory", large, "callers="+callers)
		}
		t.add("memory: p99 of Get inside a GC cycle to outside, "+large+", callers: "+callers, "x", ratios(at("in-gc-p99-sec"), at("no-gc-p99-sec")), atMost(2), "")
	}
}

func (t *table) sweeps() {
	for _, x := range []struct {
		backend, raw string
		rate         float64
	}{{"bolt", "raw-bbolt-deletes", 2_000}, {"pebble", "raw-pebble-deletes", 20_000}} {
		at := func(unit, sweep string) []float64 {
			return t.series(unit, sweepLoaded, "backend="+x.backend, "sweep="+sweep)
		}
		t.faster(x.backend+": unloaded sweep of raw grouped deletes", []string{c.SweepUnloaded, "backend=" + x.backend}, []string{c.SweepUnloaded, "backend=" + x.raw}, atLeast(0.7), "")
		t.add(x.backend+": p99 of 16 callers with a sweep to without", "x", ratios(at("p99-sec", "on"), at("p99-sec", "off")), atMost(2), "")
		t.add(x.backend+": removed under 16 callers", "/s", at("removed/s", "on"), atLeast(x.rate), "")
	}
}

// idle: no measurable use of a processor is at most a thousandth of one.
func (t *table) idle() {
	without := t.series("cpu-sec/s", idle, "backend=none")
	for _, backend := range c.Engines {
		with := t.series("cpu-sec/s", idle, "backend="+backend)
		used := make([]float64, min(len(with), len(without)))
		for i := range used {
			used[i] = 1e3 * (with[i] - without[i])
		}
		t.add(backend+": idle store, CPU beyond the process without it", " ms/s", used, atMost(1), "")
		t.add(backend+": idle store, goroutines of ours", "", t.series("own-goroutines", idle, "backend="+backend), atMost(2), "")
	}
}

// counted is what was counted in processes of their own.
func (t *table) counted() {
	for _, name := range t.values("backend", syncs) {
		figures, of := t.series("syncs/op", syncs, "backend="+name, "callers=1"), ""
		if s, ok := summary(figures); ok && s.Center < 2 && kindOf(name) == rival {
			of = "does not sync both steps: not compared with"
		}
		t.add("syncs for each cycle, 1 caller: "+name, "", figures, nil, of)
	}
	for _, name := range t.values("backend", written) {
		of := ""
		if sent := t.median("device-B/op", written, "backend="+name, "callers=1"); !math.IsNaN(sent) {
			of = "its device was sent " + chart.Format(sent, "B")
		}
		t.add("bytes written for each cycle, 1 caller: "+name, "B", t.series("written-B/op", written, "backend="+name, "callers=1"), nil, of)
	}
}

// kind tells backends apart by their names.
type kind int

const (
	ours kind = iota
	limits
	bare
	rival
)

func kindOf(backend string) kind {
	first, _, _ := strings.Cut(backend, "-")
	switch {
	case slices.Contains(c.Engines, first):
		return ours
	case first == "limit" || first == "floor":
		return limits
	case first == "raw":
		return bare
	}
	return rival
}

// writeTable writes the table as text.
func writeTable(w io.Writer, r *results) error {
	for _, key := range []string{"cpu", "cores", "filesystem", "disk-sync", "go", "commit", "plan", "command", "started", "took"} {
		if v := r.get(key); v != "" {
			fmt.Fprintf(w, "%s: %s\n", key, v)
		}
	}
	fmt.Fprint(w, "Figures are medians over the rounds; a ratio is taken in each round.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tfigure\t95 % interval\ttarget\treached\tof")
	for _, l := range targets(r) {
		text := []string{l.What, l.Figure, l.Interval, l.Target, l.Reached, l.Of}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(text, "\t"), "\t")) // the last cell is not padded
	}
	err := t.Flush()
	for _, kind := range []string{"absent", "failed"} {
		for _, n := range r.notes(kind) {
			fmt.Fprintf(w, "\n%s: %s: %s", kind, n.Key, n.Value)
		}
	}
	fmt.Fprintln(w)
	return err
}
