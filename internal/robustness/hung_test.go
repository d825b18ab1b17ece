package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// hungJob is an oracle.Hung in a process of its own; see held.
type hungJob struct {
	trialJob
	Calls []string      `json:"calls"` // that are held; none: the process is stopped instead
	Early bool          `json:"early"`
	Stall time.Duration `json:"stall"`
}

func (p *hungJob) do() error {
	file, err := os.OpenFile(p.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	clock := oracle.NewClock(0)
	h := &oracle.Hung{
		Trial: oracle.Trial{
			Journal: oracle.NewFileJournal(clock, file), Clock: clock, Load: p.Load, Reopens: p.Reopens,
			Open:  func(o idem.Options) (oracle.Subject, error) { return Open(p.Engine, p.Path, p.Sizes, o) },
			Watch: progress.Watch{InKernel: 16}.Run, // the calls that are held
		},
		Stall: p.Stall, Early: p.Early,
		Stick: func() { _ = ask(stick) }, Reached: func() { stoppedIn(p.Calls...) }, Release: func() { _ = ask(release) },
		Elsewhere: func() error { return ask(elsewhere) },
	}
	ctx := context.Background()
	if p.Calls == nil {
		err = h.Nap(ctx, func() error { return ask(nap) })
	} else {
		err = h.Run(ctx)
	}
	report := trialReport{}
	if err != nil {
		report.Violation = err.Error()
	}
	report.Now = clock.Nanos()
	if err := h.Journal.Err(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// hang runs p, whose calls are held by a tracer, and judges what is left.
func hang(p *hungJob, strace string) error {
	h := held{strace: strace, elsewhere: func() error { return locked(p.Engine, p.Path) }, nap: 2 * p.Stall}
	if p.Calls != nil {
		h.args = holding(1, p.Calls...)
	}
	var report trialReport
	if err := h.run(job{Hung: p}, &report); err != nil {
		return err
	}
	report.Now = oracle.NewClock(report.Now).Nanos() // it has closed since
	_, err := p.judge(report)
	return err
}

// hungPlan is a hungJob on a store in dir.
func hungPlan(engine, dir string, seed uint64) *hungJob {
	p := &hungJob{trialJob: *(trialJob{Engine: engine, Sizes: Sizes{MemTable: 64 << 10}}).in(dir), Stall: 300 * time.Millisecond}
	p.Reopens = engine == "bolt" // a broken Pebble keeps its directory
	p.Load = &oracle.Workload{Seed: seed, Keys: 8, Workers: 8, Lease: 5 * time.Millisecond, Retention: time.Second, MaxBytes: 4 << 10}
	return p
}

// A sync never returns: nobody waits for it any longer than Options.Stall, the store
// stays locked, and what was answered is there when the process has ended.
func TestFaultsHungDisk(t *testing.T) {
	t.Parallel()
	asked(t)
	strace := tracer(t)[0]
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("close early %v", early), func(t *testing.T) {
				t.Parallel()
				for round := range 1 + storetest.Setting(t, faultsEnv, 0)/50 {
					p := hungPlan(engine, fastDir(t), seed+round)
					p.Calls, p.Early = []string{"fdatasync", "fsync", "sync_file_range"}, early
					if err := hang(p, strace); err != nil {
						t.Fatalf("%s, seed %d: %v\nThe store and its journal are in %s", engine, seed+round, err, kept(filepath.Dir(p.Path)))
					}
				}
			})
		}
	})
}

// A process that is stopped for longer than a commit may take, and continued, does not
// take its disk for stuck.
func TestFaultsStoppedProcess(t *testing.T) {
	t.Parallel()
	asked(t)
	if !naps {
		t.Skip("not on this system")
	}
	eachEngine(t, func(t *testing.T, engine string) {
		for range 1 + storetest.Setting(t, faultsEnv, 0)/100 {
			p := hungPlan(engine, fastDir(t), 1)
			p.Stall = time.Second
			require.NoError(t, hang(p, ""))
		}
	})
}
