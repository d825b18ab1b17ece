package bench

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Param is one name and value of a row's name or of the header.
type Param struct{ Name, Value string }

// Value is one figure and its unit, as "ns/op" or "p99-ns".
type Value struct {
	Unit   string
	Amount float64
}

// Row is what was measured in one round: a line of the raw text.
type Row struct {
	// Group is what was measured, as "Get/hit".
	Group string
	// Params are under which circumstances: backend, keys, procs, callers, …
	Params []Param
	// Ops is how many operations the figures are of.
	Ops uint64
	// Values are the figures.
	Values []Value
}

// Param returns the value of a parameter, "" if the row has none of that name.
func (r Row) Param(name string) string {
	for _, p := range r.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Value returns the figure of a unit, and whether the row has it.
func (r Row) Value(unit string) (float64, bool) {
	for _, v := range r.Values {
		if v.Unit == unit {
			return v.Amount, true
		}
	}
	return 0, false
}

// Name is the row's name as benchstat reads it: Get/hit/backend=bolt/keys=1e6.
func (r Row) Name() string {
	var b strings.Builder
	b.WriteString(r.Group)
	for _, p := range r.Params {
		b.WriteString("/" + p.Name + "=" + p.Value)
	}
	return b.String()
}

// Note is something that is no figure: what a contender does, or why it is absent.
type Note struct {
	// Kind is "does", "absent", "failed" or "about".
	Kind string
	// Subject is the contender, with its group: "Get/hit redis".
	Subject string
	// Text is the note, of one line.
	Text string
}

// Results is everything of one run. The raw text holds all of it, so that the
// table and the report can be made again from it.
type Results struct {
	// Header is of the whole run: machine, commit, command, …
	Header []Param
	// Notes are in the order in which they came up.
	Notes []Note
	// Rows are in the order in which they were measured.
	Rows []Row
}

// Fact returns a value of the header, "" if there is none.
func (r *Results) Fact(name string) string {
	for _, p := range r.Header {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// note adds a note, once.
func (r *Results) note(kind, subject, format string, args ...any) {
	n := Note{kind, subject, oneLine(fmt.Sprintf(format, args...))}
	if !slices.Contains(r.Notes, n) {
		r.Notes = append(r.Notes, n)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Label is the name of a contender as it stands in names of benchmarks, where a
// slash would end it: idem/bolt/uncached is bolt-uncached, redis/aof-always is
// redis-aof-always.
func Label(name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(name, IdemPrefix), "/", "-")
}

// keyCount writes a number of keys as names have it: 100000 is 1e5, 1500 is 1500.
func keyCount(n int) string {
	if zeros := len(strconv.Itoa(n)) - len(strings.TrimRight(strconv.Itoa(n), "0")); zeros >= 3 && n > 0 {
		return strings.TrimRight(strconv.Itoa(n), "0") + "e" + strconv.Itoa(zeros)
	}
	return strconv.Itoa(n)
}

// parseKeyCount reads what keyCount writes.
func parseKeyCount(s string) int {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return int(f)
}

const notePrefix = "# "

// units in which more is better; in all others less is.
var higherIsBetter = []string{"removed/s", "achieved/s"}

// Write writes the results in the format of Go benchmarks
// (https://go.dev/design/14313-benchmark-format), one line for each row: what
// benchstat reads. Notes are lines that begin with "# ", which it passes over.
func (r *Results) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, p := range r.Header {
		fmt.Fprintf(b, "%s: %s\n", p.Name, oneLine(p.Value))
	}
	for _, u := range higherIsBetter {
		fmt.Fprintf(b, "Unit %s better=higher\n", u)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(b, "%s%s %s: %s\n", notePrefix, n.Kind, n.Subject, n.Text)
	}
	b.WriteByte('\n')
	for _, row := range r.Rows {
		fmt.Fprintf(b, "Benchmark%s\t%d", row.Name(), row.Ops)
		for _, v := range row.Values {
			fmt.Fprintf(b, "\t%s %s", strconv.FormatFloat(v.Amount, 'g', 7, 64), v.Unit)
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// Parse reads what Write wrote.
func Parse(r io.Reader) (*Results, error) {
	out := &Results{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "Benchmark"):
			row, err := parseRow(strings.TrimPrefix(line, "Benchmark"))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			out.Rows = append(out.Rows, row)
		case strings.HasPrefix(line, notePrefix):
			subject, text, ok := strings.Cut(strings.TrimPrefix(line, notePrefix), ": ")
			kind, subject, ok2 := strings.Cut(subject, " ")
			if ok && ok2 {
				out.Notes = append(out.Notes, Note{kind, subject, text})
			}
		case line == "", strings.HasPrefix(line, "Unit "):
		default:
			if name, value, ok := strings.Cut(line, ": "); ok {
				out.Header = append(out.Header, Param{name, value})
			}
		}
	}
	return out, lines.Err()
}

func parseRow(line string) (row Row, err error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || len(fields)%2 != 0 {
		return row, fmt.Errorf("%q is not a name, a count and pairs of figure and unit", line)
	}
	for i, part := range strings.Split(fields[0], "/") {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case ok:
			row.Params = append(row.Params, Param{name, value})
		case i == 0:
			row.Group = part
		default:
			row.Group += "/" + part
		}
	}
	if row.Ops, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
		return row, err
	}
	for i := 2; i < len(fields); i += 2 {
		f, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return row, err
		}
		row.Values = append(row.Values, Value{fields[i+1], f})
	}
	return row, nil
}

// Match says which rows are meant: of this group, with these parameters among
// theirs.
type Match struct {
	Group  string
	Params []Param
}

// where makes a Match of pairs of name and value.
func where(group string, pairs ...string) Match {
	m := Match{Group: group}
	for i := 0; i < len(pairs); i += 2 {
		m.Params = append(m.Params, Param{pairs[i], pairs[i+1]})
	}
	return m
}

// with is m with one more parameter.
func (m Match) with(name, value string) Match {
	m.Params = append(slices.Clone(m.Params), Param{name, value})
	return m
}

func (m Match) fits(r Row) bool {
	if r.Group != m.Group {
		return false
	}
	for _, p := range m.Params {
		if r.Param(p.Name) != p.Value {
			return false
		}
	}
	return true
}

// Series returns the figures of a unit in the rows that match, round after round;
// NaN for a row that has none.
func (r *Results) Series(m Match, unit string) (figures []float64) {
	for _, row := range r.Rows {
		if m.fits(row) {
			v, ok := row.Value(unit)
			if !ok {
				v = math.NaN()
			}
			figures = append(figures, v)
		}
	}
	return figures
}

// Distinct returns the values that a parameter takes in the rows that match, in
// the order in which they come up.
func (r *Results) Distinct(m Match, param string) (values []string) {
	for _, row := range r.Rows {
		if v := row.Param(param); v != "" && m.fits(row) && !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return values
}

// numbers is Distinct in the order of the numbers that the values are.
func (r *Results) numbers(m Match, param string) []string {
	values := r.Distinct(m, param)
	slices.SortFunc(values, func(a, b string) int { return cmp.Compare(parseKeyCount(a), parseKeyCount(b)) })
	return values
}
