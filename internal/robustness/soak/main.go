package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is main: 0 if all was flat and right, 1 if not, 2 if it was not told what
// to do.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	d := flags.Duration("duration", 2*time.Minute, "of traffic on each engine; a quarter of it is warm-up")
	engine := flags.String("engine", "", "the only one: memory, bolt or pebble (all three, one after the other)")
	rate := flags.Float64("rate", 400, "calls of the store a second; 0: as many as it takes")
	workers := flags.Int("workers", 8, "goroutines that call the store")
	seed := flags.Uint64("seed", 1, "of the mix")
	out := flags.String("out", "", "folder for the samples and charts (a new one in the temporary folder)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	names := engines
	if *engine != "" && *engine != "all" {
		names = []string{*engine}
	}
	plans := make([]config, len(names))
	for i, name := range names {
		plans[i] = timed(name, "", *d)
		plans[i].rate, plans[i].workers, plans[i].seed = *rate, *workers, *seed
		if err := plans[i].check(); err != nil {
			fmt.Fprintln(stderr, "soak:", err)
			return 2
		}
	}
	dir, err := outDir(*out)
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return 1
	}
	fmt.Fprintf(stdout, "samples and charts: %s\n", dir)
	code := 0
	for _, c := range plans {
		if ctx.Err() != nil {
			break
		}
		c.dir = filepath.Join(dir, c.engine)
		p, err := soak(ctx, c)
		if err == nil {
			err = p.write(dir, stdout)
		}
		if err != nil {
			fmt.Fprintf(stderr, "soak: %s: %v\n", c.engine, err)
			code = 1
		} else if !p.good() {
			code = 1
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "soak: interrupted")
		code = 1
	}
	return code
}

func outDir(name string) (string, error) {
	if name == "" {
		return os.MkdirTemp("", "idem-soak-")
	}
	return name, os.MkdirAll(name, 0o755)
}

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
	for _, v := range p.verdicts {
		if !v.flat {
			return false
		}
	}
	return p.troubles == 0
}

// soak runs one engine from an empty store to the verdicts.
func soak(ctx context.Context, c config) (*report, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	// What other engines left in the memory of the process is not this one's.
	debug.FreeOSMemory()
	goroutines := runtime.NumGoroutine()
	r := newRun(c)
	if err := r.open(); err != nil {
		return nil, err
	}
	p := r.drive(ctx)
	err := r.finish(goroutines)
	p.trouble, p.troubles = r.trouble.said, r.trouble.count
	return p, err
}

// write leaves the samples and the chart in dir, prints what came out, and removes
// the store if there is nothing to look for in it.
func (p *report) write(dir string, stdout io.Writer) error {
	csvFile, err := os.Create(filepath.Join(dir, p.engine+".csv"))
	if err != nil {
		return err
	}
	if err := errors.Join(writeCSV(csvFile, p.samples), csvFile.Close()); err != nil {
		return err
	}
	svg := p.chart()
	if err := os.WriteFile(filepath.Join(dir, p.engine+".svg"), svg, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s: %s\n", p.engine, p.summary())
	printLatency(stdout, p.engine, p.latency)
	printVerdicts(stdout, p.engine, p.verdicts)
	for _, t := range p.trouble {
		fmt.Fprintf(stdout, "%s: WRONG: %s\n", p.engine, t)
	}
	if p.troubles > len(p.trouble) {
		fmt.Fprintf(stdout, "%s: and %d more\n", p.engine, p.troubles-len(p.trouble))
	}
	if p.good() {
		return os.RemoveAll(p.dir)
	}
	fmt.Fprintf(stdout, "%s: the store is left in %s\n", p.engine, p.dir)
	return nil
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
