package bolt

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// Where links fail, as on FAT, the slower of two makers finds the faster one's store
// under the name, with a key that is paid, and leaves it there.
func TestTheSlowerOfTwoMakersReplacesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), fileName)
	noLinks := func(from, to string) error {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
	}
	s, err := idem.New(mustMake(t, path, noLinks), idem.Options{})
	require.NoError(t, err)
	storetest.Complete(t, s, "paid", "receipt")

	again := filepath.Join(t.TempDir(), fileName)
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	slow := func(from, to string) error { // between this maker's look and its link the other one was there
		require.NoError(t, s.Close())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, content, 0o600))
		return noLinks(from, to)
	}
	require.NoError(t, create(again, o, slow))
	left, err := filepath.Glob(again + ".new-*")
	require.NoError(t, err)
	require.Empty(t, left)

	s = storeAt(t, again, idem.Options{})
	c, err := s.Claim(ctx, idem.Request{Key: "paid"})
	require.ErrorIs(t, err, idem.ErrCompleted)
	require.Equal(t, "receipt", string(c.Record.Result))
}

// mustMake makes a store with link and opens it.
func mustMake(t *testing.T, path string, link func(from, to string) error) *Backend {
	t.Helper()
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	err = create(path, o, link)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("no rename here that replaces nothing: %v", err)
	}
	require.NoError(t, err)
	return mustOpen(t, path, Options{})
}

func TestAStoreThatCannotBeNamedLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	err = create(path, o, func(from, to string) error {
		require.NoError(t, os.Remove(from)) // then no rename finds it either
		return fs.ErrPermission
	})
	require.ErrorIs(t, err, fs.ErrNotExist)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// bbolt's own way to copy a database under way makes a store that opens.
func TestCopyFileMakesAStore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Complete(t, s, "paid", "receipt")

	to := filepath.Join(t.TempDir(), "copy.db")
	for range 2 { // the second time over the first one
		require.NoError(t, b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(to, 0o600) }))
		copied := storeAt(t, to, idem.Options{})
		c, err := copied.Claim(ctx, idem.Request{Key: "paid"})
		require.ErrorIs(t, err, idem.ErrCompleted)
		require.Equal(t, "receipt", string(c.Record.Result))
		require.NoError(t, copied.Close())
	}
}

// Copying a store over itself would empty it.
func TestCopyFileOverTheStoreIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{})
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	before := storetest.Digest(t, path)
	for _, to := range []string{path, link} {
		err := b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(to, 0o600) })
		require.ErrorIs(t, err, idem.ErrInvalid)
		require.ErrorContains(t, err, to)
	}
	require.Equal(t, before, storetest.Digest(t, path))
	storetest.Claim(t, s, "k")
	folder := filepath.Join(path, "below a file")
	require.Error(t, b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(folder, 0o600) }))
}
