// Command bench measures idem against its limits and its rivals, prints a table of
// ratios, and writes the raw text and a report: see docs/BENCHMARKS.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	c "github.com/idemkv/idem/bench/contenders"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
		return
	case !errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if errors.Is(err, c.ErrAbsent) {
		os.Exit(absentExit)
	}
	os.Exit(1)
}

func run(args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	isFull := set.Bool("full", false, "measure more keys, more rounds, longer slices, and open-loop load")
	isSmoke := set.Bool("smoke", false, "only show that everything runs; the figures mean nothing")
	out := set.String("out", "", "`directory` for raw.txt, table.txt and report.html; none: only print the table")
	dir := set.String("dir", "", "`directory` for the stores, on the disk to be measured; default: the system's for temporary files")
	again := set.String("report", "", "measure nothing: make the table and the report again from this `raw.txt`")
	groups := set.String("run", "", "measure only groups that match this `regexp`, as Get/hit or Scale")
	contenders := set.String("contenders", "", "run only contenders that match this `regexp`, as ^bolt")
	rounds := set.Int("rounds", 0, "rounds of each comparison, in place of the plan's")
	alone := set.String("one", "", "run only this `contender`, as pebble, and print its time and bytes written; two marks for strace are around its operations")
	profile := set.String("cpuprofile", "", "`file` for the processor profile of -one, for go tool pprof")
	callers := set.Int("callers", 1, "callers of -one")
	ops := set.Int("ops", 100, "operations of -one")
	result := set.Int("result", 256, "bytes of a result of -one")
	if err := set.Parse(args); err != nil {
		return err
	}
	only, err1 := regexp.Compile(*groups)
	who, err2 := regexp.Compile(*contenders)
	switch {
	case set.NArg() > 0:
		return fmt.Errorf("there is nothing to do with %q; -h lists the flags", set.Args())
	case *isFull && *isSmoke:
		return errors.New("-full and -smoke are two plans; take one")
	case *profile != "" && *alone == "":
		return errors.New("-cpuprofile is of -one")
	case *callers < 1 || *ops < *callers || *result < 0:
		return errors.New("-callers must be positive, -ops at least as many, and -result not negative")
	case errors.Join(err1, err2) != nil:
		return fmt.Errorf("-run, -contenders: %w", errors.Join(err1, err2))
	}
	if *again != "" {
		r, err := load(*again)
		if err == nil && *out != "" {
			err = r.save(*out)
		}
		return errors.Join(err, writeTableOf(stdout, r))
	}

	temp, err := os.MkdirTemp(*dir, "idem-bench-")
	if err != nil {
		return fmt.Errorf("-dir: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	start := time.Now()
	b := &bench{results: &results{}, dir: temp, filled: c.Filled{Dir: temp}, only: who.MatchString}
	b.log = func(format string, args ...any) {
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	if *alone != "" {
		return b.printAlone(*alone, c.Workload{Group: c.CycleDurable, ResultBytes: *result, Procs: 2, Callers: *callers}, *ops, *profile, stdout)
	}
	p := quick()
	if *isFull {
		p = full()
	} else if *isSmoke {
		p = smoke()
	}
	if *rounds > 0 {
		for group, pace := range p.paces {
			pace.rounds = *rounds
			p.paces[group] = pace
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	b.alone = func(contender string, callers, ops, result int) []string {
		return []string{
			exe, "-one", contender, "-dir", temp,
			"-callers", strconv.Itoa(callers), "-ops", strconv.Itoa(ops), "-result", strconv.Itoa(result),
		}
	}
	b.machine(temp)
	b.set("plan", "%s", p.name)
	b.set("counts", "%s", p)
	b.set("command", "go run . %s", strings.Join(args, " "))
	b.set("started", "%s", start.UTC().Format("2006-01-02 15:04 UTC"))
	save := func() error { // after each part: a run that is ended early leaves what it has
		b.set("took", "%s", time.Since(start).Round(time.Second))
		b.set("load-after", "%s", load1())
		if *out == "" {
			return nil
		}
		return b.save(*out)
	}
	if err := b.measure(p, only, save); err != nil {
		return err
	}
	if *out != "" {
		b.log("wrote %s", filepath.Join(*out, "report.html"))
	}
	if err := writeTable(stdout, b.results); err != nil {
		return err
	}
	if b.failed {
		return errors.New("a contender failed; the notes say which")
	}
	return nil
}

func writeTableOf(w io.Writer, r *results) error {
	if r == nil {
		return nil
	}
	return writeTable(w, r)
}

// printAlone runs one contender, with a profile if it is named, and prints its row.
func (b *bench) printAlone(contender string, w c.Workload, ops int, profile string, stdout io.Writer) (err error) {
	if profile != "" {
		file, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := b.runAlone(contender, w, ops); err != nil {
		return err
	}
	return b.write(stdout)
}
