package pebble

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/selfexec"
	"github.com/idemkv/idem/internal/storetest"
)

// class is a sort of what Pebble and we ask of the file system.
type class string

const (
	writing class = "write"
	syncing class = "sync" // of files and directories
	naming  class = "name" // making, linking, renaming, removing, closing
	reading class = "read"
)

func classOf(op errorfs.Op) class {
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt:
		return writing
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return syncing
	}
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return reading
	}
	return naming
}

// fault is one operation of a class that fails.
type fault struct {
	of      class
	errno   syscall.Errno
	ordinal int
	onward  bool // and so do all of the class that come after it
	traffic bool // in random traffic, and not in the script
}

func (f fault) String() string {
	words := map[bool]string{f.onward: "onward", !f.onward: "once"}
	where := map[bool]string{f.traffic: "traffic", !f.traffic: "script"}
	return fmt.Sprintf("%s-%s-%s-%s-%d", f.of, map[syscall.Errno]string{syscall.EIO: "EIO", syscall.ENOSPC: "ENOSPC"}[f.errno], words[true], where[true], f.ordinal)
}

// life is one process's whole use of a disk of which some operation fails.
type life struct {
	fault
	seed   uint64
	disk   *faulty
	counts map[class]*atomic.Int64
	met    atomic.Pointer[errorfs.Op] // the operation that failed first
	trial  *oracle.Trial

	mu   sync.Mutex
	work map[string]int // by what was done to which sort of file
}

func newLife(f fault, seed uint64) *life {
	l := &life{fault: f, seed: seed, disk: newFaulty(), counts: map[class]*atomic.Int64{}, work: map[string]int{}}
	for _, c := range []class{writing, syncing, naming, reading} {
		l.counts[c] = new(atomic.Int64)
	}
	l.disk.on(func(op errorfs.Op) error {
		c := classOf(op)
		n := l.counts[c].Add(1)
		if op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite || op.Kind == errorfs.OpRemove {
			sort, _, _ := strings.Cut(filepath.Base(op.Path), "-") // of manifests
			l.mu.Lock()
			l.work[map[bool]string{true: "remove ", false: "make "}[op.Kind == errorfs.OpRemove]+sort[strings.LastIndex(sort, ".")+1:]]++
			l.mu.Unlock()
		}
		if c == l.of && (n == int64(l.ordinal) || l.onward && n > int64(l.ordinal)) {
			l.met.CompareAndSwap(nil, &op)
			return l.errno
		}
		return nil
	})
	return l
}

// smallOptions make a few rounds of the script flush, compact, and replace logs.
func smallOptions(f *faulty) Options {
	return Options{fs: errorfs.Wrap(f.mem, f), MinFree: -1, CacheBytes: 1 << 20, MemTableBytes: 32 << 10}
}

// live lives it, and judges what was said and what a new process would find.
func (l *life) live() error {
	clock := oracle.NewClock(0)
	l.trial = &oracle.Trial{
		Journal: oracle.NewJournal(clock), Clock: clock, Lives: 3, Script: oracle.Script{Large: 30_000},
		Open: func(o idem.Options) (oracle.Subject, error) {
			b, err := Open("store", smallOptions(l.disk))
			if err != nil {
				return oracle.Subject{}, err
			}
			return subject(b, o)
		},
	}
	if l.ordinal > 0 {
		l.trial.Cause = l.errno
	}
	if l.traffic {
		l.trial.Load = &oracle.Workload{
			Seed: l.seed + uint64(l.ordinal), Keys: 8, Workers: 8, Ops: 250,
			Lease: 5 * time.Millisecond, Retention: 50 * time.Millisecond, MaxBytes: 4 << 10,
		}
	}
	if err := l.trial.Run(context.Background()); err != nil {
		return errors.Join(err, errors.New(oracle.Tail(l.trial.Journal.Events(), 30)))
	}
	if met := l.met.Load(); met != nil && met.Kind == errorfs.OpFileWriteAt && noRoom(l.errno) {
		return nil // of zeros behind a log's end: it goes on without
	}
	if l.met.Load() != nil && l.of != naming && l.of != reading && l.trial.Broken == nil && l.trial.Refused == nil {
		return errors.New("nobody was told of it")
	}
	events, now := l.trial.Journal.Events(), clock.Nanos()
	for _, percent := range []int{0, 50, 100} {
		image := &faulty{mem: l.disk.crash(percent)}
		err := oracle.Judge(oracle.NewChecker(), events, now, func(o idem.Options) (oracle.Subject, error) {
			b, err := Open("store", smallOptions(image))
			if err != nil {
				return oracle.Subject{}, err
			}
			return subject(b, o)
		})
		if err != nil {
			return fmt.Errorf("with %d%% of what was not synced: %w", percent, err)
		}
	}
	return nil
}

// EIO and ENOSPC at every write, every sync and every other operation on
// files, once and onward, from making a store over two reopenings to closing it, in a
// script of every operation that flushes, compacts and replaces logs and manifests,
// and in random traffic. Nothing ends the process or hangs, everything answers
// ErrBroken with the cause, and what was answered before holds in what is left. Make
// faults runs all.
func TestEveryWriteFails(t *testing.T) {
	t.Parallel()
	if only := os.Getenv("IDEM_ROBUSTNESS_ENGINE"); only != "" && only != "pebble" {
		t.Skip("not the engine asked for")
	}
	most := uint64(60 / race.Share)
	if testing.Short() {
		most = 20
	}
	most = storetest.Setting(t, "IDEM_ROBUSTNESS_FAULTS", most)
	seed := storetest.Setting(t, "IDEM_ROBUSTNESS_SEED", rand.Uint64N(1<<32))

	healthy := newLife(fault{}, seed)
	require.NoError(t, healthy.live())
	for what, least := range map[string]int{"make log": 6, "make sst": 6, "remove sst": 2, "make MANIFEST": 3} {
		require.GreaterOrEqual(t, healthy.work[what], least, "%s: flushes, compactions and new logs are part of it: %v", what, healthy.work)
	}
	var cases []fault
	for _, c := range []class{writing, syncing, naming, reading} {
		n := int(healthy.counts[c].Load())
		require.Greater(t, n, 50, c)
		for k := 1; k <= n; k++ {
			for _, onward := range []bool{false, true} {
				cases = append(cases, fault{of: c, errno: syscall.EIO, ordinal: k, onward: onward})
				if c != reading {
					cases = append(cases, fault{of: c, errno: syscall.ENOSPC, ordinal: k, onward: onward})
				}
			}
			if k%4 == 0 && c != reading {
				cases = append(cases, fault{of: c, errno: syscall.EIO, ordinal: 3 * k, onward: k%8 == 0, traffic: true})
			}
		}
	}
	all := len(cases)
	cases = chosen(t, cases, int(most), seed)
	part, parts := 0, (len(cases)+inOneProcess-1)/inOneProcess
	if of := os.Getenv(partEnv); of != "" {
		_, err := fmt.Sscanf(of, "%d/%d", &part, &parts)
		require.NoError(t, err)
		own := 0
		for i, c := range cases {
			if i%parts == part {
				cases[own] = c
				own++
			}
		}
		cases = cases[:own]
	} else if parts > 1 {
		manyProcesses(t, parts, seed)
		return
	}

	tally := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 24) // most of a failed life is waiting for Close
	for _, c := range cases {
		if slots <- struct{}{}; t.Failed() {
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			l := newLife(c, seed)
			err := l.live()
			mu.Lock()
			defer mu.Unlock()
			l.count(tally)
			if err != nil {
				t.Errorf("pebble, seed %d, %v (%v): %v\nTry it again:\n\tmake faults ENGINE=pebble SEED=%d CASE=%v", seed, c, l.met.Load(), err, seed, c)
			}
		}()
	}
	wg.Wait()
	verdict := "no violation"
	if t.Failed() {
		verdict = "VIOLATIONS, see above"
	}
	t.Logf("pebble in memory, seed %d: %d of %d faults: %s; %s", seed, len(cases), all, storetest.Told(tally), verdict)
}

// heard reads what storetest.Told says.
func heard(tally map[string]int, words string) {
	for part := range strings.SplitSeq(words, ", ") {
		number, what, _ := strings.Cut(part, " ")
		n, _ := strconv.Atoi(number)
		tally[what] += n
	}
}

// Every Pebble that broke is left behind in memory. So many lives share a process.
const inOneProcess = 300

// partEnv says which part of the cases is a process's own: 3/8.
const partEnv = "IDEM_ROBUSTNESS_PART"

// manyProcesses has the cases done by n processes, one after the other.
func manyProcesses(t *testing.T, n int, seed uint64) {
	tally := map[string]int{}
	for i := range n {
		cmd := selfexec.Command(t.Context(), "-test.run=^TestEveryWriteFails$", "-test.v", "-test.timeout=0")
		cmd.Env = selfexec.Env(fmt.Sprintf("%s=%d/%d", partEnv, i, n), fmt.Sprintf("IDEM_ROBUSTNESS_SEED=%d", seed))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("part %d of %d: %v:\n%s", i, n, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if _, words, ok := strings.Cut(strings.TrimSpace(line), " faults: "); ok {
				words, _, _ = strings.Cut(words, ";")
				heard(tally, words)
			}
		}
	}
	t.Logf("pebble in memory, seed %d, %d processes: faults: %s; no violation", seed, n, storetest.Told(tally))
}

// count adds what came of it.
func (l *life) count(tally map[string]int) {
	op := l.met.Load()
	switch {
	case op == nil:
		tally["not reached"]++
		return
	case l.trial.Broken != nil:
		tally["broken"]++
	case l.trial.Refused != nil:
		tally["refused to open"]++
	default:
		tally["harmless"]++
	}
	tally[fmt.Sprintf("at %s %s", l.of, strings.Split(l.String(), "-")[1])]++
}

// chosen returns up to n of the cases, as seed chooses them; if one was asked for by its
// name, that one alone, also where this time no life has come so far.
func chosen(t *testing.T, cases []fault, n int, seed uint64) []fault {
	if only := os.Getenv("IDEM_ROBUSTNESS_CASE"); only != "" {
		last := strings.LastIndex(only, "-")
		for _, f := range cases {
			var err error
			if f.ordinal, err = strconv.Atoi(only[last+1:]); err == nil && f.String() == only {
				return []fault{f}
			}
		}
		t.Skipf("%s was asked for", only)
	}
	if n >= len(cases) {
		return cases
	}
	out := make([]fault, n)
	for i, k := range rand.New(rand.NewPCG(seed, 5)).Perm(len(cases))[:n] {
		out[i] = cases[k]
	}
	return out
}
