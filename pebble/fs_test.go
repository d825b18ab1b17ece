package pebble

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// What works passes through, and what Pebble expects to fail comes back to it.
func TestGuardedFSPassesOn(t *testing.T) {
	t.Parallel()
	mem, f := vfs.NewMem(), newFatal()
	g := &guardedFS{FS: mem, fatal: f, moved: (&held{}).moved}
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
func TestC4ListFailsAfterATable(t *testing.T) {
	t.Parallel()
	lists := newFaulty()
	lists.on(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpList {
			return syscall.EIO
		}
		return nil
	})
	f := newFatal()
	g := &guardedFS{FS: errorfs.Wrap(lists.mem, lists), fatal: f, moved: (&held{}).moved}
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
	lists.on(func(errorfs.Op) error { return nil })
	names, err := g.List("")
	require.NoError(t, err)
	require.Equal(t, []string{"000001.sst"}, names)
}

// Damage met in the background breaks nothing by itself; other errors there do.
func TestBackgroundErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, err := idem.New(mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{}), idem.Options{SweepInterval: -1})
	require.NoError(t, err)
	f := s.Backend().(*Backend).engine.fatal
	f.Infof("%s", "heard by nobody")
	f.Errorf("%s", "heard by nobody")
	f.listener().DataCorruption(pebble.DataCorruptionInfo{})
	f.listener().BackgroundError(pebble.ErrCorruption)
	f.listener().BackgroundError(pebble.ErrCorruption)
	_, err = s.Claim(ctx, idem.Request{Key: "k"})
	require.NoError(t, err)

	cause := errors.New("the end")
	f.listener().BackgroundError(cause)
	_, err = s.Claim(ctx, idem.Request{Key: "l"})
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

func TestRedactedErrorsAreThemselves(t *testing.T) {
	t.Parallel()
	cause := &fs.PathError{Op: "open", Path: reserved + "rSECRET", Err: fs.ErrPermission}
	err := redact(cause)
	require.NotContains(t, err.Error(), "SECRET")
	require.ErrorIs(t, err, fs.ErrPermission)
	var as *fs.PathError
	require.ErrorAs(t, err, &as)
}
