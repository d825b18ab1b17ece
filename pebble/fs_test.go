package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
)

// What works passes through, and what Pebble expects to fail comes back to it.
func TestGuardedFSPassesOn(t *testing.T) {
	t.Parallel()
	mem, f := vfs.NewMem(), newFatal()
	g := &guardedFS{FS: mem, dir: "d", fatal: f, moved: (&held{}).moved}
	require.Equal(t, vfs.FS(mem), g.Unwrap())
	require.NoError(t, g.MkdirAll("d", 0o700))
	file, err := g.Create("d/a", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = file.Write([]byte("text"))
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	require.NoError(t, file.SyncData())
	_, err = file.SyncTo(4)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	file, err = g.OpenReadWrite("d/a", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte("T"), 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.NoError(t, g.Link("d/a", "d/b"))
	require.ErrorIs(t, g.Link("d/a", "d/b"), fs.ErrExist)
	require.NoError(t, g.Rename("d/b", "d/c"))
	file, err = g.ReuseForWrite("d/c", "d/e", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.NoError(t, g.Remove("d/e"))
	require.ErrorIs(t, g.Remove("d/e"), fs.ErrNotExist)
	_, err = g.OpenDir("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, g.RemoveAll("d"))
	require.NoError(t, f.err())
}

// A list that fails comes back, until a table was made: then Pebble's own goroutines
// would outlive what they use, and nobody is to go on.
func TestListFailsAfterATable(t *testing.T) {
	t.Parallel()
	lists := newFaulty()
	lists.on(failing(syscall.EIO, func(op errorfs.Op) bool { return op.Kind == errorfs.OpList }))
	f := newFatal()
	g := &guardedFS{FS: errorfs.Wrap(lists.mem, lists), dir: ".", fatal: f, moved: (&held{}).moved}
	_, err := g.List("")
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, f.err())
	_, err = g.Create("000001.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	returned := make(chan struct{})
	go func() {
		_, _ = g.List("")
		close(returned)
	}()
	within(t, "List", func() { <-f.heard })
	require.ErrorIs(t, f.err(), syscall.EIO)
	select {
	case <-returned:
		t.Fatal("it returned")
	default:
	}
	g.opened.Store(true)
	_, err = g.List("")
	require.ErrorIs(t, err, syscall.EIO, "it is for the text of an error, and who reads does not wait")
	lists.on(func(errorfs.Op) error { return nil })
	names, err := g.List("")
	require.NoError(t, err)
	require.Equal(t, []string{"000001.sst"}, names)
}

// That a file is there or is not is no better news than any other error, where Pebble
// does not ask for it: it would panic.
func TestFilesThatAreNotExpectedToBeGone(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(g *guardedFS, f vfs.File){
		"make a log":   func(g *guardedFS, _ vfs.File) { _, _ = g.Create("d/000002.log", vfs.WriteCategoryUnspecified) },
		"make a table": func(g *guardedFS, _ vfs.File) { _, _ = g.Create("d/000002.sst", vfs.WriteCategoryUnspecified) },
		"make a marker": func(g *guardedFS, _ vfs.File) {
			_, _ = g.Create("d/marker.manifest.000002.MANIFEST-000001", vfs.WriteCategoryUnspecified)
		},
		"rename":    func(g *guardedFS, _ vfs.File) { _ = g.Rename("d/a", "d/b") },
		"open":      func(g *guardedFS, _ vfs.File) { _, _ = g.OpenReadWrite("d/a", vfs.WriteCategoryUnspecified) },
		"write":     func(_ *guardedFS, f vfs.File) { _, _ = f.Write([]byte("x")) },
		"write at":  func(_ *guardedFS, f vfs.File) { _, _ = f.WriteAt([]byte("x"), 0) },
		"sync":      func(_ *guardedFS, f vfs.File) { _ = f.Sync() },
		"sync data": func(_ *guardedFS, f vfs.File) { _ = f.SyncData() },
		"sync to":   func(_ *guardedFS, f vfs.File) { _, _ = f.SyncTo(1) },
	} {
		for _, cause := range []error{fs.ErrNotExist, fs.ErrExist} {
			t.Run(name+": "+cause.Error(), func(t *testing.T) {
				t.Parallel()
				disk, f := newFaulty(), newFatal()
				g := &guardedFS{FS: errorfs.Wrap(disk.mem, disk), dir: "d", fatal: f, moved: (&held{}).moved}
				require.NoError(t, g.MkdirAll("d", 0o700))
				file, err := g.Create("d/file", vfs.WriteCategoryUnspecified)
				require.NoError(t, err)
				disk.on(func(op errorfs.Op) error { return cause })
				returned := make(chan struct{})
				go func() {
					do(g, file)
					close(returned)
				}()
				within(t, name, func() {
					select {
					case <-f.heard:
					case <-returned:
						t.Error("it returned")
					}
				})
				require.ErrorIs(t, f.err(), cause)
			})
		}
	}
}

// refusing makes operations of these kinds on the database fail, and counts them.
func refusing(f *faulty, cause error, kinds ...errorfs.OpKind) *atomic.Int64 {
	var refused atomic.Int64
	f.on(func(op errorfs.Op) error {
		if slices.Contains(kinds, op.Kind) && strings.HasPrefix(op.Path, "store/"+dbName) {
			refused.Add(1)
			return cause
		}
		return nil
	})
	return &refused
}

// turn has the store write, flush and compact, and replace its logs.
func turn(t *testing.T, s *idem.Store, from int) (granted []idem.Token) {
	t.Helper()
	ctx := context.Background()
	db := engine.Of(s).(*Backend).DB()
	for round := range 8 {
		for i := range 4 {
			c := storetest.Complete(t, s, fmt.Sprint(from, round, i), "result")
			granted = append(granted, c.Token)
		}
		require.NoError(t, db.Flush())
	}
	require.NoError(t, db.Compact(ctx, []byte{0}, []byte{0xff}, false))
	return granted
}

func requireCompleted(t *testing.T, s *idem.Store, tokens []idem.Token) {
	t.Helper()
	for _, token := range tokens {
		rec, err := s.Get(context.Background(), token.Key)
		require.NoError(t, err)
		require.Equal(t, idem.Completed, rec.State)
	}
}

// A scanner of viruses holds files that are obsolete: they are removed another time, and
// logs are not used again.
func TestObsoleteFilesThatAreHeld(t *testing.T) {
	t.Parallel()
	for name, kinds := range map[string][]errorfs.OpKind{
		"not removed":    {errorfs.OpRemove},
		"not used again": {errorfs.OpReuseForWrite},
		"neither":        {errorfs.OpRemove, errorfs.OpReuseForWrite},
	} {
		for _, cause := range []error{syscall.EBUSY, fs.ErrPermission, fs.ErrNotExist} {
			t.Run(fmt.Sprint(name, ": ", cause), func(t *testing.T) {
				t.Parallel()
				f := newFaulty()
				s := f.open(t)
				refused := refusing(f, cause, kinds...)
				granted := turn(t, s, 0)
				require.NotZero(t, refused.Load())
				require.NoError(t, s.Close())
				s = f.open(t)
				granted = append(granted, turn(t, s, 1)...)
				require.NoError(t, s.Close())
				f.on(none)
				s = f.open(t)
				granted = append(granted, turn(t, s, 2)...)
				requireCompleted(t, s, granted)
				require.NoError(t, s.Close())
			})
		}
	}
}

// Somebody tidies up: the old logs that Pebble keeps to use again are removed while the
// store is open.
func TestOldLogsAreRemovedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	s := storeAt(t, dir, idem.Options{SweepInterval: -1})
	granted := turn(t, s, 0)
	logs, err := filepath.Glob(filepath.Join(dir, dbName, "*.log"))
	require.NoError(t, err)
	require.Greater(t, len(logs), 1)
	slices.Sort(logs)
	for _, old := range logs[:len(logs)-1] {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Skipf("it is held: %v", err) // Windows
		}
	}
	granted = append(granted, turn(t, s, 1)...)
	requireCompleted(t, s, granted)
	require.NoError(t, s.Close())
	s = storeAt(t, dir, idem.Options{SweepInterval: -1})
	requireCompleted(t, s, granted)
	require.NoError(t, s.Close())
}

// The directory is gone, and Pebble finds out in the background: the process lives.
func TestDirectoryIsRemovedBeforeAFlush(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	s := storeAt(t, dir, idem.Options{SweepInterval: -1})
	storetest.Claim(t, s, "k")
	require.NoError(t, os.RemoveAll(dir))
	b := engine.Of(s).(*Backend)
	go func() {
		defer func() { _ = recover() }() // it panics if another write broke the store first, and it is closed by now
		_ = b.DB().Flush()               // parked for good
	}()
	within(t, "the flush", func() { <-b.engine.fatal.heard })
	storetest.Refused(t, s, "l", idem.ErrBroken)
	within(t, "Close", func() { _ = s.Close() })
}

// A checkpoint on another disk that is full fails, and nothing else does.
func TestCheckpointToAFullDisk(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpMkdirAll, errorfs.OpOpenDir} {
		f := newFaulty()
		s := f.open(t)
		granted := turn(t, s, 0)
		f.on(failing(syscall.ENOSPC, func(op errorfs.Op) bool { return op.Kind == kind && strings.HasPrefix(op.Path, "backup") }))
		var err error
		within(t, "Checkpoint", func() { err = engine.Of(s).(*Backend).DB().Checkpoint("backup/db", pebble.WithFlushedWAL()) })
		require.ErrorIs(t, err, syscall.ENOSPC, kind)
		granted = append(granted, turn(t, s, 1)...)
		requireCompleted(t, s, granted)
		require.NoError(t, s.Close())
	}
}

// Damage met in the background breaks nothing by itself; other errors there do.
func TestBackgroundErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{SweepInterval: -1})
	f := engine.Of(s).(*Backend).engine.fatal
	f.Infof("%s", "heard by nobody")
	f.Errorf("%s", "heard by nobody")
	f.listener().DataCorruption(pebble.DataCorruptionInfo{})
	f.listener().BackgroundError(pebble.ErrCorruption)
	f.listener().BackgroundError(pebble.ErrCorruption)
	storetest.Claim(t, s, "k")

	cause := errors.New("the end")
	f.listener().BackgroundError(cause)
	_, err := s.Claim(ctx, idem.Request{Key: "l"})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, cause)
	within(t, "Close", func() { _ = s.Close() })

	g := newFatal()
	g.Fatalf("before there is a %s", "backend")
	b := mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{})
	g.breaks(b.core)
	_, err = idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.NoError(t, b.Close())
}

// Pebble's messages may have the stack of a goroutine in them.
func TestMessagesAreOneLine(t *testing.T) {
	t.Parallel()
	f := newFatal()
	f.Fatalf("%+v", fmt.Errorf("the table is cut: %w\ngoroutine 1 [running]:\nmain.main()", fs.ErrInvalid))
	require.EqualError(t, f.err(), "the table is cut: invalid argument")
	require.ErrorIs(t, redact(fmt.Errorf("a\n%w", fs.ErrInvalid)), fs.ErrInvalid)
}

func TestRedactedErrorsAreThemselves(t *testing.T) {
	t.Parallel()
	cause := &fs.PathError{Op: "open", Path: reserved + "rSECRET", Err: fs.ErrPermission}
	err := redact(cause)
	require.NotContains(t, err.Error(), "SECRET")
	require.ErrorIs(t, err, fs.ErrPermission)
	var as *fs.PathError
	require.ErrorAs(t, err, &as)
}
