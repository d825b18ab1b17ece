package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/storetest"
)

// faulty is a file system in memory whose operations fail once fails says so.
type faulty struct {
	mem   *vfs.MemFS
	fails atomic.Pointer[func(op errorfs.Op) error]
}

func newFaulty() *faulty { return &faulty{mem: vfs.NewCrashableMem()} }

func (f *faulty) MaybeError(op errorfs.Op) error {
	if fails := f.fails.Load(); fails != nil {
		return (*fails)(op)
	}
	return nil
}

func (f *faulty) String() string { return "faulty" }

func (f *faulty) on(fails func(op errorfs.Op) error) { f.fails.Store(&fails) }

// failing fails the operations that when finds.
func failing(err error, when func(op errorfs.Op) bool) func(op errorfs.Op) error {
	return func(op errorfs.Op) error {
		if when(op) {
			return err
		}
		return nil
	}
}

// within fails the test if f hangs.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	require.NoError(t, progress.Watch{}.Run(what, f))
}

func (f *faulty) open(t *testing.T) *idem.Store {
	t.Helper()
	b := mustOpen(t, "store", Options{fs: errorfs.Wrap(f.mem, f), MinFree: -1, MemTableBytes: 1 << 20})
	s, err := idem.New(b, idem.Options{SweepInterval: -1, CacheBytes: -1})
	require.NoError(t, err)
	return s
}

// left opens what a new process would find: what was synced, and of the rest some.
func (f *faulty) left(t *testing.T, percent int) *idem.Store {
	t.Helper()
	return (&faulty{mem: f.crash(percent)}).open(t)
}

func (f *faulty) crash(percent int) *vfs.MemFS {
	return f.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 2))})
}

func requireBroken(t *testing.T, s *idem.Store, known idem.Token) {
	t.Helper()
	ctx := context.Background()
	storetest.Refused(t, s, "after", idem.ErrBroken)
	_, err := s.Get(ctx, known.Key)
	require.ErrorIs(t, err, idem.ErrBroken)
	_, err = s.Claim(ctx, idem.Request{Key: known.Key})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, s.Complete(ctx, known, nil), idem.ErrBroken)
	_, err = s.Wait(ctx, known.Key)
	require.ErrorIs(t, err, idem.ErrBroken)
	within(t, "Close", func() { _ = s.Close() })
	storetest.Refused(t, s, "after", idem.ErrClosed)
}

// A log that cannot be synced: the claim is not granted, nothing is answered any
// more, the process lives, and what was acknowledged before is there afterwards.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	s := f.open(t)
	first := storetest.Claim(t, s, "first")
	f.on(failing(syscall.EIO, func(op errorfs.Op) bool { return isSync(op) && isLog(op) }))
	var err error
	within(t, "Claim", func() { _, err = s.Claim(ctx, idem.Request{Key: "second"}) })
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, syscall.EIO)
	requireBroken(t, s, first.Token)

	for _, percent := range []int{0, 100} {
		again := f.left(t, percent)
		rec, err := again.Get(ctx, "first")
		require.NoError(t, err)
		require.Equal(t, first.Token, rec.Token())
		require.NoError(t, again.Close())
	}
}

// A panic of Pebble's in a commit breaks the store and nothing else, and what Pebble may
// still hold is left to it.
func TestPanicInACommit(t *testing.T) {
	t.Parallel()
	s := newFaulty().open(t)
	b := engine.Of(s).(*Backend)
	err := b.Update(context.Background(), func(*pebble.Batch) error { return b.DB().Close() }) // never to be done
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorContains(t, err, "panic in Pebble")
	require.Error(t, b.engine.fatal.err())
	storetest.Refused(t, s, "k", idem.ErrBroken)
	within(t, "Close", func() { _ = s.Close() })
}

// A disk that is full for everything but the log: flushes fail in the background,
// and Pebble makes writers wait for them for ever. They hear that the store is
// broken instead.
func TestDiskFullInTheBackground(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	s := f.open(t)
	first := storetest.Claim(t, s, "first")
	f.on(failing(syscall.ENOSPC, func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && filepath.Ext(op.Path) == ".sst"
	}))
	granted := []idem.Token{first.Token}
	var err error
	within(t, "Claim", func() {
		for i := 0; ; i++ {
			c, claimErr := s.Claim(ctx, idem.Request{Key: fmt.Sprint(i)})
			if err = claimErr; err != nil {
				return
			}
			granted = append(granted, c.Token)
			if err = s.Checkpoint(ctx, c.Token, make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, syscall.ENOSPC)
	requireBroken(t, s, first.Token)

	again := f.left(t, 0)
	for _, token := range granted {
		rec, err := again.Get(ctx, token.Key)
		require.NoError(t, err)
		require.Equal(t, token.Fence, rec.Fence)
	}
	require.NoError(t, again.Close())
}

// Reads of damaged tables are about their keys; the store goes on.
func TestDamagedTable(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	mem := vfs.NewCrashableMem()
	s := storetest.Open(t, mustOpen(t, "store", Options{fs: mem, MinFree: -1}), idem.Options{SweepInterval: -1, CacheBytes: -1})
	result := make([]byte, 1000)
	source := rand.New(rand.NewPCG(3, 4))
	for i := range result { // that does not compress
		result[i] = byte(source.Uint32())
	}
	for i := range 100 {
		storetest.Complete(t, s, fmt.Sprintf("%03d", i), string(result))
	}
	require.NoError(t, engine.Of(s).(*Backend).DB().Flush())
	require.NoError(t, s.Close())

	names, err := mem.List("store/" + dbName)
	require.NoError(t, err)
	var largest string
	var size int64
	for _, name := range names {
		info, err := mem.Stat("store/" + dbName + "/" + name)
		require.NoError(t, err)
		if filepath.Ext(name) == ".sst" && info.Size() > size {
			largest, size = "store/"+dbName+"/"+name, info.Size()
		}
	}
	file, err := mem.OpenReadWrite(largest, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	var b [1]byte
	_, err = file.ReadAt(b[:], size/2)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = file.WriteAt(b[:], size/2)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	s = storetest.Open(t, mustOpen(t, "store", Options{fs: mem, MinFree: -1}), idem.Options{SweepInterval: -1, CacheBytes: -1})
	corrupt, bad := 0, ""
	for i := range 100 {
		key := fmt.Sprintf("%03d", i)
		if _, err := s.Get(ctx, key); err != nil {
			require.ErrorIs(t, err, idem.ErrCorrupt)
			_, err = s.Claim(ctx, idem.Request{Key: key})
			require.ErrorIs(t, err, idem.ErrCorrupt, "never a grant")
			require.ErrorIs(t, s.Complete(ctx, idem.Token{Key: key, Fence: 1}, nil), idem.ErrCorrupt)
			corrupt++
			bad = key
		}
	}
	require.NotZero(t, corrupt)
	require.Less(t, corrupt, 100, "one block is damaged")
	_, err = s.Stats(ctx)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	storetest.Claim(t, s, "another") // reading what is damaged broke nothing
	require.NoError(t, s.Forget(ctx, idem.Token{Key: bad}))
	_, err = s.Claim(ctx, idem.Request{Key: bad})
	require.ErrorIs(t, err, idem.ErrCorrupt, "Pebble reads the damage below its own removal: still never a grant")
}

// statsJob has the name of Pebble's job that reads the statistics of tables.
type statsJob struct{ listener *pebble.EventListener }

func (j statsJob) collectTableStats() { j.listener.BackgroundError(pebble.ErrCorruption) }

// A table whose statistics cannot be read does not keep a processor busy: Pebble tries
// again at once, so each failure is followed by a pause. Elsewhere Pebble holds locks when
// it reports an error, and is not held up.
func TestUnreadableStatisticsDoNotSpin(t *testing.T) {
	t.Parallel()
	f, paused := newFatal(), 0
	f.pause = func() { paused++ }
	job := statsJob{f.listener()}
	job.collectTableStats()
	job.collectTableStats()
	require.Equal(t, 2, paused)
	job.listener.BackgroundError(pebble.ErrCorruption)
	require.Equal(t, 2, paused)
}

// A table whose file is gone is no damaged block: somebody is removing the store, and it
// answers nothing more, whoever meets that first.
func TestTableThatIsGone(t *testing.T) {
	t.Parallel()
	gone := failing(&fs.PathError{Op: "open", Path: "000009.sst", Err: syscall.ENOENT}, func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpOpen && filepath.Ext(op.Path) == ".sst"
	})
	for name, meets := range map[string]func(*idem.Store) error{
		"Get": func(s *idem.Store) error { _, err := s.Get(t.Context(), "known"); return err },
		"Claim": func(s *idem.Store) error {
			_, err := s.Claim(t.Context(), idem.Request{Key: "known"})
			return err
		},
		"Complete": func(s *idem.Store) error { return s.Complete(t.Context(), idem.Token{Key: "known", Fence: 1}, nil) },
		"Records": func(s *idem.Store) error {
			for _, err := range s.Records(t.Context(), idem.Filter{}) {
				return err
			}
			return nil
		},
	} {
		f := newFaulty()
		s := f.open(t)
		known := storetest.Complete(t, s, "known", "result")
		f.on(gone)
		require.NoError(t, engine.Of(s).(*Backend).DB().Flush())
		require.ErrorIs(t, meets(s), idem.ErrBroken, name)
		requireBroken(t, s, known.Token)
	}
	f := newFaulty()
	s := f.open(t)
	storetest.Complete(t, s, "known", "result")
	require.NoError(t, s.Close()) // which flushes
	f.on(gone)
	_, err := Open("store", Options{fs: errorfs.Wrap(f.mem, f), MinFree: -1})
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, "restore the directory from a backup")

	heard := newFatal()
	heard.listener().BackgroundError(fmt.Errorf("%w: %w", pebble.ErrCorruption, fs.ErrNotExist))
	require.Error(t, heard.err())
}

// Closing ends a pause.
func TestClosingEndsThePauseOfStatistics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFatal()
		began := time.Now()
		f.untilNextStats()
		require.Equal(t, statsPause, time.Since(began))
		f.leave()
		f.untilNextStats()
		require.Equal(t, statsPause, time.Since(began))
	})
}

func TestMinFree(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, Options{MinFree: math.MaxInt64}, idem.Options{})
	if _, err := s.Claim(context.Background(), idem.Request{Key: "k"}); err != nil { // nil where free space cannot be told
		require.True(t, errors.Is(err, idem.ErrFull), "%v", err)
	}
}

// Same-commit functions that share a commit have a batch each, and a crash may keep
// some of them: none may be there without the meta entry that covers its fence, or
// the fence would be granted again.
func TestFencesOfBatchesThatACrashKeeps(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	stalled, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := f.open(t)
	defer func() { _ = s.Close() }()
	f.on(func(op errorfs.Op) error {
		if isSync(op) && filepath.Ext(op.Path) == ".log" {
			once.Do(func() { close(stalled); <-free })
		}
		return nil
	})
	var wg, begun sync.WaitGroup
	do := func(key string, fn func() error) {
		wg.Add(1)
		begun.Add(1)
		go func() {
			defer wg.Done()
			begun.Done()
			_, _, err := Do(ctx, s, idem.Request{Key: key}, func(_ context.Context, b *pebble.Batch) ([]byte, error) {
				// Large enough that Pebble writes it out before the sync.
				return nil, errors.Join(fn(), b.Set([]byte("own/"+key), make([]byte, 100<<10), nil))
			})
			if err != nil {
				t.Errorf("Do of %s: %v", key, err)
			}
		}()
	}
	do("first", func() error { return nil })
	<-stalled // the others queue up behind it
	var mu sync.Mutex
	var images []*vfs.MemFS
	for i := range 16 {
		do(fmt.Sprint(i), func() error {
			mu.Lock()
			defer mu.Unlock()
			images = append(images, f.crash(100))
			return nil
		})
	}
	begun.Wait()
	close(free)
	wg.Wait()
	for _, image := range images {
		again := (&faulty{mem: image}).open(t)
		highest := uint64(0)
		for rec, err := range again.Records(ctx, idem.Filter{}) {
			require.NoError(t, err)
			highest = max(highest, rec.Fence)
		}
		c := storetest.Claim(t, again, "next")
		require.Greater(t, c.Token.Fence, highest)
		require.NoError(t, again.Close())
	}
}
