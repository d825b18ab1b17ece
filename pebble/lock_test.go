package pebble

import (
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// locksDirectories skips the test where directories cannot be locked, or moved while
// they are open.
func locksDirectories(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("directories are not locked here")
	}
}

func requireLocked(t *testing.T, dir string) {
	t.Helper()
	b, err := Open(dir, Options{LockTimeout: time.Millisecond})
	if err == nil {
		_ = b.Close()
	}
	require.ErrorIs(t, err, idem.ErrLocked)
}

const lockedEnv = "IDEM_TEST_LOCKED"

// A backup in the process that reads every file of an open store, or somebody who
// removes its lock file, does not let a second owner in: neither here nor in another
// process.
func TestLockOutlivesItsFile(t *testing.T) {
	if dir := os.Getenv(lockedEnv); dir != "" { // the other process
		requireLocked(t, dir)
		return
	}
	locksDirectories(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b := mustOpen(t, dir, Options{})
	defer func() { require.NoError(t, b.Close()) }()
	elsewhere := func() {
		t.Helper()
		storetest.Elsewhere(t, "TestLockOutlivesItsFile", lockedEnv, dir)
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, f)
		require.NoError(t, err)
		return f.Close()
	}))
	requireLocked(t, dir)
	elsewhere()
	require.NoError(t, os.Remove(filepath.Join(dir, dbName, "LOCK")))
	requireLocked(t, dir)
	elsewhere()
}

func TestLockGoesByTheDirectory(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	b := mustOpen(t, dir, Options{})
	defer func() { _ = b.Close() }()
	t.Run("a symbolic link", func(t *testing.T) {
		link := filepath.Join(base, "link")
		require.NoError(t, os.Symlink(dir, link))
		requireLocked(t, link)
	})
	t.Run("a symbolic link to the database", func(t *testing.T) {
		other := filepath.Join(base, "other")
		filled(t, other)
		require.NoError(t, os.RemoveAll(filepath.Join(other, dbName)))
		require.NoError(t, os.Symlink(filepath.Join(dir, dbName), filepath.Join(other, dbName)))
		requireLocked(t, other)
	})
	t.Run("a bind mount", func(t *testing.T) {
		mount := filepath.Join(base, "mount")
		require.NoError(t, os.Mkdir(mount, 0o700))
		if out, err := exec.Command("mount", "--bind", dir, mount).CombinedOutput(); err != nil {
			t.Skipf("mount --bind: %v: %s", err, out)
		}
		defer func() { require.NoError(t, exec.Command("umount", mount).Run()) }()
		requireLocked(t, mount)
	})
	t.Run("a new name", func(t *testing.T) {
		require.NoError(t, os.Rename(dir, dir+".new"))
		requireLocked(t, dir+".new")
		require.NoError(t, os.Rename(dir+".new", dir))
	})
}

// What happens to an open store's directory breaks the store with the next commit, and
// nothing is granted from then on. What stands in its place is left as it is.
func TestMovedStoreIsBroken(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	for name, move := range map[string]func(t *testing.T, dir string){
		"renamed": func(t *testing.T, dir string) { require.NoError(t, os.Rename(dir, dir+".old")) },
		"removed": func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) },
		"replaced by another store": func(t *testing.T, dir string) {
			filled(t, dir+".new")
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Rename(dir+".new", dir))
		},
		"its database replaced by another": func(t *testing.T, dir string) {
			filled(t, dir+".new")
			require.NoError(t, os.Rename(filepath.Join(dir, dbName), dir+".old"))
			require.NoError(t, os.Rename(filepath.Join(dir+".new", dbName), filepath.Join(dir, dbName)))
		},
		"the folder above it renamed": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Dir(dir), filepath.Dir(dir)+".old"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			base := filepath.Join(t.TempDir(), "base")
			require.NoError(t, os.Mkdir(base, 0o700))
			dir := filepath.Join(base, "store")
			s := storeAt(t, dir, idem.Options{SweepInterval: -1})
			storetest.Claim(t, s, "before")
			move(t, dir)
			after := map[string][32]byte{}
			if _, err := os.Stat(dir); err == nil {
				after = storetest.Digest(t, dir)
			}
			_, err := s.Claim(ctx, idem.Request{Key: "k"})
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorContains(t, err, "while the store was open")
			_, err = s.Get(ctx, "before")
			require.ErrorIs(t, err, idem.ErrBroken)
			within(t, "Close", func() { _ = s.Close() })
			if len(after) > 0 {
				require.Equal(t, after, storetest.Digest(t, dir))
			}
		})
	}
}

// A symbolic link by which a store was opened leads to another one: whoever opens it now
// gets that.
func TestStoreOfALinkThatLeadsElsewhereIsBroken(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	base := t.TempDir()
	link := filepath.Join(base, "current")
	require.NoError(t, os.Mkdir(filepath.Join(base, "one"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(base, "two"), 0o700))
	require.NoError(t, os.Symlink("one", link))
	s := storetest.Open(t, mustOpen(t, filepath.Join(link, "store"), Options{}), idem.Options{SweepInterval: -1})
	storetest.Claim(t, s, "k")
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("two", link))
	storetest.Refused(t, s, "l", idem.ErrBroken)
	within(t, "Close", func() { _ = s.Close() })
}

// Pebble makes, renames and removes files by path, in the background too. Once the
// directory is another's it does none of that.
func TestMovedStoreChangesNoFileByPath(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	for name, do := range map[string]func(g *guardedFS, at func(string) string){
		"make":   func(g *guardedFS, at func(string) string) { _, _ = g.Create(at("new"), vfs.WriteCategoryUnspecified) },
		"remove": func(g *guardedFS, at func(string) string) { _ = g.Remove(at("file")) },
		"rename": func(g *guardedFS, at func(string) string) { _ = g.Rename(at("file"), at("new")) },
		"link":   func(g *guardedFS, at func(string) string) { _ = g.Link(at("file"), at("new")) },
		"reuse": func(g *guardedFS, at func(string) string) {
			_, _ = g.ReuseForWrite(at("file"), at("new"), vfs.WriteCategoryUnspecified)
		},
		"open": func(g *guardedFS, at func(string) string) {
			_, _ = g.OpenReadWrite(at("file"), vfs.WriteCategoryUnspecified)
		},
		"remove all": func(g *guardedFS, at func(string) string) { _ = g.RemoveAll(at("file")) },
		"make a folder": func(g *guardedFS, at func(string) string) {
			_ = g.MkdirAll(at("new"), 0o700)
		},
		"read": func(g *guardedFS, at func(string) string) {
			_, err := g.Open(at("file"))
			if err == nil {
				panic("another's file was opened")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "db")
			require.NoError(t, os.Mkdir(dir, 0o700))
			h, err := hold(dir, dir, Options{fs: vfs.Default})
			require.NoError(t, err)
			defer func() { _ = h.Close() }()
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("theirs"), 0o600))
			before := storetest.Digest(t, dir)
			f := newFatal()
			g := &guardedFS{FS: vfs.Default, dir: dir, fatal: f, moved: h.moved}
			go do(g, func(name string) string { return filepath.Join(dir, name) }) // parked for good
			within(t, name, func() { <-f.heard })
			require.ErrorContains(t, f.err(), "replaced")
			require.Equal(t, before, storetest.Digest(t, dir))
		})
	}
}

// Without a lock on the directory, where a file system has none, Pebble's own is there.
func TestLockWithoutADirectoryLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b := mustOpen(t, dir, Options{})
	b.engine.lock.held.refs.Add(1) // and given up below, as if it had never been taken
	require.NoError(t, b.engine.lock.held.dir.Close())
	requireLocked(t, dir)
	b.engine.lock.held.dir = nil
	require.NoError(t, b.Close())
	require.NoError(t, mustOpen(t, dir, Options{}).Close())
}
