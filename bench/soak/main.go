// Soak drives a store with a mix of everything for as long as it is told, and samples
// what must not grow: heap, goroutines, open files, bytes on disk, records. It draws one
// chart per engine and ends with 1 if something grew after the warm-up or an answer was
// wrong:
//
//	make soak DURATION=30m ENGINE=bolt
//
// The mix: claims of new keys; duplicates of hot, recent and long gone ones; completions,
// failures, releases and holds; leases that lapse and are taken over; extensions,
// checkpoints, Wait, Do, ClaimMany and CompleteMany; effects in the same commit; all under
// the background sweep, with a retention so short that as many records expire as are made.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/idemkv/idem"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is main: 0 if all was flat and right, 1 if not, 2 if it was not told what to do.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	d := flags.Duration("duration", 2*time.Minute, "of traffic on each engine; a quarter of it is warm-up")
	engine := flags.String("engine", "", "the only one: memory, bolt or pebble (all three, one after the other)")
	rate := flags.Float64("rate", 400, "calls of the store a second; 0: as many as it takes")
	workers := flags.Int("workers", 8, "goroutines that call the store")
	seed := flags.Uint64("seed", 1, "of the mix")
	dir := flags.String("out", "", "folder for the samples and charts (a new one in the temporary folder)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	names := engines
	if *engine != "" && *engine != "all" {
		names = []string{*engine}
	}
	plans := make([]config, len(names))
	for i, name := range names {
		plans[i] = timed(name, *d)
		plans[i].rate, plans[i].workers, plans[i].seed = *rate, *workers, *seed
		if err := plans[i].check(); err != nil {
			fmt.Fprintln(stderr, "soak:", err)
			return 2
		}
	}
	var err error
	if *dir == "" {
		*dir, err = os.MkdirTemp("", "idem-soak-")
	} else {
		err = os.MkdirAll(*dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return 1
	}
	fmt.Fprintf(stdout, "samples and charts: %s\n", *dir)
	for _, c := range plans {
		if ctx.Err() != nil {
			break
		}
		c.dir = filepath.Join(*dir, c.engine)
		p, err := soak(ctx, c)
		if err == nil {
			err = p.write(*dir, stdout)
		}
		if err != nil {
			fmt.Fprintf(stderr, "soak: %s: %v\n", c.engine, err)
		}
		if err != nil || !p.good() {
			code = 1
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "soak: interrupted")
		code = 1
	}
	return code
}

// config is what one engine goes through.
type config struct {
	engine  string
	dir     string // holds the store
	seed    uint64
	workers int
	rate    float64 // calls of the store a second; zero: as many as it takes

	// Either a time and samples as it passes, or so many calls and the samples in even
	// parts of them, between which clock is moved.
	duration time.Duration
	calls    int64
	samples  int

	retention, sweep time.Duration

	clock    idem.Clock
	between  func()                  // with calls: before each sample
	sabotage func(worker int) func() // of tests: runs before each call
}

var engines = []string{"memory", "bolt", "pebble"}

const (
	warmup = 0.25 // share of the run that is not judged
	// The live set is in equilibrium one retention after the start; the rest of the
	// warm-up is for caches and files.
	retentionShare = warmup / 5
	maxRetention   = 30 * time.Second
	minSample      = time.Second
	maxSamples     = 300
)

// timed is the plan for a run of d.
func timed(engine string, d time.Duration) config {
	c := config{engine: engine, duration: d, workers: 8, clock: idem.SystemClock()}
	c.retention = min(time.Duration(float64(d)*retentionShare), maxRetention)
	c.sweep = min(time.Second, c.retention/4)
	c.samples = int(min(maxSamples, d/minSample))
	return c
}

// lease of claims that are left to lapse.
func (c config) lease() time.Duration { return max(c.retention/4, 1) }

func (c config) check() error {
	switch {
	case !slices.Contains(engines, c.engine):
		return fmt.Errorf("there is no engine %q; take one of %v or all", c.engine, engines)
	case c.samples < 4*minJudged/3:
		return fmt.Errorf("%v is too short to judge anything; soak for %v at least", c.duration, 4*minJudged/3*minSample)
	case c.workers < 1 || c.rate < 0:
		return fmt.Errorf("%d workers at a rate of %v: there must be workers, and the rate cannot be negative", c.workers, c.rate)
	}
	return nil
}

// soak runs one engine from an empty store to the verdicts.
func soak(ctx context.Context, c config) (*report, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // what other engines left is not this one's
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
