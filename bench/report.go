package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed report.html.tmpl
var reportPage string

// chart is a picture with its heading.
type chart struct {
	Title, About string
	SVG          template.HTML
}

// section is a part of the report; one without charts and tables is left out.
type section struct {
	ID, Title, About string
	Charts           []chart
	Tables           []table
}

// table is a plain table. The first Left columns are text, the others figures.
type table struct {
	Title string
	Left  int
	Head  []string
	Rows  [][]string
}

// page is what the template gets.
type page struct {
	Title    string
	Plan     string
	Date     string
	Facts    []Param
	Lines    []Line
	Reached  int
	Judged   int
	Notes    []Note
	Sections []section
	All      []table
	Does     []Note
	Clock    string
	Hues     []template.CSS // classes that have a colour of their own
}

// WriteReport writes the results as one HTML page that needs nothing beside itself.
func WriteReport(w io.Writer, r *Results) error {
	t, err := template.New("report").Parse(reportPage)
	if err != nil {
		return fmt.Errorf("bench: the report's template: %w", err)
	}
	p := page{
		Title: "idem: benchmarks", Plan: r.Fact("plan"), Date: r.Fact("started"), Facts: r.Header,
		Lines: Table(r), Clock: r.Fact("clock-cost"), All: allRows(r),
	}
	for _, l := range p.Lines {
		if l.Reached == "yes" || l.Reached == "NO" {
			p.Judged++
		}
		if l.Reached == "yes" {
			p.Reached++
		}
	}
	for _, n := range r.Notes {
		switch n.Kind {
		case "does":
			p.Does = append(p.Does, n)
		default:
			p.Notes = append(p.Notes, n)
		}
	}
	for _, hue := range []string{"memory", "bolt", "pebble", "limit"} {
		p.Hues = append(p.Hues, template.CSS(hue))
	}
	for i := range rivalHues {
		p.Hues = append(p.Hues, template.CSS(fmt.Sprintf("rival%d", i+1)))
	}
	c := newColours(r)
	for _, s := range []section{
		lookupSection(r, c), cycleSection(r, c), effectSection(r, c), openSection(r, c),
		scaleSection(r, c), sweepSection(r, c), restSection(r),
	} {
		if len(s.Charts)+len(s.Tables) > 0 {
			p.Sections = append(p.Sections, s)
		}
	}
	return t.Execute(w, p)
}

// colours gives each backend a class. An engine and what is bare of it share a hue,
// the bare one dashed; rivals take their hues in turn.
type colours map[string]string

const rivalHues = 7

func newColours(r *Results) colours {
	c := colours{}
	rivals := 0
	hues := map[string]string{} // by family: redis and redis-everysec share a hue
	for _, row := range r.Rows {
		label := row.Param("backend")
		if _, ok := c[label]; ok {
			continue
		}
		switch kindOf(label) {
		case kindIdem:
			engine, rest, _ := strings.Cut(label, "-")
			c[label] = engine
			if rest != "" {
				c[label] += " dashed"
			}
		case kindLimit:
			c[label] = "limit dotted"
		case kindBare:
			c[label] = "memory dashed"
			for raw, engine := range map[string]string{"raw-bbolt": "bolt", "raw-pebble": "pebble"} {
				if strings.HasPrefix(label, raw) {
					c[label] = engine + " dashed"
				}
			}
		case kindRival:
			family, rest, _ := strings.Cut(label, "-")
			if hues[family] == "" {
				hues[family] = fmt.Sprintf("rival%d", rivals%rivalHues+1)
				rivals++
			}
			c[label] = hues[family]
			if rest != "" {
				c[label] += " dashed"
			}
		}
	}
	return c
}

// rangesOf makes the rows of a latency chart, the quickest first. label says how a
// row is named, columns what stands beside it.
func (r *Results) rangesOf(c colours, ms []Match, label func(Match) string, columns func(Match) []string) (rows []rangeRow) {
	for _, m := range ms {
		row := rangeRow{label: label(m), class: c[nameOf(m)], strong: kindOf(nameOf(m)) == kindIdem, columns: columns(m)}
		for _, q := range rangeQuantiles {
			v, ok := r.Median(m, percentileUnit(q))
			if !ok {
				v = math.NaN()
			}
			row.at = append(row.at, v)
		}
		longest, ok := spreadOf(r.Series(m, "max-ns"))
		if math.IsNaN(row.at[0]) || !ok {
			continue
		}
		row.longest = longest.Max
		rows = append(rows, row)
	}
	return rows
}

// show shows the median of a unit.
func (r *Results) show(m Match, unit string, human func(float64) string) string {
	v, ok := r.Median(m, unit)
	if !ok {
		return "–"
	}
	return human(v)
}

func perSecond(ns float64) string { return humanCount(1e9/ns) + "/s" }

// backends are those with rows that match, the quickest first.
func (r *Results) backends(m Match) (ms []Match) {
	for _, name := range r.Distinct(m, "backend") {
		ms = append(ms, m.with("backend", name))
	}
	slices.SortStableFunc(ms, func(a, b Match) int {
		x, _ := r.Median(a, nsOp)
		y, _ := r.Median(b, nsOp)
		return int(math.Copysign(1, x-y))
	})
	return ms
}

// latencies is a chart of all backends with rows that match.
func (r *Results) latencies(c colours, m Match, title, about, first string, human func(float64) string) []chart {
	rows := r.rangesOf(c, r.backends(m), nameOf, func(m Match) []string {
		return []string{
			r.show(m, nsOp, human), r.show(m, percentileUnit(50), humanNs), r.show(m, percentileUnit(99), humanNs),
		}
	})
	if len(rows) == 0 {
		return nil
	}
	return []chart{{title, about, template.HTML(ranges(title, []string{first, "median", "p99"}, rows))}}
}

func lookupSection(r *Results, c colours) section {
	s := section{
		ID: "lookups", Title: "Look-ups",
		About: "Latencies of one operation, on a logarithmic axis. ns/op is the time of the whole slice divided by its operations, " +
			"and what ratios are made of; with two processors two callers run at once. " +
			"floor-map is a concurrent map, one reading of the clock and a copy of a Record: what a look-up in memory cannot do without.",
	}
	for _, group := range []string{GetHit, GetMiss, ClaimReplay, CycleMemory} {
		for _, keys := range append(r.numbers(where(group), "keys"), "") {
			if keys == "" && group != CycleMemory {
				continue
			}
			for _, procs := range r.numbers(where(group), "procs") {
				m, title := where(group, "procs", procs), group
				if keys != "" {
					m, title = m.with("keys", keys), title+", "+keys+" keys"
				}
				s.Charts = append(s.Charts, r.latencies(c, m, title+onProcs(procs), "", "ns/op", humanNs)...)
			}
		}
	}
	return s
}

func cycleSection(r *Results, c colours) section {
	s := section{
		ID: "cycles", Title: "Durable cycles",
		About: "One cycle is a claim of a new key and its completion with a result, each on disk before the next step. Solid lines are idem's, " +
			"dashed ones of the same colour the bare engine writing the same bytes; the dotted line is the limit: an append-only log with group commit.",
	}
	callers := r.numbers(where(CycleDurable), "callers")
	chartOf := lineChart{
		title: "Cycles a second by callers", xTitle: "callers", yTitle: "cycles a second", width: chartWidth,
		showX: humanCount, showY: humanCount,
	}
	for _, name := range sortedBy(r.Distinct(where(CycleDurable), "backend"), byKind) {
		l := curve{label: name, class: c[name], strong: kindOf(name) == kindIdem}
		for _, n := range callers {
			if v, ok := r.Median(cycles(name, n), nsOp); ok {
				l.points = append(l.points, point{float64(parseKeyCount(n)), 1e9 / v})
			}
		}
		chartOf.curves = append(chartOf.curves, l)
	}
	if len(callers) > 1 {
		chartOf.height = max(420, 15*float64(len(chartOf.curves))+110)
		s.Charts = append(s.Charts, chart{Title: chartOf.title, SVG: template.HTML(chartOf.String())})
	}
	for _, n := range callers {
		s.Charts = append(s.Charts, r.latencies(c, where(CycleDurable, "callers", n),
			"Latency of a cycle, callers: "+n, "", "cycles/s", perSecond)...)
	}
	s.Tables = append(syncsTable(r), writtenTable(r)...)
	return s
}

func sortedBy[T any](s []T, compare func(a, b T) int) []T {
	return slices.SortedFunc(slices.Values(s), compare)
}

func effectSection(r *Results, c colours) section {
	s := section{
		ID: "effects", Title: "Effects in the same commit",
		About: "bolt.Do and pebble.Do commit the claim, a write of the caller's own and the completion at once.",
	}
	for _, n := range r.numbers(where(DoSameCommit), "callers") {
		s.Charts = append(s.Charts, r.latencies(c, where(DoSameCommit, "callers", n), "Latency of an operation, callers: "+n, "", "op/s", perSecond)...)
	}
	return s
}

func openSection(r *Results, c colours) section {
	s := section{
		ID: "open", Title: "Latency against rate",
		About: "Cycles arrive on a schedule (a Poisson process, the same for all), and latency counts from the scheduled arrival: " +
			"a stall counts for everybody who arrives while it lasts. A line ends at the first rate that was not kept up with, or at the last that was tried.",
	}
	for _, q := range []float64{50, 99, 99.9} {
		name := strings.TrimSuffix(percentileUnit(q), "-ns")
		l := lineChart{
			title: "Latency against rate, " + name, xTitle: "arrivals a second", yTitle: name + " from the scheduled arrival",
			width: chartWidth, showX: humanCount, showY: humanNs,
		}
		for _, backend := range sortedBy(r.Distinct(where(OpenLoop), "backend"), byKind) {
			one := curve{label: backend, class: c[backend], strong: kindOf(backend) == kindIdem}
			for _, rate := range r.numbers(where(OpenLoop, "backend", backend), "rate") {
				if v, ok := r.Median(where(OpenLoop, "backend", backend, "rate", rate), percentileUnit(q)); ok {
					one.points = append(one.points, point{float64(parseKeyCount(rate)), v})
				}
			}
			if len(one.points) > 0 {
				l.curves = append(l.curves, one)
			}
		}
		if len(l.curves) > 0 {
			l.height = max(400, 15*float64(len(l.curves))+110)
			s.Charts = append(s.Charts, chart{Title: l.title, SVG: template.HTML(l.String())})
		}
	}
	return s
}
