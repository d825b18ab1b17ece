package bolt

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// A store whose path names something else, or nothing, owns nothing: whoever opens
// the path gets the same keys. From the next commit on it answers no more.
func TestAStoreThatWasMovedAnswersNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let open files be moved or removed")
	}
	ctx := context.Background()
	for name, c := range map[string]struct {
		move   func(t *testing.T, path string)
		reason string
	}{
		"renamed": {func(t *testing.T, path string) { require.NoError(t, os.Rename(path, path+".old")) }, "moved or removed"},
		"removed": {func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, "moved or removed"},
		"its directory renamed": {func(t *testing.T, path string) {
			require.NoError(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".old"))
		}, "moved or removed"},
		"another store renamed over it": {func(t *testing.T, path string) {
			filled(t, path+".other", 1)
			require.NoError(t, os.Rename(path+".other", path))
		}, "replaced"},
		"removed and made anew": {func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			filled(t, path, 1)
		}, "replaced"},
		"another directory in place of its own": {func(t *testing.T, path string) {
			require.NoError(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".old"))
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
			filled(t, path, 1)
		}, "replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "dir")
			require.NoError(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, fileName)
			b := mustOpen(t, path, Options{})
			s := storetest.Open(t, b, idem.Options{SweepInterval: -1})
			before := storetest.Claim(t, s, "before")

			c.move(t, path)
			_, err := s.Claim(ctx, idem.Request{Key: "after"})
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorContains(t, err, c.reason)
			require.ErrorContains(t, err, path)
			require.ErrorIs(t, s.Complete(ctx, before.Token, nil), idem.ErrBroken)
			require.ErrorIs(t, b.Update(ctx, func(*bbolt.Tx) error { return nil }), idem.ErrBroken)
			_, err = s.Get(ctx, "before")
			require.ErrorIs(t, err, idem.ErrBroken)
		})
	}
}

// A restore in place, with cp or the like, leaves the file its identity. The store grants
// nothing on the older copy: what was granted since would be granted again, and a page
// that is free in the newer tree may be in use in the older one.
func TestAStoreOverwrittenByAnOlderCopyGrantsNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let mapped files be cut")
	}
	ctx := context.Background()
	// How many commits lie between decides what bbolt makes of it: in some cases it panics.
	for commits := 1; commits <= 12; commits++ {
		path := filepath.Join(t.TempDir(), fileName)
		s := storeAt(t, path, idem.Options{SweepInterval: -1})
		claim := func(key string) error {
			_, err := s.Claim(ctx, idem.Request{Key: key})
			return err
		}
		require.NoError(t, claim("before"))
		copied, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, copied, 0o600)) // no commit since: nothing is lost
		for i := range commits {
			require.NoError(t, claim(fmt.Sprint("granted ", i)))
		}

		require.NoError(t, os.WriteFile(path, copied, 0o600))
		err = claim("granted 0")
		require.ErrorIs(t, err, idem.ErrBroken, "%d commits", commits)
		require.ErrorContains(t, err, path+" was overwritten by an older copy")
		require.ErrorIs(t, claim("after"), idem.ErrBroken)
	}
}

// The first commit of a life notices it as later ones do. An operator may see at once
// that the wrong store was started, and copy the right one over it.
func TestAStoreOverwrittenBeforeItsFirstCommitGrantsNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let mapped files be cut")
	}
	for commits := 1; commits <= 6; commits++ {
		path := filepath.Join(t.TempDir(), fileName)
		s := storeAt(t, path, idem.Options{SweepInterval: -1})
		storetest.Claim(t, s, "before")
		copied, err := os.ReadFile(path)
		require.NoError(t, err)
		for i := range commits {
			storetest.Claim(t, s, fmt.Sprint("granted ", i))
		}
		require.NoError(t, s.Close())

		s = storeAt(t, path, idem.Options{SweepInterval: -1})
		require.NoError(t, os.WriteFile(path, copied, 0o600))
		_, err = s.Claim(context.Background(), idem.Request{Key: "granted 0"})
		require.ErrorIs(t, err, idem.ErrBroken, "%d commits", commits)
		require.ErrorContains(t, err, "was overwritten by an older copy")
	}
}

// The transaction IDs of another store may be ahead. It is another store nonetheless.
func TestAStoreOverwrittenByAnotherGrantsNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let mapped files be cut")
	}
	for ahead := range 6 {
		dir := t.TempDir()
		path, other := filepath.Join(dir, fileName), filepath.Join(dir, "other")
		theirs := storeAt(t, other, idem.Options{SweepInterval: -1})
		for i := range 6 + ahead {
			storetest.Claim(t, theirs, fmt.Sprint("theirs ", i))
		}
		require.NoError(t, theirs.Close())
		copied, err := os.ReadFile(other)
		require.NoError(t, err)

		s := storeAt(t, path, idem.Options{SweepInterval: -1})
		for i := range 5 {
			storetest.Claim(t, s, fmt.Sprint("granted ", i))
		}
		require.NoError(t, os.WriteFile(path, copied, 0o600))
		_, err = s.Claim(context.Background(), idem.Request{Key: "granted 0"})
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorContains(t, err, "was overwritten by another store", "%d commits ahead", ahead)
	}
}

// Settling notices it as claiming does: a result that nobody finds again is not
// acknowledged.
func TestCompletingInAMovedStore(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let open files be moved or removed")
	}
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), fileName)
	s := storeAt(t, path, idem.Options{SweepInterval: -1})
	c := storetest.Claim(t, s, "k")
	require.NoError(t, os.Rename(path, path+".old"))
	require.ErrorIs(t, s.Complete(ctx, c.Token, nil), idem.ErrBroken)
}

// Whether the path still names the file cannot be told: that breaks nothing.
func TestAPathThatCannotBeLookedUpBreaksNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() <= 0 {
		t.Skip("permissions do not bind this user")
	}
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	s := storetest.Open(t, mustOpen(t, filepath.Join(dir, fileName), Options{}), idem.Options{})
	require.NoError(t, os.Chmod(dir, 0))
	defer func() { _ = os.Chmod(dir, 0o700) }()
	storetest.Claim(t, s, "k")
	require.NoError(t, s.Close())
}

// One file is one store under every name it has.
func TestASecondOpenUnderAnotherName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	b := mustOpen(t, path, Options{})
	for name, err := range map[string]error{
		"hard":     os.Link(path, path+".hard"),
		"symbolic": os.Symlink(path, path+".symbolic"),
	} {
		require.NoError(t, err)
		_, err := Open(path+"."+name, Options{LockTimeout: 1})
		require.ErrorIs(t, err, idem.ErrLocked, name)
	}
	require.NoError(t, b.Close())

	// A store opened by one of its names may lose another.
	s := storetest.Open(t, mustOpen(t, path+".hard", Options{}), idem.Options{})
	require.NoError(t, os.Remove(path))
	storetest.Claim(t, s, "k")
	require.NoError(t, s.Close())
}

// The file that was opened and locked is not the one that the path names: another one
// came between.
func TestAFileReplacedWhileItIsOpened(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 1)
	other := newFilled(t, 1)
	f, err := os.Open(other)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	_, err = identify(path, f)
	require.ErrorContains(t, err, "another file took its place")
	_, err = identify(path+".none", f)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// What noticing it costs each commit.
func BenchmarkMoved(b *testing.B) {
	e := mustOpen(b, filepath.Join(b.TempDir(), fileName), Options{})
	defer func() { _ = e.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if err := e.engine.Moved(); err != nil {
			b.Fatal(err)
		}
	}
}
