package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

// results are everything of one run, as raw.txt has it: the table and the report are
// made of it. A result is what one contender did in one round. Notes are configuration
// too, as "absent/get/hit/redis: not installed".
type results struct {
	config []benchfmt.Config
	rows   []*benchfmt.Result
	failed bool // a contender failed in its work
}

// set says something of the whole run, once for each key.
func (r *results) set(key, format string, args ...any) {
	key = strings.ToLower(strings.Join(strings.Fields(key), "-"))
	value := []byte(strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	if len(value) == 0 {
		return
	}
	for i := range r.config {
		if r.config[i].Key == key {
			r.config[i].Value = value
			return
		}
	}
	r.config = append(r.config, benchfmt.Config{Key: key, Value: value, File: true})
}

func (r *results) get(key string) string {
	for _, c := range r.config {
		if c.Key == key {
			return string(c.Value)
		}
	}
	return ""
}

// notes are the configuration of a kind: "absent" or "failed".
func (r *results) notes(kind string) (all []benchfmt.Config) {
	for _, c := range r.config {
		if subject, ok := strings.CutPrefix(c.Key, kind+"/"); ok {
			all = append(all, benchfmt.Config{Key: subject, Value: c.Value})
		}
	}
	return all
}

// value is a figure in a unit as Go benchmarks have them. It is kept in the base unit,
// "sec/op" for "ns/op", and written as it is here.
func value(v float64, unit string) benchfmt.Value {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 7, 64), 64)
	tidied, base := benchunit.Tidy(v, unit)
	if base == unit {
		return benchfmt.Value{Value: v, Unit: unit}
	}
	return benchfmt.Value{Value: tidied, Unit: base, OrigValue: v, OrigUnit: unit}
}

// add adds what was measured in a round. The name's parts are the group and name=value.
func (r *results) add(ops uint64, values []benchfmt.Value, name ...string) {
	r.rows = append(r.rows, &benchfmt.Result{Name: benchfmt.Name(strings.Join(name, "/")), Iters: int(ops), Values: values})
}

// higherIsBetter are the units that benchstat has to be told of.
var higherIsBetter = []string{"removed/s", "achieved/s"}

// write writes the format that benchstat reads.
func (r *results) write(w io.Writer) error {
	out := benchfmt.NewWriter(w)
	var err error
	for _, unit := range higherIsBetter {
		err = errors.Join(err, out.Write(&benchfmt.UnitMetadata{
			UnitMetadataKey: benchfmt.UnitMetadataKey{Unit: unit, Key: "better"}, OrigUnit: unit, Value: "higher",
		}))
	}
	for _, row := range r.rows {
		err = errors.Join(err, out.Write(&benchfmt.Result{Config: r.config, Name: row.Name, Iters: row.Iters, Values: row.Values}))
	}
	return err
}

func parse(from io.Reader, name string) (*results, error) {
	r, in := &results{}, benchfmt.NewReader(from, name)
	for in.Scan() {
		switch rec := in.Result().(type) {
		case *benchfmt.Result:
			row := rec.Clone()
			r.config, row.Config = row.Config, nil
			r.rows = append(r.rows, row)
		case *benchfmt.SyntaxError:
			return nil, rec
		}
	}
	return r, in.Err()
}

func load(path string) (*results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return parse(f, path)
}

// save writes raw.txt, table.txt and report.html to dir, which it makes. The last two are
// made of what stands in the first, and can be made again.
func (r *results) save(dir string) error {
	var raw, table, page bytes.Buffer
	if err := r.write(&raw); err != nil {
		return err
	}
	written, err := parse(bytes.NewReader(raw.Bytes()), "raw.txt")
	if err == nil {
		err = errors.Join(writeTable(&table, written), writeReport(&page, written), os.MkdirAll(dir, 0o755))
	}
	for name, b := range map[string]*bytes.Buffer{"raw.txt": &raw, "table.txt": &table, "report.html": &page} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)
		}
	}
	return err
}

// fits reports whether all parts are in the row's name: a group, backend=bolt, procs=1.
func fits(row *benchfmt.Result, parts []string) bool {
	name := "/" + row.Name.String() + "/"
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(name, "/"+part+"/") })
}

// group is the first two parts of a row's name, as "Get/hit", or the only one.
func group(row *benchfmt.Result) string {
	var parts []string
	for part := range strings.SplitSeq(row.Name.String(), "/") {
		if strings.Contains(part, "=") {
			break
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "/")
}

// param is the value of a name in the row's name.
func param(row *benchfmt.Result, name string) string {
	_, after, _ := strings.Cut("/"+row.Name.String(), "/"+name+"=")
	v, _, _ := strings.Cut(after, "/")
	return v
}

// series are the figures of a unit, round after round; NaN in a round without one.
func (r *results) series(unit string, parts ...string) (figures []float64) {
	for _, row := range r.rows {
		if fits(row, parts) {
			v, ok := row.Value(unit)
			if !ok {
				v = math.NaN()
			}
			figures = append(figures, v)
		}
	}
	return figures
}

// values are those that a name takes in rows that fit. Numbers are in their order, others
// as they come up.
func (r *results) values(name string, parts ...string) (all []string) {
	for _, row := range r.rows {
		if v := param(row, name); v != "" && fits(row, parts) && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	return all
}

// number reads "256" and "1e5"; 0 is what is no number.
func number(s string) float64 {
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

// count writes a number of keys as names have it: 100000 is 1e5, 1500 is 1500.
func count(n int) string {
	digits := strconv.Itoa(n)
	if short := strings.TrimRight(digits, "0"); len(digits)-len(short) >= 3 {
		return short + "e" + strconv.Itoa(len(digits)-len(short))
	}
	return digits
}

// summary is the median of the figures with its 95 % confidence interval, which is
// infinite for fewer than six rounds. What is no number does not count.
func summary(figures []float64) (s benchmath.Summary, ok bool) {
	figures = slices.DeleteFunc(slices.Clone(figures), func(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) })
	if len(figures) == 0 {
		return s, false
	}
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(figures, &benchmath.DefaultThresholds), 0.95), true
}

// median is that of a unit; NaN if it was not measured in all rounds. Rounds that have
// samples enough for a high percentile are the quick ones.
func (r *results) median(unit string, parts ...string) float64 {
	figures := r.series(unit, parts...)
	s, ok := summary(figures)
	if !ok || slices.ContainsFunc(figures, math.IsNaN) {
		return math.NaN()
	}
	return s.Center
}

// ratios divides round by round: both were measured within moments of each other in a
// round, and what the machine did to the one it did to the other. A round that only one
// of them has is left out.
func ratios(of, to []float64) []float64 {
	out := make([]float64, min(len(of), len(to)))
	for i := range out {
		out[i] = of[i] / to[i]
	}
	return out
}
