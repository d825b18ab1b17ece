package bench

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Idle is the group of rows about stores that nobody calls: the processor time that
// the process uses, with backend=none for a process without any store.
const Idle = "Idle"

// idleRecords is what an idle store holds, all of it to expire some day.
const idleRecords = 10_000

// Idle measures, in rounds, a process that does nothing for p.Slice: without a store,
// then with one of each engine, which has been used and is left alone.
func (b *Bench) Idle(p Pace, resultBytes int) {
	for range p.Rounds {
		b.idle("none", p)
		for _, e := range Engines() {
			if b.Only != nil && !b.Only(IdemPrefix+e.Name) {
				continue
			}
			if err := b.idleStore(e, p, resultBytes); err != nil {
				b.fail(Idle+" "+e.Name, err)
			}
		}
	}
}

func (b *Bench) idleStore(e Engine, p Pace, resultBytes int) (err error) {
	dir, remove, err := b.tempDir("idle-" + e.Name)
	if err != nil {
		return err
	}
	defer remove()
	s, err := OpenStore(e, dir, idem.Options{MaxBatch: fillBatch})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w := Workload{Keys: NewKeys(idleRecords), ResultBytes: resultBytes}
	ctx := context.Background()
	if err := Fill(ctx, s, w, 0, idleRecords, 0); err != nil {
		return err
	}
	if e.Settle != nil {
		if err := e.Settle(ctx, engine.Of(s)); err != nil {
			return err
		}
	}
	b.idle(e.Name, p)
	return nil
}

// idle adds a row of what the process uses while nothing is asked of it.
func (b *Bench) idle(label string, p Pace) {
	debug.FreeOSMemory() // the runtime gives memory back in the background else
	time.Sleep(p.Warmup)
	cpu, start := cpuTime(), time.Now()
	time.Sleep(p.Slice)
	used, took := cpuTime()-cpu, time.Since(start)
	all, ours := goroutines()
	b.add(Idle, []Param{{"backend", label}}, 1,
		Value{"cpu-ns/s", float64(used.Nanoseconds()) / took.Seconds()},
		Value{"goroutines", float64(all)}, Value{"own-goroutines", float64(ours)})
}

// goroutines counts all goroutines, and those that idem's own code started.
func goroutines() (all, ours int) {
	stacks := make([]byte, 1<<20)
	for {
		n := runtime.Stack(stacks, true)
		if n < len(stacks) {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	for _, stack := range strings.Split(strings.TrimSpace(string(stacks)), "\n\n") {
		all++
		_, creator, _ := strings.Cut(stack, "created by "+module)
		if creator != "" && !strings.HasPrefix(creator, "/bench") {
			ours++
		}
	}
	return all, ours
}

const module = "github.com/idemkv/idem"
