package bolt

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

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
