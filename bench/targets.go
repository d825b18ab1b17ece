package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Line is a line of the table: something that was to be reached, and whether it was.
type Line struct {
	// What is compared with what.
	What string
	// Figure is the median over the rounds, Spread its extremes. Both are empty
	// when it was not measured.
	Figure, Spread string
	// Target is what it must reach; empty when it is only reported.
	Target string
	// Reached is "yes", "NO", "not measured", or "-" without a target.
	Reached string
	// Detail names what the figure is of, where that is not plain: the fastest of
	// several.
	Detail string
}

// bound is what a figure must reach.
type bound struct {
	value   float64
	atLeast bool
	unit    string // after the figure
}

func atMost(v float64, unit string) *bound  { return &bound{v, false, unit} }
func atLeast(v float64, unit string) *bound { return &bound{v, true, unit} }

func (b *bound) String() string {
	if b.atLeast {
		return "at least " + humanCount(b.value) + b.unit
	}
	return "at most " + humanCount(b.value) + b.unit
}

// line is a Line of a figure.
func line(what string, s Spread, measured bool, unit string, b *bound, detail string) Line {
	l := Line{What: what, Reached: "-", Detail: detail}
	if b != nil {
		l.Target = b.String()
	}
	switch {
	case !measured:
		l.Reached = "not measured"
		return l
	case b == nil:
	case b.atLeast && s.Median >= b.value, !b.atLeast && s.Median <= b.value:
		l.Reached = "yes"
	default:
		l.Reached = "NO"
	}
	l.Figure = humanCount(s.Median) + unit
	if s.Min != s.Max {
		l.Spread = humanCount(s.Min) + " to " + humanCount(s.Max)
	}
	return l
}

// Table compares the results with what must be reached. What was not measured is
// in it too.
func Table(r *Results) (lines []Line) {
	for _, part := range []func(*Results) []Line{
		memoryLines, cachedLines, uncachedLines, cycleLines, peerLines, effectLines, scaleLines, sweepLines, idleLines, syncLines, writtenLines,
	} {
		lines = append(lines, part(r)...)
	}
	return lines
}

const (
	nsOp     = "ns/op"
	allocsOp = "allocs/op"
)

// largest is the most keys that a group was measured with, or nothing.
func (r *Results) largest(group string) string {
	keys := r.numbers(where(group), "keys")
	if len(keys) == 0 {
		return ""
	}
	return keys[len(keys)-1]
}

// at is a backend's rows in a group of look-ups, with the most keys there are.
func (r *Results) at(group, backend, procs string) Match {
	m := where(group, "backend", backend, "procs", procs)
	if keys := r.largest(group); keys != "" {
		m = m.with("keys", keys)
	}
	return m
}

// slower is a line that says how many times as long one takes as another.
func (r *Results) slower(what string, of, than Match, b *bound, detail string) Line {
	s, ok := r.Ratio(of, than, nsOp)
	return line(what, s, ok, "x", b, detail)
}

// faster is a line that says how many times as many operations one does.
func (r *Results) faster(what string, of, than Match, b *bound, detail string) Line {
	s, ok := r.Ratio(than, of, nsOp)
	return line(what, s, ok, "x", b, detail)
}

// allocs is a line of allocations, beyond those that are granted, to a tenth: what
// the bench itself allocates in a slice, and a table that grows now and then, come
// to less for each operation.
func (r *Results) allocs(what string, m Match, granted float64, b *bound) Line {
	figures := r.Series(m, allocsOp)
	for i := range figures {
		figures[i] = math.Round(10*(figures[i]-granted)) / 10
	}
	s, ok := spreadOf(figures)
	return line(what, s, ok, "", b, "")
}

func memoryLines(r *Results) (lines []Line) {
	for _, procs := range []string{"1", "2"} {
		get := r.at(GetHit, "memory", procs)
		floor, _ := r.least(r.family(GetHit, FloorMaps, procs), nsOp)
		lines = append(lines,
			r.allocs("memory: Get hit, allocations"+onProcs(procs), get, 0, atMost(0, "")),
			r.slower("memory: Get hit to the fastest map + clock + Record copy"+onProcs(procs), get, floor, atMost(1.25, "x"), nameOf(floor)))
	}
	for _, procs := range []string{"1", "2"} {
		replayed := r.at(ClaimReplay, "memory", procs)
		lines = append(lines,
			r.allocs("memory: replay, allocations"+onProcs(procs), replayed, 0, atMost(0, "")),
			r.slower("memory: replay to Get"+onProcs(procs), replayed, r.at(ClaimReplay, "memory-get", procs), atMost(1.5, "x"), ""))
	}
	return append(lines, r.allocs("memory: Claim + Complete of a new key, allocations beyond the bench's key and the copies of key and result",
		r.at(CycleMemory, "memory", "1"), 3, atMost(2, "")))
}

func cachedLines(r *Results) (lines []Line) {
	for _, group := range []string{GetHit, ClaimReplay} {
		for _, backend := range []string{"bolt", "pebble"} {
			for _, procs := range []string{"1", "2"} {
				most := map[string]float64{"1": 1.5, "2": 2.5}[procs]
				what := fmt.Sprintf("%s: cached %s", backend, group)
				lines = append(lines,
					r.allocs(what+", allocations"+onProcs(procs), r.at(group, backend, procs), 0, atMost(0, "")),
					r.slower(what+" to memory's"+onProcs(procs), r.at(group, backend, procs), r.at(group, "memory", procs), atMost(most, "x"), ""))
			}
		}
	}
	return lines
}

func uncachedLines(r *Results) (lines []Line) {
	for _, procs := range []string{"1", "2"} {
		lines = append(lines, r.slower("bolt: uncached Get hit to raw View + Get"+onProcs(procs),
			r.at(GetHit, "bolt-uncached", procs), r.at(GetHit, Label(RawBoltView), procs), atMost(1.3, "x"), ""))
	}
	for _, group := range []string{GetHit, GetMiss} {
		for _, procs := range []string{"1", "2"} {
			raw, _ := r.least([]Match{r.at(group, Label(RawPebbleGet), procs), r.at(group, Label(RawPebbleSeek), procs)}, nsOp)
			lines = append(lines, r.slower("pebble: uncached "+group+" to the faster of raw Get and raw seek"+onProcs(procs),
				r.at(group, "pebble-uncached", procs), raw, atMost(1.2, "x"), nameOf(raw)))
		}
	}
	return lines
}

func cycles(backend, callers string) Match {
	return where(CycleDurable, "backend", Label(backend), "callers", callers)
}

func cycleLines(r *Results) []Line {
	bolt, pebble := IdemPrefix+"bolt", IdemPrefix+"pebble"
	return []Line{
		r.slower("bolt: durable cycle, 1 caller, to two bare synced commits", cycles(bolt, "1"), cycles(RawBoltTwo, "1"), atMost(1.15, "x"), ""),
		r.slower("pebble: durable cycle, 1 caller, to two bare synced commits", cycles(pebble, "1"), cycles(RawPebbleTwo, "1"), atMost(1.15, "x"), ""),
		r.faster("pebble: cycles/s, 256 callers, of bare grouped Pebble", cycles(pebble, "256"), cycles(RawPebbleGroup, "256"), atLeast(0.8, "x"), ""),
		r.faster("pebble: cycles/s, 256 callers, of raw Set(Sync) for each step", cycles(pebble, "256"), cycles(RawPebblePerOp, "256"), atLeast(2.5, "x"), ""),
		r.faster("pebble: cycles/s, 256 callers, of the bare log", cycles(pebble, "256"), cycles(LimitLog, "256"), nil, "the limit"),
		r.faster("bolt: cycles/s, 256 callers, of bare grouped bbolt", cycles(bolt, "256"), cycles(RawBoltGroup, "256"), atLeast(0.8, "x"), ""),
		r.faster("bolt: cycles/s, 256 callers, of DB.Update", cycles(bolt, "256"), cycles(RawBoltUpdate, "256"), atLeast(20, "x"), ""),
		r.faster("bolt: cycles/s, 256 callers, of DB.Batch", cycles(bolt, "256"), cycles(RawBoltBatch, "256"), atLeast(1.1, "x"), ""),
		r.faster("bolt: cycles/s, 256 callers, of the bare log", cycles(bolt, "256"), cycles(LimitLog, "256"), nil, "the limit"),
	}
}

// rivals are the backends of the durable cycle that are neither idem's nor bare nor
// limits, and that were not seen to leave out a sync with one caller.
func (r *Results) rivals() (names []string) {
	for _, name := range r.Distinct(where(CycleDurable), "backend") {
		if kindOf(name) != kindRival {
			continue
		}
		// Both steps of a cycle must be on disk, each for itself.
		if syncs, counted := r.Median(where(Syncs, "backend", name, "callers", "1"), "syncs/op"); counted && syncs < 2 {
			continue
		}
		names = append(names, name)
	}
	return names
}

func peerLines(r *Results) (lines []Line) {
	for _, callers := range []string{"1", "16", "64", "256"} {
		var all []Match
		for _, name := range r.rivals() {
			all = append(all, cycles(name, callers))
		}
		best, _ := r.least(all, nsOp)
		mine, who := cycles(IdemPrefix+"pebble", callers), ", "+callers+" callers"
		if callers == "1" {
			lines = append(lines, r.slower("pebble: durable cycle, 1 caller, to the best peer", mine, best, atMost(1.1, "x"), nameOf(best)))
			continue
		}
		l := r.faster("pebble: cycles/s of the best peer"+who, mine, best, atLeast(1, "x"), nameOf(best))
		if l.Target != "" {
			l.Target = "more than 1x"
		}
		lines = append(lines, l)
	}
	return lines
}

func syncLines(r *Results) (lines []Line) {
	for _, name := range r.Distinct(where(Syncs), "backend") {
		s, ok := spreadOf(r.Series(where(Syncs, "backend", name, "callers", "1"), "syncs/op"))
		l := line("syncs for each cycle, 1 caller: "+name, s, ok, "", nil, "")
		if ok && s.Median < 2 && kindOf(name) == kindRival {
			l.Detail = "does not sync both steps: not compared with"
		}
		lines = append(lines, l)
	}
	return lines
}

func writtenLines(r *Results) (lines []Line) {
	for _, name := range r.Distinct(where(Written), "backend") {
		m := where(Written, "backend", name, "callers", "1")
		s, ok := spreadOf(r.Series(m, writtenOp))
		l := line("bytes written for each cycle, 1 caller: "+name, s, ok, " B", nil, "")
		if sent, ok := r.Median(m, deviceOp); ok {
			l.Detail = "its device was sent " + humanBytes(sent)
		}
		lines = append(lines, l)
	}
	return lines
}

func effectLines(r *Results) (lines []Line) {
	for _, backend := range []string{"bolt", "pebble"} {
		m := func(name string) Match { return where(DoSameCommit, "backend", name, "callers", "1") }
		lines = append(lines,
			r.faster(backend+": same-commit Do, 1 caller, cycles/s of Claim + Complete", m(backend), m(backend+"-claim-complete"), atLeast(1.8, "x"), ""),
			r.faster(backend+": same-commit Do, 1 caller, cycles/s of Claim + own write + Complete", m(backend), m(backend+"-claim-write-complete"), nil, ""))
	}
	bare := func(name string) Match { return where(DoSameCommit, "backend", Label(name), "callers", "1") }
	return append(lines, r.faster("bare bbolt: one commit with an own write, 1 caller, cycles/s of two commits without", bare(RawBoltOne), bare(RawBoltHalves), nil, "what bolt can reach"))
}

func scaleLines(r *Results) (lines []Line) {
	sizes := r.numbers(where(ScaleHit, "backend", "pebble"), "keys")
	small, large := "", ""
	span := ""
	if len(sizes) > 1 {
		small, large = sizes[0], sizes[len(sizes)-1]
		span = ", " + small + " to " + large + " keys"
	}
	p50 := percentileUnit(50)
	grows := func(group string, most float64) Line {
		m := where(group, "backend", "pebble")
		s, ok := r.Ratio(m.with("keys", large), m.with("keys", small), p50)
		return line("pebble: growth of the median of "+group+span, s, ok && small != "", "x", atMost(most, "x"), "64 MB block cache")
	}
	lines = append(lines, grows(ScaleHit, 4), grows(ScaleMiss, 2))

	reopened := r.Series(where(ScaleReopen, "backend", "pebble", "keys", large), nsOp)
	for i := range reopened {
		reopened[i] /= 1e9
	}
	s, ok := spreadOf(reopened)
	lines = append(lines, line("pebble: reopening "+large+" keys", s, ok, " s", atMost(1, " s"), ""))

	m := where(ScaleSize, "backend", "pebble", "keys", large)
	s, ok = spreadOf(ratios(r.Series(m, "disk-B/record"), r.Series(m, "raw-B/record")))
	lines = append(lines, line("pebble: bytes on disk to raw record and index bytes, "+large+" keys", s, ok, "x", atMost(1.5, "x"), "after compaction"))

	large = ""
	if sizes := r.numbers(where(ScaleSize, "backend", "memory"), "keys"); len(sizes) > 0 {
		large = sizes[len(sizes)-1]
	}
	heap := r.Series(where(ScaleSize, "backend", "memory", "keys", large), "heap-B/record")
	for i := range heap {
		heap[i] -= KeyBytes + scaleResult
	}
	s, ok = spreadOf(heap)
	lines = append(lines, line("memory: bytes beside key and result, "+large+" keys", s, ok, " B", atMost(256, " B"), ""))
	callers := r.numbers(where(ScaleGC, "backend", "memory"), "callers")
	if len(callers) == 0 {
		callers = []string{"1"}
	}
	for _, n := range callers {
		m := where(ScaleGC, "backend", "memory", "keys", large, "callers", n)
		s, ok := spreadOf(ratios(r.Series(m, "in-gc-p99-ns"), r.Series(m, "no-gc-p99-ns")))
		lines = append(lines, line("memory: p99 of Get inside a GC cycle to outside, "+large+" keys, callers: "+n, s, ok, "x", atMost(2, "x"), ""))
	}
	return lines
}

func sweepLines(r *Results) (lines []Line) {
	for _, x := range []struct {
		backend, raw string
		rate         float64
	}{{"bolt", RawBoltDelete, 2_000}, {"pebble", RawPebbleDelete, 20_000}} {
		m := func(name string) Match { return where(SweepUnloaded, "backend", name) }
		loaded := where(SweepLoaded, "backend", x.backend)
		on, off := loaded.with("sweep", "on"), loaded.with("sweep", "off")
		lines = append(lines, r.faster(x.backend+": unloaded sweep of raw grouped deletes", m(x.backend), m(Label(x.raw)), atLeast(0.7, "x"), ""))
		s, ok := r.Ratio(on, off, percentileUnit(99))
		lines = append(lines, line(x.backend+": p99 of 16 callers with a sweep to without", s, ok, "x", atMost(2, "x"), ""))
		s, ok = spreadOf(r.Series(on, "removed/s"))
		lines = append(lines, line(x.backend+": removed under 16 callers", s, ok, "/s", atLeast(x.rate, "/s"), ""))
	}
	return lines
}

// idleCPU is what counts as no measurable use of a processor, in ms for each second:
// a thousandth of one.
const idleCPU = 1

func idleLines(r *Results) (lines []Line) {
	for _, backend := range []string{"memory", "bolt", "pebble"} {
		with, without := r.Series(where(Idle, "backend", backend), "cpu-ns/s"), r.Series(where(Idle, "backend", "none"), "cpu-ns/s")
		used := make([]float64, min(len(with), len(without)))
		for i := range used {
			used[i] = (with[i] - without[i]) / 1e6
		}
		s, ok := spreadOf(used)
		lines = append(lines, line(backend+": idle store, CPU beyond the process without it", s, ok, " ms/s", atMost(idleCPU, " ms/s"), ""))
		s, ok = spreadOf(r.Series(where(Idle, "backend", backend), "own-goroutines"))
		lines = append(lines, line(backend+": idle store, goroutines of ours", s, ok, "", atMost(2, ""), ""))
	}
	return lines
}

// family are the rows of each backend of a family in a group of look-ups.
func (r *Results) family(group, family, procs string) (all []Match) {
	for _, name := range r.Distinct(where(group), "backend") {
		if strings.HasPrefix(name, family+"-") {
			all = append(all, r.at(group, name, procs))
		}
	}
	return all
}

func onProcs(n string) string {
	if n == "1" {
		return ", 1 proc"
	}
	return ", " + n + " procs"
}

// nameOf is the backend that a Match is of.
func nameOf(m Match) string {
	i := slices.IndexFunc(m.Params, func(p Param) bool { return p.Name == "backend" })
	if i < 0 {
		return ""
	}
	return m.Params[i].Value
}

// kind tells backends apart by their names.
type kind int

const (
	kindIdem  kind = iota
	kindBare       // raw engines and maps
	kindLimit      // what nothing can beat
	kindRival
)

func kindOf(label string) kind {
	for _, e := range []string{"memory", "bolt", "pebble"} {
		if label == e || strings.HasPrefix(label, e+"-") {
			return kindIdem
		}
	}
	switch {
	case strings.HasPrefix(label, "limit-"), strings.HasPrefix(label, FloorMaps+"-"):
		return kindLimit
	case strings.HasPrefix(label, "raw-"):
		return kindBare
	}
	return kindRival
}

// byKind orders labels: idem's own, limits, bare engines, rivals.
func byKind(a, b string) int {
	order := map[kind]int{kindIdem: 0, kindLimit: 1, kindBare: 2, kindRival: 3}
	return cmp.Or(cmp.Compare(order[kindOf(a)], order[kindOf(b)]), cmp.Compare(a, b))
}
