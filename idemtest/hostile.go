package idemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
)

// hostileEnv, set to "long", makes RunHostile use ten times as much of everything.
const hostileEnv = "IDEMTEST_HOSTILE"

// RunHostile shows that the engine of h withstands what Run does not try: a crowd of
// 10,000 callers on one key (3,000 with the race detector, which allows no more), large
// results, keys of any bytes, store after store on one folder, Close at every moment,
// and contexts cancelled at random. Each case is a parallel subtest of t. The
// environment variable IDEMTEST_HOSTILE=long makes it ten times as long.
func RunHostile(t *testing.T, h Harness) {
	if h.Open == nil {
		t.Fatal("idemtest: Harness.Open is nil")
	}
	for _, c := range hostileCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.fn(t, newEnv(t, h))
		})
	}
}

var hostileCases = []testCase{
	{"a crowd that claims and waits", crowdOfClaims},
	{"a crowd that runs Do", crowdOfDo},
	{"large results", largeResults},
	{"keys of any bytes", hostileKeys},
	{"opened and closed again and again", openAndClose},
	{"Close at every moment", closeEverywhere},
	{"Close under a stalled commit", closeStalled},
	{"Close by an Observer", closeByObserver},
	{"Close within Do", closeWithinDo},
	{"Close and Shutdown at once", closeAndShutdown},
	{"contexts cancelled at random", cancelAnywhere},
}

// scaled returns n, or ten times n in a long run. It returns less under the race detector.
func scaled(n int) int {
	if os.Getenv(hostileEnv) == "long" {
		return 10 * n
	}
	return n / race.Share
}

// crowdSize is how many callers a crowd has. The race detector ends the process at 8,128
// goroutines, including those of the cases that run at the same time.
func crowdSize() int {
	if race.Enabled {
		return 3_000
	}
	return 10_000
}

// report prints the first few of many failures that goroutines may meet together.
type report struct {
	t *testing.T
	n atomic.Int64
}

func (r *report) errorf(format string, args ...any) {
	r.t.Helper()
	if r.n.Add(1) <= 10 {
		r.t.Errorf(format, args...)
	}
}

func crowdOfClaims(t *testing.T, e *env) {
	s := e.open(idem.Options{Lease: time.Hour, Retention: 2 * time.Hour})
	result := []byte("the one result\x00\xff")
	var crowds sync.WaitGroup
	t.Cleanup(func() { // also if the case failed half-way: nothing may report after its end
		_ = e.closeStore(s)
		crowds.Wait()
	})
	for round := range 2 { // on a new key, and over a lapsed lease
		var granted, answered atomic.Int64
		var token atomic.Pointer[idem.Token]
		allAnswered := make(chan struct{})
		bad := &report{t: t}
		crowds.Add(1)
		crowd := async(func() struct{} {
			defer crowds.Done()
			inParallel(crowdSize(), func(int) {
				c, err := s.Claim(e.ctx, idem.Request{Key: "k"})
				if err == nil {
					granted.Add(1)
					token.Store(&c.Token)
				}
				if answered.Add(1) == int64(crowdSize()) {
					close(allAnswered)
				}
				if err == nil {
					return
				}
				if err != idem.ErrInFlight {
					bad.errorf("Claim: %v, of %d callers one is granted and the others are refused", err, crowdSize())
				}
				if c.Token != (idem.Token{}) {
					bad.errorf("a refused claim has a token")
				}
				r, err := s.Wait(e.ctx, "k")
				if round == 0 { // the lease lapses under all of them
					if err != nil || r.State != idem.InFlight {
						bad.errorf("Wait: %v, %v; the lease has lapsed", r, err)
					}
					return
				}
				if err != nil || r.State != idem.Completed || !bytes.Equal(r.Result, result) {
					bad.errorf("Wait: %v, %v; the operation is completed", r, err)
				}
				if c, err = s.Claim(e.ctx, idem.Request{Key: "k"}); err != idem.ErrCompleted || !bytes.Equal(c.Record.Result, result) {
					bad.errorf("Claim: %v, %v; the result is to replay", c.Record, err)
				}
			})
			return struct{}{}
		})
		e.await("claims of a crowd", allAnswered)
		require.EqualValues(t, 1, granted.Load(), "grants")
		e.timers(crowdSize() - 1) // all refused callers are waiting
		if round == 0 {
			e.clock.Advance(time.Hour)
		} else {
			require.NoError(t, s.Complete(e.ctx, *token.Load(), result))
		}
		crowd.wait(e, "a crowd")
		require.Zero(t, e.clock.Pending(), "a waiter left its timer behind")
	}
	require.Equal(t, 2, e.get("k").Attempt)
	t.Logf("%d callers at once", crowdSize())
}

func crowdOfDo(t *testing.T, e *env) {
	s := e.open(idem.Options{})
	var ran, first atomic.Int64
	bad := &report{t: t}
	e.together(crowdSize(), func(int) {
		value, replayed, err := idem.Do(e.ctx, s, idem.Request{Key: "k"}, func(context.Context, idem.Claim) ([]byte, error) {
			ran.Add(1)
			settle()
			return []byte("v"), nil
		})
		if err != nil || string(value) != "v" {
			bad.errorf("Do: %q, %v", value, err)
		}
		if !replayed {
			first.Add(1)
		}
	})
	require.EqualValues(t, 1, ran.Load(), "runs")
	require.EqualValues(t, 1, first.Load(), "answers that are no replay")
}

// noise returns n bytes that do not compress, different for each seed. They are shared:
// do not change them.
func noise(seed uint64, n int) []byte {
	block := noiseBlock()
	from := seed * 4099 % uint64(len(block)-n)
	return block[from : from+uint64(n) : from+uint64(n)]
}

var noiseBlock = sync.OnceValue(func() []byte {
	b := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

func largeResults(t *testing.T, e *env) {
	const size = 1 << 20 // the default MaxResult
	keys := scaled(24)
	key := func(i int) string { return fmt.Sprint("large ", i) }
	s := e.open(idem.Options{CacheBytes: 8 << 20}) // less than the results take
	bad := &report{t: t}
	e.together(8, func(w int) {
		for i := w; i < keys; i += 8 {
			c, err := s.Claim(e.ctx, idem.Request{Key: key(i)})
			if err == nil && i%4 == 0 {
				err = s.Checkpoint(e.ctx, c.Token, noise(uint64(i)+1000, size))
			}
			if err == nil {
				err = s.Complete(e.ctx, c.Token, noise(uint64(i), size))
			}
			if err != nil {
				bad.errorf("%s: %v", key(i), err)
			}
		}
	})
	// More in one commit than engines like to take, and one result that is a byte too
	// long.
	many := make([]idem.Completion, 12)
	for i := range many {
		c := e.claim(idem.Request{Key: key(keys + i)})
		many[i] = idem.Completion{Token: c.Token, Result: noise(uint64(keys+i), size)}
	}
	for i, err := range s.CompleteMany(e.ctx, many) {
		require.NoError(t, err, "completion %d", i)
	}
	keys += len(many)
	c := e.claim(idem.Request{Key: "over"})
	require.ErrorIs(t, s.Complete(e.ctx, c.Token, noise(1, size+1)), idem.ErrTooLarge)

	check := func() {
		t.Helper()
		s := e.s
		e.together(4, func(w int) {
			for i := w; i < keys; i += 4 {
				want := noise(uint64(i), size)
				c, err := s.Claim(e.ctx, idem.Request{Key: key(i)})
				if !errors.Is(err, idem.ErrCompleted) || !bytes.Equal(c.Record.Result, want) {
					bad.errorf("%s: %v: another result replays", key(i), err)
				}
				if c.Record.Checkpoint != nil {
					bad.errorf("%s: the checkpoint of a final record is dropped", key(i))
				}
			}
		})
		require.True(t, e.get("over").ResultDropped)
		if !e.canScan() {
			return
		}
		seen := 0
		for r, err := range s.Records(e.ctx, idem.Filter{Prefix: "large "}) {
			require.NoError(t, err)
			var i int
			_, err = fmt.Sscanf(r.Key, "large %d", &i)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(noise(uint64(i), size), r.Result), r.Key)
			seen++
		}
		require.Equal(t, keys, seen)
	}
	e.alsoReopened(check)
}

// openAndClose looks for what a closed store leaves behind: goroutines, open files, and
// files that nobody removes.
func openAndClose(t *testing.T, e *env) {
	cycles := scaled(100)
	mark := markGoroutines(t.Name())
	defer func() { mark.verifyNone(t, e.h.Patience) }()
	dir := e.dir
	var early int
	for i := range cycles {
		b := e.h.Open(t, dir)
		s, err := idem.New(b, idem.Options{Clock: e.clock, LapseOnOpen: i%2 == 0, Stall: unbounded(0)})
		require.NoError(t, err)
		if runtime.GOOS == "linux" && countFiles(t, dir) > 0 {
			require.NotEmpty(t, openFiles(t, dir), "what is open is not seen")
		}
		key := func(i int) string { return fmt.Sprint("k", i) }
		if i%3 != 2 { // one in three is closed without having been used
			c, err := s.Claim(e.ctx, idem.Request{Key: key(i)})
			require.NoError(t, err)
			require.NoError(t, s.Complete(e.ctx, c.Token, []byte(key(i))))
		}
		if before := i / 2; before%3 != 2 && before != i && !e.h.Volatile {
			r, err := s.Get(e.ctx, key(before))
			require.NoError(t, err, "cycle %d", i)
			require.Equal(t, key(before), string(r.Result))
		}
		require.NoError(t, s.Close(), "cycle %d", i)
		require.Empty(t, openFiles(t, dir), "files left open in cycle %d", i)
		if i == cycles/4 {
			early = countFiles(t, dir)
		}
	}
	late := countFiles(t, dir)
	require.LessOrEqual(t, late, early+16, "files left behind: %d after a quarter of the cycles", early)
	t.Logf("%d cycles, %d files after a quarter of them, %d in the end", cycles, early, late)
}

// openFiles lists the files that this process has open below dir, where the system can
// tell.
func openFiles(t *testing.T, dir string) (open []string) {
	if runtime.GOOS != "linux" {
		return nil
	}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && strings.HasPrefix(path, dir+string(filepath.Separator)) { // on error: another case has just closed it
			open = append(open, path)
		}
	}
	return open
}

func countFiles(t *testing.T, dir string) (n int) {
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}
