package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/attack/oracle"
	"github.com/idemkv/idem/internal/progress"
)

// stuckJob is an oracle.Stuck in a process of its own, whose tracer holds a call of a
// commit until the process asks for it.
type stuckJob struct {
	Path  string `json:"path"`
	Call  string `json:"call"` // the one that is held; empty: none is, in a rehearsal
	Close bool   `json:"close"`
	// CacheOnly is that of oracle.Stuck.
	CacheOnly bool `json:"cacheOnly"`
}

// release is how the process asks.
const release = "release"

func (p *stuckJob) do() error {
	reached := stoppedIn(p.Call) // of the thread that it is called on, which is kept
	k := &oracle.Stuck{
		Open:  func(o idem.Options) (oracle.Subject, error) { return Open("bolt", p.Path, Sizes{}, o) },
		Clock: oracle.NewClock(0), Close: p.Close, Rehearsal: p.Call == "", CacheOnly: p.CacheOnly,
		Reached: reached, Release: func() { fmt.Println(release) },
		Watch: progress.Watch{InKernel: 1}.Run, // the call that is held
	}
	report := trialReport{}
	if err := k.Run(context.Background()); err != nil {
		report.Violation = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// Rules 3 and 11, C7 on bbolt: a write or a sync of a commit does not return. strace
// holds it, and is killed when it is to go on. (Pebble's disks get stuck in its own
// package.)
func TestFaultsStuckDisk(t *testing.T) {
	t.Parallel()
	asked(t)
	if only := os.Getenv(engineEnv); only != "" && only != "bolt" {
		t.Skip("not the engine asked for")
	}
	strace := tracer(t)[0]
	// Which calls are those of the commit: it is the last one of a rehearsal.
	dir := fastDir(t)
	log := filepath.Join(dir, "trace")
	how := []string{strace, "-f", "-e", "signal=none", "-o", log, "-e", "trace=pwrite64,fdatasync"}
	var report trialReport
	require.NoError(t, run(job{Stuck: &stuckJob{Path: filepath.Join(dir, "store")}}.command(how...), &report))
	require.Empty(t, report.Violation)
	b, err := os.ReadFile(log)
	require.NoError(t, err)
	lines := regexp.MustCompile(`(?m)^(\d+) +(\w+)\(`).FindAllStringSubmatch(string(b), -1)
	require.NotEmpty(t, lines)
	counts := map[string]int{}
	var syncs, writes []int // how many of each had been called by the thread at each sync
	for _, m := range lines {
		if m[1] != lines[0][1] {
			continue
		}
		if counts[m[2]]++; m[2] == "fdatasync" {
			syncs, writes = append(syncs, counts["fdatasync"]), append(writes, counts["pwrite64"])
		}
	}
	data, meta := len(syncs)-2, len(syncs)-1 // the commit's two
	for name, held := range map[string]struct {
		call    string
		ordinal int
		// bbolt writes its meta page under a lock that readers take to begin.
		cacheOnly bool
	}{
		"a page":                    {call: "pwrite64", ordinal: writes[data]},
		"the sync of the pages":     {call: "fdatasync", ordinal: syncs[data]},
		"the meta page":             {call: "pwrite64", ordinal: writes[meta], cacheOnly: true},
		"the sync of the meta page": {call: "fdatasync", ordinal: syncs[meta]},
	} {
		for _, closes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, close %v", name, closes), func(t *testing.T) {
				t.Parallel()
				dir := fastDir(t)
				how := []string{
					strace, "-f", "-e", "signal=none", "-o", os.DevNull, "-e", "trace=" + held.call,
					// For an hour, or until strace is no more. (With a filter of its own left
					// behind in the kernel, calls would fail then: so there is none.)
					"-e", fmt.Sprintf("inject=%s:delay_enter=3600000000:when=%d", held.call, held.ordinal),
				}
				var report trialReport
				require.NoError(t, runAfterRelease(job{Stuck: &stuckJob{Path: filepath.Join(dir, "store"), Call: held.call, Close: closes, CacheOnly: held.cacheOnly}}, how, &report))
				require.Empty(t, report.Violation)
			})
		}
	}
}

// runAfterRelease runs j under the tracer of how, and kills that when j says so.
func runAfterRelease(j job, how []string, report any) error {
	cmd := j.command(how...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = w.Close() // the child has its own, and the end of that is the child's
	released := false
	last := ""
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		if strings.TrimSpace(line) == release && !released {
			released = true
			_ = cmd.Process.Kill()
		} else if line != "" {
			last = line
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	_ = cmd.Wait() // it was killed
	if err := json.Unmarshal([]byte(last), report); err != nil {
		return fmt.Errorf("the process said %q (released: %v) %s: %w", last, released, stderr.String(), err)
	}
	return nil
}

// A slow disk: random traffic while writes and syncs take their time. No bound of ours
// on a broken engine takes it for one, and every answer is right.
func TestFaultsSlowDisk(t *testing.T) {
	t.Parallel()
	asked(t)
	how := tracer(t)
	seed := setting(t, seedEnv, rand.Uint64N(1<<32))
	stores := 1 + int(setting(t, faultsEnv, 0)/200)
	for _, engine := range Engines {
		if only := os.Getenv(engineEnv); only != "" && only != engine {
			continue
		}
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
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
}
