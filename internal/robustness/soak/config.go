package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/idemkv/idem"
)

// config is what one engine goes through.
type config struct {
	engine  string
	dir     string // holds the store
	seed    uint64
	workers int
	rate    float64 // calls of the store a second; zero: as many as it takes

	// Either a time and samples as it passes, or so many calls and the samples in
	// even parts of them, between which clock is moved.
	duration time.Duration
	calls    int64
	samples  int

	warmup    float64 // share of the run that is not judged
	retention time.Duration
	sweep     time.Duration

	clock    idem.Clock              // nil: the system's
	between  func()                  // with calls: before each sample
	sabotage func(worker int) func() // of tests: runs before each call
}

var engines = []string{"memory", "bolt", "pebble"}

const (
	warmupShare = 0.25
	// The live set is in equilibrium one retention after the start; the rest of the
	// warm-up is for caches and files.
	retentionShare = warmupShare / 5
	maxRetention   = 30 * time.Second
	minSample      = time.Second
	maxSamples     = 300
)

// timed is the plan for a run of d.
func timed(engine, dir string, d time.Duration) config {
	c := config{engine: engine, dir: dir, duration: d, warmup: warmupShare, workers: 8, clock: idem.SystemClock()}
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
