package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// stuckJob is an oracle.Stuck in a process of its own; see held.
type stuckJob struct {
	Path  string `json:"path"`
	Call  string `json:"call"` // the one that is held; empty: none is, in a rehearsal
	Close bool   `json:"close"`
	// CacheOnly is that of oracle.Stuck.
	CacheOnly bool `json:"cacheOnly"`
}

func (p *stuckJob) do() error {
	k := &oracle.Stuck{
		Open:  func(o idem.Options) (oracle.Subject, error) { return Open("bolt", p.Path, Sizes{}, o) },
		Clock: oracle.NewClock(0), Close: p.Close, Rehearsal: p.Call == "", Unsure: true, CacheOnly: p.CacheOnly,
		Stick: func() { _ = ask(stick) }, Reached: func() { stoppedIn(p.Call) }, Release: func() { _ = ask(release) },
		Watch: progress.Watch{InKernel: 1}.Run, // the call that is held
	}
	report := trialReport{}
	if err := k.Run(context.Background()); err != nil {
		report.Violation = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// A write or a sync of a commit does not return. (Pebble's
// disks get stuck in its own package.)
func TestFaultsStuckDisk(t *testing.T) {
	t.Parallel()
	asked(t)
	if only := os.Getenv(engineEnv); only != "" && only != "bolt" {
		t.Skip("not the engine asked for")
	}
	strace := tracer(t)[0]
	// Which calls are those of the commit: all of a rehearsal's.
	dir := fastDir(t)
	log := filepath.Join(dir, "trace")
	var report trialReport
	rehearsal := held{strace: strace, args: []string{"-o", log, "-e", "trace=pwrite64,fdatasync"}}
	require.NoError(t, rehearsal.run(job{Stuck: &stuckJob{Path: filepath.Join(dir, "store")}}, &report))
	require.Empty(t, report.Violation)
	b, err := os.ReadFile(log)
	require.NoError(t, err)
	writes, syncs := strings.Count(string(b), "pwrite64("), strings.Count(string(b), "fdatasync(")
	require.Equal(t, 2, syncs, "of the pages, and of the meta page: %s", b)
	for name, of := range map[string]struct {
		call    string
		ordinal int
		// bbolt writes its meta page under a lock that readers take to begin.
		cacheOnly bool
	}{
		"a page":                    {call: "pwrite64", ordinal: 1},
		"the sync of the pages":     {call: "fdatasync", ordinal: 1},
		"the meta page":             {call: "pwrite64", ordinal: writes, cacheOnly: true},
		"the sync of the meta page": {call: "fdatasync", ordinal: syncs},
	} {
		for _, closes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, close %v", name, closes), func(t *testing.T) {
				t.Parallel()
				for tries := 1; ; tries++ {
					dir := fastDir(t)
					h := held{strace: strace, args: holding(of.ordinal, of.call)}
					var report trialReport
					require.NoError(t, h.run(job{Stuck: &stuckJob{Path: filepath.Join(dir, "store"), Call: of.call, Close: closes, CacheOnly: of.cacheOnly}}, &report))
					if tries < 4 && strings.Contains(report.Violation, "the disk that should not answer did") {
						continue // the commit went on on another thread, and strace counts the calls of each
					}
					require.Empty(t, report.Violation)
					return
				}
			})
		}
	}
}

// A slow disk: random traffic while writes and syncs take their time. No bound of ours
// on a broken engine takes it for one, and every answer is right.
func TestFaultsSlowDisk(t *testing.T) {
	t.Parallel()
	asked(t)
	how := tracer(t)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	stores := 1 + int(storetest.Setting(t, faultsEnv, 0)/200)
	eachEngine(t, func(t *testing.T, engine string) {
		f := &failer{t: t, how: how, engine: engine, seed: seed}
		calls := map[string]string{"bolt": "pwrite64,fdatasync", "pebble": "fdatasync,fsync,sync_file_range"}[engine]
		delays, operations := 0, 0
		for i := range stores {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			p := scriptOf(engine).in(fastDir(t))
			p.Load = &oracle.Workload{
				Seed: rng.Uint64(), Keys: 8, Workers: 8, Ops: 100,
				Lease: 20 * time.Millisecond, Retention: 200 * time.Millisecond, MaxBytes: 8 << 10,
			}
			delay := fmt.Sprintf("inject=%s:delay_enter=%d:when=1+%d", calls, 1000+rng.IntN(10_000), 1+rng.IntN(3))
			report, log, err := f.trace(p, false, "trace="+calls, delay)
			var checker *oracle.Checker
			if err == nil {
				checker, err = p.judge(report)
			}
			if err == nil && (report.Broken != "" || report.Refused != "") {
				err = fmt.Errorf("it was slow, and is said to be broken: %s%s", report.Broken, report.Refused)
			}
			if err != nil {
				t.Fatalf("%s, seed %d, %s: %v\nThe store and its journal are in %s. Try it again:\n\tmake faults ENGINE=%s SEED=%d",
					engine, seed, delay, err, kept(filepath.Dir(p.Path)), engine, seed)
			}
			delays += strings.Count(log, "(DELAYED)")
			answered, _, _ := checker.Tally()
			operations += answered
		}
		require.Positive(t, delays)
		t.Logf("%s, seed %d: %d stores, %d operations, %d writes and syncs delayed; %s", engine, seed, stores, operations, delays, verdict(t))
	})
}
