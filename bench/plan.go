package bench

import (
	"fmt"
	"strings"
	"time"
)

// Plan says how much of everything is measured.
type Plan struct {
	// Name of the plan: "quick", "full", "smoke".
	Name string
	// ResultBytes is the size of results, but for those about size.
	ResultBytes int
	// Procs are the numbers of processors of look-ups.
	Procs []int
	// LookupKeys are the numbers of stored keys that look-ups are measured with.
	LookupKeys []int
	// Lookup is the pace of look-ups.
	Lookup Pace
	// Memory is the pace of cycles in memory. MaxOps bounds what they leave there.
	Memory Pace
	// Callers are the numbers of callers of durable cycles, EffectCallers of
	// same-commit effects.
	Callers, EffectCallers []int
	// Cycle is the pace of both.
	Cycle Pace
	// Sizes are the numbers of keys that growth is measured over, at the pace Scale.
	Sizes []int
	Scale Pace
	// Expired is how many records unloaded sweeps remove in all rounds together, and
	// Batch how many at a time.
	Expired, Batch int
	Sweep          Pace
	// Era is how many records expire in each round of a sweep under load, by engine
	// (not of memory: its callers would fill all there is before a sweep has its turn);
	// LoadCallers is how many callers there are.
	Era         map[string]int
	LoadCallers int
	SweepLoad   Pace
	// Idle is the pace of idle stores; its Warmup is how long one is left alone first.
	Idle Pace
	// Rates are the operations a second of open-loop load; nil: not measured.
	Rates []int
	Open  Pace
	// SyncCallers are the numbers of callers that syncs are counted with, SyncOps
	// how many operations.
	SyncCallers []int
	SyncOps     int
	// WrittenOps is how many operations bytes written are counted over, by as many
	// callers.
	WrittenOps int
}

const ms = time.Millisecond

// Quick is the plan of "make bench": about five minutes on two cores. Rounds are six
// because benchstat wants so many to tell how sure it is.
func Quick() Plan {
	return Plan{
		Name: "quick", ResultBytes: 256, Procs: []int{1, 2},
		LookupKeys: []int{1e5}, Lookup: Pace{Rounds: 6, Slice: 80 * ms, Warmup: 50 * ms},
		Memory:  Pace{Rounds: 6, Slice: time.Second, Warmup: 50 * ms, MaxOps: 50_000},
		Callers: []int{1, 16, 64, 256}, EffectCallers: []int{1, 64},
		Cycle: Pace{Rounds: 6, Slice: 200 * ms, Warmup: 100 * ms},
		Sizes: []int{1e5, 1e6}, Scale: Pace{Rounds: 6, Slice: 100 * ms, Warmup: 100 * ms},
		Expired: 1e5, Batch: 256, Sweep: Pace{Rounds: 6, Slice: 5 * time.Second},
		Era: map[string]int{"bolt": 10_000, "pebble": 20_000}, LoadCallers: 16,
		SweepLoad:   Pace{Rounds: 6, Slice: 500 * ms, Warmup: 200 * ms},
		Idle:        Pace{Rounds: 3, Slice: time.Second, Warmup: 300 * ms},
		SyncCallers: []int{1, 64}, SyncOps: 128, WrittenOps: 512,
	}
}

// Full is the plan of "make bench-full".
func Full() Plan {
	p := Quick()
	p.Name = "full"
	p.LookupKeys, p.Lookup = []int{1e5, 1e6}, Pace{Rounds: 10, Slice: 250 * ms, Warmup: 500 * ms}
	p.Memory = Pace{Rounds: 10, Slice: time.Second, Warmup: 50 * ms, MaxOps: 100_000}
	p.EffectCallers, p.Cycle = []int{1, 16, 64, 256}, Pace{Rounds: 10, Slice: time.Second, Warmup: 500 * ms}
	p.Sizes, p.Scale = []int{1e5, 1e6, 1e7}, Pace{Rounds: 10, Slice: 500 * ms, Warmup: 2 * time.Second}
	p.Expired, p.Sweep = 1e6, Pace{Rounds: 10, Slice: 10 * time.Second}
	p.Era = map[string]int{"bolt": 20_000, "pebble": 100_000}
	p.SweepLoad = Pace{Rounds: 10, Slice: 2 * time.Second, Warmup: time.Second}
	p.Idle = Pace{Rounds: 5, Slice: 5 * time.Second, Warmup: time.Second}
	p.Rates = []int{250, 500, 1000, 2000, 4000, 8000, 16000, 24000}
	p.Open = Pace{Rounds: 3, Slice: 3 * time.Second, Warmup: 500 * ms}
	p.SyncCallers, p.SyncOps, p.WrittenOps = []int{1, 16, 64, 256}, 512, 2048
	return p
}

// Smoke is a plan that shows that all of it runs, in little time: its figures mean
// nothing.
func Smoke() Plan {
	pace := Pace{Rounds: 2, Slice: 2 * ms, Warmup: ms}
	return Plan{
		Name: "smoke", ResultBytes: 64, Procs: []int{1, 2}, LookupKeys: []int{200}, Lookup: pace,
		Memory:  Pace{Rounds: 2, Slice: 5 * ms, Warmup: ms, MaxOps: 500},
		Callers: []int{1, 4}, EffectCallers: []int{1}, Cycle: pace,
		Sizes: []int{200, 1000}, Scale: pace,
		Expired: 512, Batch: 64, Sweep: Pace{Rounds: 2, Slice: time.Second},
		Era: map[string]int{"memory": 300, "bolt": 300, "pebble": 300}, LoadCallers: 4, SweepLoad: pace,
		Idle:  Pace{Rounds: 1, Slice: 5 * ms, Warmup: ms},
		Rates: []int{200, 100_000}, Open: Pace{Rounds: 2, Slice: 20 * ms, Warmup: ms},
		SyncCallers: []int{1}, SyncOps: 8, WrittenOps: 8,
	}
}

// WithRounds is p with so many rounds of everything.
func (p Plan) WithRounds(n int) Plan {
	for _, pace := range []*Pace{&p.Lookup, &p.Memory, &p.Cycle, &p.Scale, &p.Sweep, &p.SweepLoad, &p.Idle, &p.Open} {
		pace.Rounds = n
	}
	return p
}

// String says the plan's counts, for the report.
func (p Plan) String() string {
	parts := []string{
		fmt.Sprintf("look-ups %v", p.Lookup),
		fmt.Sprintf("cycles in memory %v", p.Memory),
		fmt.Sprintf("durable cycles and effects %v", p.Cycle),
		fmt.Sprintf("growth %v", p.Scale),
		fmt.Sprintf("%d expired records swept in %d rounds, %d in a batch", p.Expired, p.Sweep.Rounds, p.Batch),
		fmt.Sprintf("sweeps under %d callers, %d rounds", p.LoadCallers, p.SweepLoad.Rounds),
		fmt.Sprintf("idle %v", p.Idle),
		fmt.Sprintf("results of %d bytes", p.ResultBytes),
	}
	if len(p.Rates) > 0 {
		parts = append(parts, fmt.Sprintf("open-loop load %v", p.Open))
	}
	return strings.Join(parts, "; ")
}

// String says the counts.
func (p Pace) String() string {
	s := fmt.Sprintf("%d rounds of %v", p.Rounds, p.Slice)
	if p.MaxOps > 0 {
		s += fmt.Sprintf(" or %d operations", p.MaxOps)
	}
	return s
}
