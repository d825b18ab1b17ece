package robustness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// fault is one call of a child that does not do what it should.
type fault struct {
	call    string
	errno   syscall.Errno
	ordinal int  // which one of a thread, from 1: commits may be on any
	onward  bool // and so does every one after it
	traffic bool // in random traffic, and not in the script
}

func (f fault) String() string {
	how := "once"
	if f.onward {
		how = "onward"
	}
	where := "script"
	if f.traffic {
		where = "traffic"
	}
	return fmt.Sprintf("%s-%s-%s-%s-%d", f.call, errnoName(f.errno), how, where, f.ordinal)
}

func errnoName(e syscall.Errno) string {
	switch e {
	case syscall.EIO:
		return "EIO"
	case syscall.ENOSPC:
		return "ENOSPC"
	case syscall.ENOMEM:
		return "ENOMEM"
	}
	return fmt.Sprint(int(e))
}

// target is a system call that stores make.
type target struct {
	call   string
	errnos []syscall.Errno
	// ofStore: it is of the store's file alone that it is failed. The program makes the
	// call for itself, too.
	ofStore bool
	// quiet: where it fails, it may be that nothing is lost. Vague: the cause may be
	// lost on the way.
	quiet, vague bool
}

var diskErrors = []syscall.Errno{syscall.EIO, syscall.ENOSPC}

// boltTargets are what bbolt and we call to change the file, and to read it without a
// map.
var boltTargets = []target{
	{call: "pwrite64", errnos: diskErrors},
	{call: "fdatasync", errnos: diskErrors},
	{call: "fsync", errnos: diskErrors},
	{call: "ftruncate", errnos: diskErrors},
	{call: "linkat", errnos: diskErrors, quiet: true},   // renamed instead
	{call: "unlinkat", errnos: diskErrors, quiet: true}, // of a second name
	{call: "pread64", errnos: []syscall.Errno{syscall.EIO}, ofStore: true, quiet: true, vague: true},
	{call: "openat", errnos: []syscall.Errno{syscall.EIO}, ofStore: true},
	{call: "mmap", errnos: []syscall.Errno{syscall.ENOMEM}, ofStore: true, vague: true}, // a reader may meet it first
}

// pebbleTargets are made on many threads, so that ordinals are of none in particular;
// every write that Pebble makes fails in its own package, on a disk in memory.
var pebbleTargets = []target{
	{call: "pwrite64", errnos: diskErrors, quiet: true}, // zeros ahead of a log
	{call: "fdatasync", errnos: diskErrors, quiet: true},
	{call: "fsync", errnos: diskErrors, quiet: true},
	{call: "renameat", errnos: diskErrors, quiet: true},
	{call: "unlinkat", errnos: diskErrors, quiet: true},
}

var targetsOf = map[string][]target{"bolt": boltTargets, "pebble": pebbleTargets}

// scriptOf makes files grow, and memtables be flushed.
func scriptOf(engine string) trialJob {
	p := trialJob{Engine: engine, Lives: 3, Script: oracle.Script{Large: 30_000}, Sizes: Sizes{Map: 1 << 15, MemTable: 64 << 10}}
	p.Reopens = engine == "bolt" // a broken Pebble keeps its directory
	return p
}

// EIO and ENOSPC at every ordinal of every call with which bbolt changes
// its file, and of syncs and renames of Pebble's on the machine's own file system, in
// a child under strace. Make faults runs all of them.
func TestFaults(t *testing.T) {
	t.Parallel()
	var calls []string
	for _, of := range slices.Concat(boltTargets, pebbleTargets) {
		calls = append(calls, of.call)
	}
	asked(t, calls...)
	how := tracer(t)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		most := 30 / race.Share
		if engine == "pebble" {
			most = 6 / race.Share
		}
		if testing.Short() {
			most /= 5
		}
		f := &failer{t: t, how: how, engine: engine, seed: seed, dir: fastDir(t), tally: map[string]int{}}
		f.attack(int(storetest.Setting(t, faultsEnv, uint64(most))))
	})
}

// failer has calls of children fail.
type failer struct {
	t      *testing.T
	how    []string
	engine string
	seed   uint64
	dir    string

	mu    sync.Mutex
	tally map[string]int
}

func (f *failer) count(what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally[what] += n
}

// attack fails up to most calls.
func (f *failer) attack(most int) {
	cases := f.cases(most)
	all := len(cases)
	cases = chosen(f.t, cases, most, f.seed)
	inParallel(f.t, cases, f.try)
	f.t.Logf("%s, seed %d: %d of %d faults: %s; %s", f.engine, f.seed, len(cases), all, storetest.Told(f.tally), verdict(f.t))
	if len(cases) > 20 && !f.t.Failed() {
		require.Greater(f.t, f.tally["broken"], 5)
	}
}

// inParallel does all cases, on the processors there are, until one fails.
func inParallel[C any](t *testing.T, cases []C, do func(C) error) {
	todo := make(chan C)
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for c := range todo {
				if err := do(c); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for _, c := range cases {
		if t.Failed() {
			break
		}
		todo <- c
	}
	close(todo)
	wg.Wait()
}

// cases are all there are: a script that does not fail is traced, and its calls are
// counted.
func (f *failer) cases(most int) (cases []fault) {
	targets := targetsOf[f.engine]
	for _, ofStore := range []bool{false, true} {
		var calls []string
		for _, of := range targets {
			if of.ofStore == ofStore {
				calls = append(calls, of.call)
			}
		}
		if calls == nil {
			continue
		}
		p := scriptOf(f.engine).in(f.t.TempDir())
		report, log, err := f.trace(p, ofStore, "trace="+strings.Join(calls, ","))
		if err == nil && (report.Violation != "" || report.Broken != "") {
			err = fmt.Errorf("%+v", report)
		}
		require.NoError(f.t, err, "the script on a disk that does not fail")
		counts := map[string]map[string]int{} // by call and thread
		for _, m := range regexp.MustCompile(`(?m)^(\d+) +(\w+)\(`).FindAllStringSubmatch(log, -1) {
			if counts[m[2]] == nil {
				counts[m[2]] = map[string]int{}
			}
			counts[m[2]][m[1]]++
		}
		for _, of := range targets {
			if of.ofStore != ofStore {
				continue
			}
			highest := 0
			for _, n := range counts[of.call] {
				highest = max(highest, n)
			}
			for n := 1; n <= highest; n++ {
				for _, errno := range of.errnos {
					for _, onward := range []bool{false, true} {
						cases = append(cases, fault{call: of.call, errno: errno, ordinal: n, onward: onward})
					}
				}
			}
		}
	}
	// And in traffic, where many are in each commit.
	for _, call := range []string{"pwrite64", "fdatasync"} {
		for n := 1; n <= max(most/20, 2) && (f.engine == "bolt" || call == "fdatasync"); n++ {
			cases = append(cases, fault{call: call, errno: diskErrors[n%2], ordinal: 1 + n%25, onward: n%3 == 0, traffic: true})
		}
	}
	return cases
}

// trace runs p under strace.
func (f *failer) trace(p *trialJob, ofStore bool, expressions ...string) (report trialReport, log string, err error) {
	name := filepath.Join(filepath.Dir(p.Path), "trace")
	args := append(f.how[:len(f.how):len(f.how)], "-e", "signal=none", "-o", name)
	if ofStore {
		args = append(args, "-P", p.Path)
	}
	for _, e := range expressions {
		args = append(args, "-e", e)
	}
	err = run(job{Trial: p}.command(args...), &report)
	b, readErr := os.ReadFile(name)
	if err == nil {
		err = readErr
	}
	return report, string(b), err
}

// try has one call fail, and judges what was said and what is left.
func (f *failer) try(c fault) error {
	targets := targetsOf[f.engine]
	of := targets[slices.IndexFunc(targets, func(of target) bool { return of.call == c.call })]
	dir, err := os.MkdirTemp(f.dir, "fault-")
	if err != nil {
		return err
	}
	p := scriptOf(f.engine).in(dir)
	p.Errno, p.Vague = c.errno, of.vague
	if c.traffic {
		p.Load = &oracle.Workload{
			Seed: f.seed + uint64(c.ordinal), Keys: 8, Workers: 8, Ops: 300,
			Lease: 5 * time.Millisecond, Retention: 50 * time.Millisecond, MaxBytes: 8 << 10,
		}
	}
	when := fmt.Sprint(c.ordinal)
	if c.onward {
		when += "+"
	}
	report, log, err := f.trace(p, of.ofStore, "trace="+c.call, fmt.Sprintf("inject=%s:error=%s:when=%s", c.call, errnoName(c.errno), when))
	injected := strings.Count(log, "(INJECTED)")
	var checker *oracle.Checker
	if err == nil {
		checker, err = p.judge(report)
	}
	if err == nil && injected > 0 && !of.quiet && report.Broken == "" && report.Refused == "" {
		err = fmt.Errorf("nobody was told of it")
	}
	if err != nil {
		return fmt.Errorf("%s, seed %d, %v: %w\nWhat failed: %s\nThe store and its journal are in %s. Try it again:\n\tmake faults ENGINE=%s SEED=%d CASE=%v",
			f.engine, f.seed, c, err, firstInjected(log), kept(dir), f.engine, f.seed, c)
	}
	_ = os.RemoveAll(dir)
	answered, cut, _ := checker.Tally()
	f.count("operations answered", answered)
	f.count("operations cut off", cut)
	switch {
	case injected == 0:
		f.count("not reached", 1)
	case report.Broken != "":
		f.count("broken", 1)
	case report.Refused != "":
		f.count("refused to open", 1)
	default:
		f.count("harmless", 1)
	}
	if injected > 0 {
		f.count(fmt.Sprintf("at %s %s", c.call, errnoName(c.errno)), 1)
	}
	return nil
}

func firstInjected(log string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "(INJECTED)") {
			return strings.TrimSpace(line)
		}
	}
	return "nothing"
}
