package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	c "github.com/idemkv/idem/bench/contenders"
)

// pace says how a comparison is run.
type pace struct {
	rounds int           // in which each contender gets a slice
	slice  time.Duration // how long one lasts
	warmup time.Duration // of a slice before the first round, which does not count
	ops    uint64        // ends a slice early; 0: not
}

// plan says how much of everything is measured. The paces are by group.
type plan struct {
	name                   string
	resultBytes            int
	procs                  []int // of look-ups; the others use the last
	lookupKeys             []int
	callers, effectCallers []int          // of durable cycles and same-commit effects
	sizes                  []int          // of stores that growth is measured over
	expired, batch         int            // records removed by unloaded sweeps, and at a time
	era                    map[string]int // records that expire in each round of a loaded sweep, by engine
	loadCallers            int
	rates                  []int // operations a second of open-loop load
	apartCallers           []int // of the runs that count syncs and bytes written
	syncOps, writtenOps    int
	paces                  map[string]pace
}

const ms = time.Millisecond

// quick is the plan of "make bench". Six rounds is the least that gives a 95 % interval.
func quick() plan {
	return plan{
		name: "quick", resultBytes: 256, procs: []int{1, 2}, lookupKeys: []int{1e5},
		callers: []int{1, 16, 64, 256}, effectCallers: []int{1, 64}, sizes: []int{1e5, 1e6}, expired: 1e5, batch: 256,
		// Not memory: its callers would fill all there is before a sweep has its turn.
		era: map[string]int{"bolt": 10_000, "pebble": 20_000}, loadCallers: 16,
		apartCallers: []int{1, 64}, syncOps: 128, writtenOps: 512,
		paces: map[string]pace{
			"Get": {6, 80 * ms, 50 * ms, 0}, "Claim": {6, 80 * ms, 50 * ms, 0}, c.CycleMemory: {6, time.Second, 50 * ms, 50_000},
			c.CycleDurable: {6, 200 * ms, 100 * ms, 0}, "Do": {6, 200 * ms, 100 * ms, 0}, "Scale": {6, 100 * ms, 100 * ms, 0},
			c.SweepUnloaded: {6, 5 * time.Second, 0, 0}, sweepLoaded: {6, 500 * ms, 200 * ms, 0}, idle: {6, time.Second, 300 * ms, 0},
		},
	}
}

// full is the plan of "make bench-full".
func full() plan {
	p := quick()
	p.name, p.lookupKeys, p.effectCallers, p.sizes, p.expired = "full", []int{1e5, 1e6}, p.callers, []int{1e5, 1e6, 1e7}, 1e6
	p.era = map[string]int{"bolt": 20_000, "pebble": 100_000}
	p.rates = []int{250, 500, 1000, 2000, 4000, 8000, 16000, 24000}
	p.apartCallers, p.syncOps, p.writtenOps = p.callers, 512, 2048
	p.paces = map[string]pace{
		"Get": {10, 250 * ms, 500 * ms, 0}, "Claim": {10, 250 * ms, 500 * ms, 0}, c.CycleMemory: {10, time.Second, 50 * ms, 100_000},
		c.CycleDurable: {10, time.Second, 500 * ms, 0}, "Do": {10, time.Second, 500 * ms, 0}, "Scale": {10, 500 * ms, 2 * time.Second, 0},
		c.SweepUnloaded: {10, 10 * time.Second, 0, 0}, sweepLoaded: {10, 2 * time.Second, time.Second, 0}, idle: {6, 5 * time.Second, time.Second, 0},
		open: {3, 3 * time.Second, 500 * ms, 0},
	}
	return p
}

// smoke shows that all of it runs. Its figures mean nothing.
func smoke() plan {
	p := quick()
	p.name, p.resultBytes, p.lookupKeys, p.callers, p.effectCallers = "smoke", 64, []int{200}, []int{1, 256}, []int{1}
	p.sizes, p.expired, p.batch, p.loadCallers = []int{200, 1000}, 512, 64, 16
	p.era = map[string]int{"memory": 300, "bolt": 300, "pebble": 300}
	p.rates, p.apartCallers, p.syncOps, p.writtenOps = []int{200, 100_000}, []int{1}, 8, 8
	paces := map[string]pace{open: {2, 20 * ms, ms, 0}}
	for group := range p.paces {
		paces[group] = pace{2, 2 * ms, ms, 0}
	}
	paces[c.CycleMemory], paces[c.SweepUnloaded] = pace{2, 5 * ms, ms, 500}, pace{2, time.Second, 0, 0}
	p.paces = paces
	return p
}

// pace is that of a group or of its first part.
func (p plan) pace(group string) pace {
	if pace, ok := p.paces[group]; ok {
		return pace
	}
	first, _, _ := strings.Cut(group, "/")
	return p.paces[first]
}

// measure runs the groups that match only, and calls after with each that is done.
func (b *bench) measure(p plan, only *regexp.Regexp, after func() error) error {
	procs := p.procs[len(p.procs)-1]
	var each []variant
	for _, n := range p.procs {
		each = append(each, variant{n, n})
	}
	lookups := func(group string) {
		for _, keys := range p.lookupKeys {
			b.compare(b.workload(group, p, keys), each, p.pace(group))
		}
	}
	cycles := func(callers []int) func(string) {
		return func(group string) {
			for _, n := range callers { // new stores each time: all begin alike
				b.compare(b.workload(group, p, 0), []variant{{procs, n}}, p.pace(group))
			}
		}
	}
	for _, part := range []struct {
		group string
		run   func(group string)
	}{
		{c.GetHit, lookups},
		{c.GetMiss, lookups},
		{c.ClaimReplay, lookups},
		{c.CycleMemory, func(group string) { b.compare(b.workload(group, p, 0), each, p.pace(group)) }},
		{c.CycleDurable, cycles(p.callers)},
		{c.DoSameCommit, cycles(p.effectCallers)},
		{syncs, func(group string) { b.apart(group, p.apartCallers, p.syncOps, p.resultBytes) }},
		{written, func(group string) { b.apart(group, p.apartCallers, p.writtenOps, p.resultBytes) }},
		{"Scale", func(group string) { b.growth(p.sizes, p.pace(group), procs) }},
		{c.SweepUnloaded, func(group string) {
			pace := p.pace(group)
			pace.ops = uint64(max(1, p.expired/p.batch/pace.rounds)) // the records are divided among the rounds
			b.compare(b.workload(group, p, p.expired), []variant{{procs, 1}}, pace)
		}},
		{sweepLoaded, func(group string) { b.sweeps(p, procs) }},
		{idle, func(group string) { b.idle(p.pace(group), p.resultBytes) }},
		{open, func(group string) {
			if len(p.rates) > 0 {
				b.openLoop(b.workload(c.CycleDurable, p, 0), p.rates, p.pace(group), procs)
			}
		}},
	} {
		if only != nil && !only.MatchString(part.group) {
			continue
		}
		part.run(part.group)
		if err := after(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) workload(group string, p plan, keys int) c.Workload {
	return c.Workload{Group: group, Keys: c.NewKeys(keys), ResultBytes: p.resultBytes, Batch: p.batch, Filled: &b.filled}
}

// String says the counts.
func (p plan) String() string {
	s := fmt.Sprintf("results of %d bytes; %d expired records swept, %d at a time; %d callers beside a sweep", p.resultBytes, p.expired, p.batch, p.loadCallers)
	for _, group := range slices.Sorted(maps.Keys(p.paces)) {
		s += fmt.Sprintf("; %s: %d rounds of %v", group, p.paces[group].rounds, p.paces[group].slice)
		if ops := p.paces[group].ops; ops > 0 {
			s += fmt.Sprintf(" or %d operations", ops)
		}
	}
	return s
}
