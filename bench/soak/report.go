package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/idemkv/idem/bench/chart"
)

// report is what came of one engine's soak.
type report struct {
	config
	samples  []sample
	verdicts []verdict
	latency  [classes]summary
	calls    int64
	trouble  []string
	troubles int
}

func (p *report) good() bool {
	return p.troubles == 0 && !slices.ContainsFunc(p.verdicts, func(v verdict) bool { return !v.flat })
}

// write leaves the samples and the chart in dir, prints what came out, and removes the
// store if there is nothing to look for in it.
func (p *report) write(dir string, stdout io.Writer) error {
	f, err := os.Create(filepath.Join(dir, p.engine+".txt"))
	if err != nil {
		return err
	}
	err = errors.Join(p.writeSamples(f), f.Close())
	svg, chartErr := p.chart()
	if err = errors.Join(err, chartErr, os.WriteFile(filepath.Join(dir, p.engine+".svg"), []byte(svg), 0o644)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s: %s\n", p.engine, p.summary())
	t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "engine\tcall\tn\tp50\tp99\tmax\t")
	for c, l := range p.latency {
		show := func(d time.Duration) string { return chart.Format(d.Seconds(), "sec") }
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t\n", p.engine, class(c), l.n, show(l.p50), show(l.p99), show(l.max))
	}
	err = t.Flush()
	t = tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "engine\tmeasure\tmedian\tgrew by\tallowed\tverdict")
	for _, v := range p.verdicts {
		show := func(f float64) string { return chart.Format(f, v.unit) }
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.engine, v.name, show(v.median), show(v.grew), show(v.allowed), v.word())
	}
	err = errors.Join(err, t.Flush())
	for _, said := range p.trouble {
		fmt.Fprintf(stdout, "%s: WRONG: %s\n", p.engine, said)
	}
	if p.troubles > len(p.trouble) {
		fmt.Fprintf(stdout, "%s: and %d more\n", p.engine, p.troubles-len(p.trouble))
	}
	if p.good() {
		return errors.Join(err, os.RemoveAll(p.dir))
	}
	fmt.Fprintf(stdout, "%s: the store is left in %s\n", p.engine, p.dir)
	return err
}

// summary is the run in a line.
func (p *report) summary() string {
	last := sample{}
	if len(p.samples) > 0 {
		last = p.samples[len(p.samples)-1]
	}
	return fmt.Sprintf("%d calls in %v (%.0f/s), retention %v, seed %d, %d wrong answers",
		p.calls, last.at.Round(time.Second), float64(p.calls)/max(last.at.Seconds(), 1e-9), p.retention, p.seed, p.troubles)
}

// writeSamples writes a line for each sample, in the format of Go benchmarks. What could
// not be measured is left out.
func (p *report) writeSamples(w io.Writer) error {
	out := benchfmt.NewWriter(w)
	config := []benchfmt.Config{{Key: "summary", Value: []byte(p.summary()), File: true}}
	for _, s := range p.samples {
		values := []benchfmt.Value{{Value: s.at.Seconds(), Unit: "at-sec"}}
		for _, m := range measures {
			if v := s.value[m.name]; !math.IsNaN(v) {
				values = append(values, benchfmt.Value{Value: v, Unit: strings.ReplaceAll(m.name, " ", "-") + m.suffix})
			}
		}
		for c, l := range s.latency {
			if l.n > 0 {
				values = append(values,
					benchfmt.Value{Value: float64(l.n), Unit: class(c).String() + "-n"}, benchfmt.Value{Value: l.p50.Seconds(), Unit: class(c).String() + "-p50-sec"},
					benchfmt.Value{Value: l.p99.Seconds(), Unit: class(c).String() + "-p99-sec"}, benchfmt.Value{Value: l.max.Seconds(), Unit: class(c).String() + "-max-sec"})
			}
		}
		if err := out.Write(&benchfmt.Result{Config: config, Name: benchfmt.Name("Soak/engine=" + p.engine), Iters: int(s.calls), Values: values}); err != nil {
			return err
		}
	}
	return nil
}

// chart draws panels one below the other, with the same axis of time and the warm-up in
// grey.
func (p *report) chart() (string, error) {
	at := make([]float64, len(p.samples))
	for i, s := range p.samples {
		at[i] = s.at.Seconds()
	}
	warm := 0.0
	if len(at) > 0 {
		warm = at[len(at)-1] * warmup
	}
	var panels []chart.Panel
	add := func(title string, y chart.Axis, curves ...chart.Curve) error {
		for i := range curves {
			curves[i].X = at
		}
		panel, err := chart.Lines(title, chart.Axis{Unit: "sec"}, y, curves)
		if err == nil {
			panel.Shade(warm, "since the start; grey: warm-up, not judged")
			panels = append(panels, panel)
		}
		return err
	}
	for _, names := range [][]string{
		{"heap", "resident"}, {"size"}, {"goroutines", "open files"}, {"records live", "records expired"}, {"calls/s"},
	} {
		title, unit := "idem soak, "+p.engine, ""
		var curves []chart.Curve
		for _, name := range names {
			s := p.series(name)
			title, unit = title+"; "+name, s.unit
			curves = append(curves, chart.Curve{Label: name, Y: s.value})
			for _, v := range p.verdicts {
				if v.name == name {
					title += ": " + v.word()
				}
			}
		}
		if err := add(title, chart.Axis{Unit: unit}, curves...); err != nil {
			return "", err
		}
	}
	for _, c := range []class{claimNew, complete, claimDuplicate} {
		curves := []chart.Curve{{Label: "median"}, {Label: "p99"}, {Label: "max"}}
		for _, s := range p.samples {
			l := s.latency[c] // one that is 0 is a gap on a logarithmic axis
			for i, d := range []time.Duration{l.p50, l.p99, l.max} {
				curves[i].Y = append(curves[i].Y, d.Seconds())
			}
		}
		if err := add("latency of "+c.String(), chart.Axis{Unit: "sec", Log: true}, curves...); err != nil {
			return "", err
		}
	}
	return chart.SVG(panels...), nil
}

// series is a measure over the time of the run.
func (p *report) series(name string) series {
	i := slices.IndexFunc(measures, func(m measure) bool { return m.name == name })
	return seriesOf(p.samples, measures[i])
}
