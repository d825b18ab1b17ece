package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/idemkv/idem/bench/chart"
	c "github.com/idemkv/idem/bench/contenders"
)

//go:embed report.html.tmpl
var reportPage string

// section is the part of the report about one group.
type section struct {
	Group, About string
	Charts       []template.HTML
	Head         []string
	Rows         [][]string    // medians of all that was measured
	Does         []c.Contender // who took part
}

// about says what the figures of a group are, where its name does not.
var about = map[string]string{
	c.GetHit: "Latencies of one operation; sec/op is the time of the whole slice divided by its operations, and what ratios are made of. With two processors two " +
		"callers run at once. floor-map is a concurrent map, one reading of the clock and a copy of a Record: what a look-up in memory cannot do without.",
	c.CycleDurable: "A claim of a new key and its completion with a result, each on disk before the next step. raw-… is the bare engine writing the same bytes; " +
		"limit-log is the limit: an append-only log with group commit.",
	c.DoSameCommit: "The claim, a write of the caller's own and the completion in one commit.",
	syncs:          "Syncs of a durable cycle, as strace counts them, each contender in a process of its own.",
	written:        "Bytes of a durable cycle: written-B/op by the kernel's count for the process, device-B/op what the disk was sent, by every process.",
	scaleHit: "Stores of all sizes are open at once and take turns. Results are 64 bytes, idem's own cache is off, Pebble's block cache is 64 MB, one caller. " +
		"bolt is filled in the order of its keys, which leaves its pages half full.",
	scaleGC: "Look-ups while a collection of garbage is under way (in-gc), and around it (no-gc).",
	sweepLoaded: "Callers claim and complete new keys while nothing is expired (off), and while the store's own background sweep removes records that expired " +
		"all at one moment (on).",
	idle: "What the process uses while a used store is left alone, and without one (none).",
	open: "Cycles arrive on a schedule (a Poisson process, the same for all), and latency counts from the scheduled arrival: a stall counts for everybody who " +
		"arrives while it lasts. A line ends at the first rate that was not kept up with.",
}

// writeReport writes the results as one HTML page that needs nothing else.
func writeReport(w io.Writer, r *results) error {
	page := struct {
		Config, Absent, Failed []benchfmt.Config
		Date, Plan, Clock      string
		Lines                  []line
		Reached, Judged        int
		Sections               []*section
	}{
		Absent: r.notes("absent"), Failed: r.notes("failed"),
		Date: r.get("started"), Plan: r.get("plan"), Clock: r.get("clock-cost"), Lines: targets(r),
	}
	for _, x := range r.config {
		if !strings.HasPrefix(x.Key, "absent/") && !strings.HasPrefix(x.Key, "failed/") {
			page.Config = append(page.Config, x)
		}
	}
	for _, l := range page.Lines {
		if l.Reached == "yes" {
			page.Reached++
		}
		if l.Reached == "yes" || l.Reached == "NO" {
			page.Judged++
		}
	}
	var groups []string
	for _, row := range r.rows {
		if g := group(row); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	for _, g := range groups {
		s, err := r.section(g)
		if err != nil {
			return err
		}
		page.Sections = append(page.Sections, s)
	}
	funcs := template.FuncMap{"text": func(b []byte) string { return string(b) }}
	t, err := template.New("report").Funcs(funcs).Parse(reportPage)
	if err != nil {
		return fmt.Errorf("the report's template: %w", err)
	}
	return t.Execute(w, page)
}

// one is what a contender did under one set of circumstances, as "callers=1/procs=2".
type one struct {
	backend, circumstances string
	rounds                 *results
	medians                map[string]float64
}

// median is that of a unit; NaN if there is none.
func (o one) median(unit string) float64 {
	if m, ok := o.medians[unit]; ok {
		return m
	}
	return math.NaN()
}

func (r *results) section(g string) (*section, error) {
	s := &section{Group: g, About: about[g], Head: []string{"", "rounds"}}
	var all []*one
	byName := map[string]*one{}
	for _, row := range r.rows {
		name := row.Name.String()
		if group(row) != g {
			continue
		}
		o := byName[name]
		if o == nil {
			o = &one{backend: param(row, "backend"), rounds: &results{}, medians: map[string]float64{}}
			parts := strings.Split(strings.TrimPrefix(name, g+"/"), "/")[1:] // but for the backend
			if len(parts) > 0 && strings.HasPrefix(parts[0], "sweep=") {     // with and without in one chart
				o.backend, parts = o.backend+"-"+parts[0], parts[1:]
			}
			o.circumstances = strings.Join(parts, "/")
			byName[name], all = o, append(all, o)
		}
		o.rounds.rows = append(o.rounds.rows, row)
		for _, v := range row.Values {
			if o.medians[v.Unit] = 0; !slices.Contains(s.Head, v.Unit) {
				s.Head = append(s.Head, v.Unit)
			}
		}
	}
	var medians []one
	for _, o := range all {
		row := []string{strings.TrimPrefix(o.rounds.rows[0].Name.String(), g+"/"), fmt.Sprint(len(o.rounds.rows))}
		for _, unit := range s.Head[2:] {
			if _, ok := o.medians[unit]; ok {
				o.medians[unit] = o.rounds.median(unit)
			}
			row = append(row, chart.Format(o.median(unit), unit))
		}
		s.Rows = append(s.Rows, row)
		medians = append(medians, *o)
	}
	for _, x := range c.All(g) {
		if slices.ContainsFunc(all, func(o *one) bool { return o.backend == x.Name }) {
			s.Does = append(s.Does, x)
		}
	}
	return s, errors.Join(s.ranges(medians), s.curves(medians))
}

// ranges adds a chart of latencies for each set of circumstances, the quickest first.
func (s *section) ranges(all []one) error {
	percentiles := []string{"p50", "p99", "p99.9", "max"}
	some := map[string][]one{} // by circumstances
	for _, o := range all {
		if o.medians["p50-sec"] > 0 { // NaN is not
			some[o.circumstances] = append(some[o.circumstances], o)
		}
	}
	for _, x := range slices.SortedFunc(maps.Keys(some), naturally) {
		if len(some[x]) < 2 || strings.Contains(x, "rate=") {
			continue
		}
		slices.SortStableFunc(some[x], func(a, b one) int { return cmp.Compare(a.medians["p50-sec"], b.medians["p50-sec"]) })
		var rows []chart.Range
		for _, o := range some[x] {
			r := chart.Range{Label: o.backend, Strong: kindOf(o.backend) == ours}
			for _, p := range percentiles {
				r.Values = append(r.Values, o.median(p+"-sec"))
			}
			rows = append(rows, r)
		}
		panel, err := chart.Ranges(s.Group+", "+strings.ReplaceAll(x, "/", ", "), percentiles, rows)
		if err != nil {
			return err
		}
		s.Charts = append(s.Charts, template.HTML(chart.SVG(panel)))
	}
	return nil
}

// naturally orders "callers=16" before "callers=256".
func naturally(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) }

// over are the names whose numbers a chart goes over, and what it shows. One over
// callers shows how many operations a second there are.
var over = map[string][]string{"callers": {"sec/op"}, "keys": {"p50-sec", "p99-sec"}, "rate": {"p50-sec", "p99-sec", "p99.9-sec"}}

// curves adds charts over the numbers that a name takes, if it takes several.
func (s *section) curves(all []one) error {
	for _, x := range slices.Sorted(maps.Keys(over)) {
		for _, unit := range over[x] {
			title, y := s.Group+": "+unit+" by "+x, chart.Axis{Unit: unit, Log: true}
			if x == "callers" {
				title, y.Unit = s.Group+": operations a second by callers", "/s"
			}
			var curves []chart.Curve
			seen := map[string]bool{}
			for _, o := range all {
				at := param(&benchfmt.Result{Name: benchfmt.Name(o.circumstances)}, x)
				v := o.median(unit)
				if at == "" || math.IsNaN(v) {
					continue
				}
				if x == "callers" {
					v = 1 / v
				}
				seen[at] = true
				label := o.backend
				for part := range strings.SplitSeq(o.circumstances, "/") {
					if part != x+"="+at && part != "procs=2" {
						label += ", " + part
					}
				}
				i := slices.IndexFunc(curves, func(c chart.Curve) bool { return c.Label == label })
				if i < 0 {
					i = len(curves)
					curves = append(curves, chart.Curve{Label: label, Strong: kindOf(o.backend) == ours})
				}
				curves[i].X, curves[i].Y = append(curves[i].X, number(at)), append(curves[i].Y, v)
			}
			if len(seen) < 2 {
				continue
			}
			panel, err := chart.Lines(title, chart.Axis{Label: x, Log: true}, y, curves)
			if err != nil {
				return err
			}
			s.Charts = append(s.Charts, template.HTML(chart.SVG(panel)))
		}
	}
	return nil
}
