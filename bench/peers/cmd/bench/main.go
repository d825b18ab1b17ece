// Command bench measures idem against its limits and its rivals, prints a table of
// ratios and writes the raw text and a report: see docs/BENCHMARKS.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/bench/peers"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(bench.ExitCode(err))
}

// flags are what the command line says.
type flags struct {
	full, smoke        bool
	out, dir, again    string
	groups, contenders string
	profile            string
	rounds             int
	one                bench.One
}

func parse(args []string, stderr io.Writer) (f flags, err error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.BoolVar(&f.full, "full", false, "measure more keys, more rounds, longer slices, and open-loop load")
	set.BoolVar(&f.smoke, "smoke", false, "only show that everything runs; the figures mean nothing")
	set.StringVar(&f.out, "out", "", "`directory` for raw.txt, table.txt and report.html; none: only print the table")
	set.StringVar(&f.dir, "dir", "", "`directory` for the stores, on the disk to be measured; default: the system's for temporary files")
	set.StringVar(&f.again, "report", "", "measure nothing: make the table and the report again from this `raw.txt`")
	set.StringVar(&f.groups, "run", "", "measure only groups that match this `regexp`, as Get/hit or Scale")
	set.StringVar(&f.contenders, "contenders", "", "run only contenders that match this `regexp`, as idem/bolt")
	set.IntVar(&f.rounds, "rounds", 0, "rounds of each comparison, in place of the plan's")
	set.StringVar(&f.one.Contender, "one", "", "run only this `contender`, as idem/pebble, and print its time and bytes written; two marks for strace are around its operations")
	set.StringVar(&f.one.Group, "group", bench.CycleDurable, "the group of -one")
	set.StringVar(&f.profile, "cpuprofile", "", "`file` for the processor profile of -one, for go tool pprof")
	set.IntVar(&f.one.Callers, "callers", 1, "callers of -one")
	set.IntVar(&f.one.Ops, "ops", 100, "operations of -one")
	set.IntVar(&f.one.ResultBytes, "result", 256, "bytes of a result of -one")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("there is nothing to do with %q; -h lists the flags", set.Args())
	}
	if f.profile != "" && f.one.Contender == "" {
		return f, errors.New("-cpuprofile is of -one")
	}
	if f.one.Callers < 1 || f.one.Ops < f.one.Callers || f.one.ResultBytes < 0 {
		return f, errors.New("-callers must be positive, -ops at least as many, and -result not negative")
	}
	return f, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	f, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(f.dir, "idem-bench-")
	if err != nil {
		return fmt.Errorf("-dir: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	switch {
	case f.one.Contender != "":
		return one(f, dir, stdout)
	case f.again != "":
		return report(f, stdout)
	}
	return measure(f, args, dir, stdout, stderr)
}

func one(f flags, dir string, stdout io.Writer) (err error) {
	suite, o := bench.Suite{Rivals: peers.Contenders}, f.one
	o.Dir = dir
	if f.profile != "" {
		file, err := os.Create(f.profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return errors.Join(err, file.Close())
		}
		defer func() { pprof.StopCPUProfile(); err = errors.Join(err, file.Close()) }()
	}
	r, err := o.Run(suite.Contenders(bench.Workload{Group: o.Group, ResultBytes: o.ResultBytes, Procs: 2, Callers: o.Callers}, nil))
	if err != nil {
		return err
	}
	return r.Write(stdout)
}

// report makes everything again from a raw text, also after it was measured with an
// older table.
func report(f flags, stdout io.Writer) error {
	results, err := bench.Load(f.again)
	if err != nil {
		return err
	}
	if f.out != "" {
		if err := bench.Save(f.out, results); err != nil {
			return err
		}
	}
	return bench.WriteTable(stdout, results)
}

func measure(f flags, args []string, dir string, stdout, stderr io.Writer) error {
	suite := bench.Suite{Plan: bench.Quick(), Rivals: peers.Contenders}
	switch {
	case f.full && f.smoke:
		return errors.New("-full and -smoke are two plans; take one")
	case f.full:
		suite.Plan = bench.Full()
	case f.smoke:
		suite.Plan = bench.Smoke()
	}
	if f.rounds > 0 {
		suite.Plan = suite.Plan.WithRounds(f.rounds)
	}
	var err error
	if suite.Run, err = pattern("-run", f.groups); err != nil {
		return err
	}
	contenders, err := pattern("-contenders", f.contenders)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	suite.One = func(o bench.One) *exec.Cmd {
		return exec.Command(exe, "-one", o.Contender, "-group", o.Group, "-dir", o.Dir,
			"-callers", strconv.Itoa(o.Callers), "-ops", strconv.Itoa(o.Ops), "-result", strconv.Itoa(o.ResultBytes))
	}

	start := time.Now()
	results := &bench.Results{Header: bench.Machine(dir)}
	results.Header = append(results.Header,
		bench.Param{Name: "plan", Value: suite.Plan.Name},
		bench.Param{Name: "counts", Value: suite.Plan.String()},
		bench.Param{Name: "command", Value: strings.Join(append([]string{"go run ./cmd/bench"}, args...), " ")},
		bench.Param{Name: "started", Value: start.UTC().Format("2006-01-02 15:04 UTC")},
	)
	header := results.Header
	took := func() {
		results.Header = append(header[:len(header):len(header)],
			bench.Param{Name: "took", Value: time.Since(start).Round(time.Second).String()},
			bench.Param{Name: "load-after", Value: bench.Load1()})
	}
	if f.out != "" {
		suite.After = func(r *bench.Results) error { // a run that is ended early leaves what it has
			took()
			return bench.Save(f.out, r)
		}
	}
	b := &bench.Bench{Results: results, Dir: dir, Log: func(format string, args ...any) {
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}}
	if contenders != nil {
		b.Only = contenders.MatchString
	}
	if err := suite.Measure(b); err != nil {
		return err
	}
	took()
	if f.out != "" {
		if err := bench.Save(f.out, results); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "wrote %s\n", filepath.Join(f.out, "report.html"))
	}
	if err := bench.WriteTable(stdout, results); err != nil {
		return err
	}
	if b.Failed {
		return errors.New("a contender failed; the notes say which")
	}
	return nil
}

func pattern(name, expression string) (*regexp.Regexp, error) {
	if expression == "" {
		return nil, nil
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return re, nil
}
