package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
	"time"
)

// writeCSV writes one row per sample: sizes in bytes, times in seconds, latencies in
// microseconds. What could not be measured is empty.
func writeCSV(w io.Writer, samples []sample) error {
	out := csv.NewWriter(w)
	head := []string{"seconds", "calls", "calls_per_s", "heap_live", "resident", "goroutines", "open_files", "size", "records_live", "records_expired"}
	for c := range classes {
		for _, column := range []string{"n", "p50_us", "p99_us", "max_us"} {
			head = append(head, c.String()+"_"+column)
		}
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, s := range samples {
		row := []string{strconv.FormatFloat(s.at.Seconds(), 'f', 3, 64), strconv.FormatInt(s.calls, 10)}
		for _, v := range []float64{s.perSecond, s.heap, s.resident, s.goroutines, s.files, s.size, s.live, s.expired} {
			row = append(row, number(v))
		}
		for _, l := range s.latency {
			row = append(row, strconv.Itoa(l.n), micros(l.p50), micros(l.p99), micros(l.max))
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func number(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

func micros(d time.Duration) string { return strconv.FormatFloat(float64(d)/1e3, 'f', 1, 64) }

// printVerdicts writes a row for each verdict.
func printVerdicts(w io.Writer, engine string, all []verdict) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "engine\tmeasure\tmedian\tgrew by\tallowed\tverdict")
	for _, v := range all {
		word := "flat"
		if !v.flat {
			word = "GROWS"
		}
		if v.why != "" {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t%s\n", engine, v.name, v.why)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", engine, v.name, v.unit.format(v.median), v.unit.format(v.grew), v.unit.format(v.allowed), word)
	}
	t.Flush()
}

// printLatency writes a row for each class of calls.
func printLatency(w io.Writer, engine string, total [classes]summary) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "engine\tcall\tn\tp50\tp99\tmax\t")
	for c, l := range total {
		f := func(d time.Duration) string { return secondUnit.format(d.Seconds()) }
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t\n", engine, class(c), l.n, f(l.p50), f(l.p99), f(l.max))
	}
	t.Flush()
}
