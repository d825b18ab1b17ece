package pebble

import (
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
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// sticky makes what stops finds stop for good, until release is called. Reached is
// closed when something has.
func (f *faulty) sticky(stops func(op errorfs.Op) bool) (stick func(), reached <-chan struct{}, release func()) {
	arrived, free := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	stick = func() {
		f.on(func(op errorfs.Op) error {
			if stops(op) {
				once.Do(func() { close(arrived) })
				<-free
			}
			return nil
		})
	}
	return stick, arrived, func() { end.Do(func() { close(free) }) }
}

func isLog(op errorfs.Op) bool { return filepath.Ext(op.Path) == ".log" }

// A disk that does not answer, in the middle of a commit.
func TestFaultsStuckDisk(t *testing.T) {
	t.Parallel()
	for name, stops := range map[string]func(op errorfs.Op) bool{
		"sync of the log":     func(op errorfs.Op) bool { return isLog(op) && isSync(op) },
		"write to the log":    func(op errorfs.Op) bool { return isLog(op) && classOf(op) == writing },
		"whatever is written": func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
	} {
		for _, closes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, close %v", name, closes), func(t *testing.T) {
				t.Parallel()
				f := newFaulty()
				stick, reached, release := f.sticky(stops)
				k := &oracle.Stuck{
					Open: func(o idem.Options) (oracle.Subject, error) {
						b, err := Open("store", smallOptions(f))
						if err != nil {
							return oracle.Subject{}, err
						}
						return subject(b, o)
					},
					Clock: oracle.NewClock(0), Close: closes,
					Stick: stick, Reached: func() { <-reached }, Release: release,
				}
				require.NoError(t, k.Run(context.Background()))
			})
		}
	}
}

// A flush that does not get done: commits come to wait for room in the memtables, and
// readers do not. When the disk answers, all go on.
func TestFaultsStuckFlush(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	stick, reached, release := f.sticky(func(op errorfs.Op) bool {
		return filepath.Ext(op.Path) == ".sst" && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	})
	b, err := Open("store", smallOptions(f))
	require.NoError(t, err)
	s := storetest.Open(t, b, idem.Options{SweepInterval: -1, CacheBytes: -1})
	storetest.Complete(t, s, "done", "result")

	stick()
	var filled atomic.Int64
	filling := make(chan error, 1)
	go func() {
		for i := range int64(100) { // far more than the memtables hold
			c, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint(i)})
			if err == nil {
				err = s.Complete(ctx, c.Token, make([]byte, 20<<10))
			}
			if err != nil {
				filling <- err
				return
			}
			filled.Store(i + 1)
		}
		filling <- nil
	}()
	<-reached
	within(t, "reading while a flush is stuck", func() {
		for range 2000 {
			c, err := s.Claim(ctx, idem.Request{Key: "done"})
			require.ErrorIs(t, err, idem.ErrCompleted)
			require.Equal(t, "result", string(c.Record.Result))
			_, err = s.Get(ctx, "nobody's")
			require.ErrorIs(t, err, idem.ErrNotFound)
			runtime.Gosched()
		}
	})
	require.Empty(t, filling, "there is no room for all of it")
	release()
	within(t, "filling", func() { require.NoError(t, <-filling) })
	require.EqualValues(t, 100, filled.Load())
	within(t, "Close", func() { require.NoError(t, s.Close()) })
}

// A slow disk: random traffic while writes and syncs take their time. No bound of ours
// on a broken engine takes it for one, and every answer is right.
func TestFaultsSlowDisk(t *testing.T) {
	t.Parallel()
	if only := os.Getenv("IDEM_ROBUSTNESS_ENGINE"); only != "" && only != "pebble" {
		t.Skip("not the engine asked for")
	}
	if only := os.Getenv("IDEM_ROBUSTNESS_CASE"); only != "" {
		t.Skipf("%s was asked for", only)
	}
	seed := storetest.Setting(t, "IDEM_ROBUSTNESS_SEED", rand.Uint64N(1<<32))
	stores := 1 + storetest.Setting(t, "IDEM_ROBUSTNESS_FAULTS", 0)/200
	delays := 0
	for i := range stores {
		l := newLife(fault{traffic: true}, seed+i)
		l.disk = newFaulty()
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(seed, i))
		l.disk.on(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			mu.Lock()
			delays++
			d := time.Duration(rng.Int64N(int64(2 * time.Millisecond)))
			mu.Unlock()
			time.Sleep(d) // the disk's time
			return nil
		})
		err := l.live()
		require.NoError(t, err, "pebble, seed %d: try it again: make faults ENGINE=pebble SEED=%d", seed, seed+i)
		require.NoError(t, l.trial.Broken)
	}
	t.Logf("pebble, seed %d: %d stores, %d writes delayed; no violation", seed, stores, delays)
}

// Stats does not wait for Pebble's list of files, whose write may never return.
func TestSizeWhileTheManifestIsStuck(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	stick, reached, release := f.sticky(func(op errorfs.Op) bool {
		return strings.Contains(op.Path, "MANIFEST") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	})
	b, err := Open("store", smallOptions(f))
	require.NoError(t, err)
	s := storetest.Open(t, b, idem.Options{SweepInterval: -1, Stall: -1})
	storetest.Complete(t, s, "done", "result")
	before, err := s.Stats(ctx)
	require.NoError(t, err)
	require.Positive(t, before.EngineBytes)

	stick()
	flushed, err := b.DB().AsyncFlush()
	require.NoError(t, err)
	<-reached
	within(t, "Stats while the manifest is stuck", func() {
		st, err := s.Stats(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, st.Completed)
		require.Positive(t, st.EngineBytes)
	})
	release()
	<-flushed
}

// Stats of a process that has no descriptor left to list the directory with fails. The
// store goes on.
func TestSizeWithoutDescriptors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	b, err := Open("store", smallOptions(f))
	require.NoError(t, err)
	s := storetest.Open(t, b, idem.Options{SweepInterval: -1})
	storetest.Complete(t, s, "done", "result")
	for _, kind := range []errorfs.OpKind{errorfs.OpList, errorfs.OpStat} {
		f.on(failing(syscall.EMFILE, func(op errorfs.Op) bool { return op.Kind == kind && strings.HasPrefix(op.Path, "store/"+dbName) }))
		_, err = s.Stats(ctx)
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, idem.ErrBroken)
		f.on(func(errorfs.Op) error { return nil })
	}
	storetest.Claim(t, s, "new")
	st, err := s.Stats(ctx)
	require.NoError(t, err)
	require.Positive(t, st.EngineBytes)
}

// A read that the disk does not answer holds up its caller alone. Close leaves it
// behind.
func TestCloseWhileAReadIsStuck(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	stick, reached, release := f.sticky(func(op errorfs.Op) bool {
		return filepath.Ext(op.Path) == ".sst" && (op.Kind == errorfs.OpFileReadAt || op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpOpen)
	})
	b, err := Open("store", smallOptions(f))
	require.NoError(t, err)
	s, err := idem.New(b, idem.Options{SweepInterval: -1, CacheBytes: -1, Stall: 2 * time.Second})
	require.NoError(t, err)
	storetest.Complete(t, s, "done", "result")
	require.NoError(t, b.DB().Flush())

	stick()
	got := make(chan error, 1)
	go func() {
		_, err := s.Get(ctx, "done")
		got <- err
	}()
	<-reached
	within(t, "Close", func() { err = s.Close() })
	if !errors.Is(err, idem.ErrBroken) { // closing the database may stall on the read, too
		require.ErrorContains(t, err, "still open")
	}
	select {
	case err := <-got: // a job of Pebble's met the disk first, and the read came after Close
		require.ErrorIs(t, err, idem.ErrClosed)
		got <- err
	default:
	}
	release()
	within(t, "the read", func() {
		if err := <-got; err != nil { // it may have what it read
			require.ErrorIs(t, err, idem.ErrClosed)
		}
	})
}
