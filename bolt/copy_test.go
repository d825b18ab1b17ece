package bolt

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
)

// bbolt's own way to copy a database under way makes a store that opens.
func TestCopyFileMakesAStore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{})
	s, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	c, err := s.Claim(ctx, idem.Request{Key: "paid"})
	require.NoError(t, err)
	require.NoError(t, s.Complete(ctx, c.Token, []byte("receipt")))

	to := filepath.Join(t.TempDir(), "copy.db")
	for range 2 { // the second time over the first one
		require.NoError(t, b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(to, 0o600) }))
		copied, err := idem.New(mustOpen(t, to, Options{}), idem.Options{})
		require.NoError(t, err)
		c, err = copied.Claim(ctx, idem.Request{Key: "paid"})
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
	s, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	before := digest(t, path)
	for _, to := range []string{path, link} {
		err := b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(to, 0o600) })
		require.ErrorIs(t, err, idem.ErrInvalid)
		require.ErrorContains(t, err, to)
	}
	require.Equal(t, before, digest(t, path))
	_, err = s.Claim(context.Background(), idem.Request{Key: "k"})
	require.NoError(t, err)
	folder := filepath.Join(path, "below a file")
	require.Error(t, b.DB().View(func(tx *bbolt.Tx) error { return tx.CopyFile(folder, 0o600) }))
}
