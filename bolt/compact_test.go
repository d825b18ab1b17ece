package bolt

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

// emptied is a store whose file is mostly free, with a few records and data of the caller's.
func emptied(t *testing.T) (path string, token idem.Token) {
	t.Helper()
	path = newFilled(t, 900)
	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{})
	grow(t, s)
	for i := range 12 {
		require.NoError(t, s.Forget(t.Context(), idem.Token{Key: fmt.Sprint("large ", i)}))
	}
	token = storetest.Claim(t, s, "open").Token
	require.NoError(t, b.Update(t.Context(), func(tx *bbolt.Tx) error {
		outer, err := tx.CreateBucket(own)
		require.NoError(t, err)
		require.NoError(t, outer.SetSequence(7))
		for i := range 40 {
			inner, err := outer.CreateBucket(fmt.Append(nil, "inner ", i))
			require.NoError(t, err)
			require.NoError(t, inner.Put([]byte("k"), make([]byte, 1<<18)))
		}
		return outer.Put([]byte("z"), []byte{})
	}))
	require.NoError(t, b.Update(t.Context(), func(tx *bbolt.Tx) error {
		for i := 1; i < 40; i++ {
			require.NoError(t, tx.Bucket(own).DeleteBucket(fmt.Append(nil, "inner ", i)))
		}
		return nil
	}))
	require.NoError(t, s.Close())
	return path, token
}

func TestCompact(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	path, token := emptied(t)
	require.NoError(t, os.Chmod(path, 0o666)) // more than the umask leaves to new files
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	before, err := os.Stat(path)
	require.NoError(t, err)
	was := metaAt(t, path)
	last, total := int64(-1), int64(0)
	ctx := engine.WithProgress(t.Context(), func(done, of int64) {
		require.GreaterOrEqual(t, done, last)
		last, total = done, of
	})
	require.NoError(t, Compact(ctx, link, Options{}))
	require.Equal(t, total, last)
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, after.Size(), before.Size()/4)
	require.Equal(t, before.Mode(), after.Mode())
	require.Equal(t, []string{fileName}, storetest.Names(t, filepath.Dir(path)))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink, "the link is still one")
	require.Equal(t, was, metaAt(t, path), "it is the same store, and has lost nothing")

	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{})
	require.Empty(t, found(t, b))
	for i := range 900 {
		_, err := s.Get(t.Context(), keyOf(i))
		require.NoError(t, err)
	}
	require.NoError(t, s.Complete(t.Context(), token, nil))
	require.NoError(t, b.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		outer := tx.Bucket(own)
		require.EqualValues(t, 7, outer.Sequence())
		require.Len(t, outer.Bucket([]byte("inner 0")).Get([]byte("k")), 1<<18)
		require.Nil(t, outer.Bucket([]byte("inner 1")))
		require.NotNil(t, outer.Get([]byte("z")))
		return nil
	}))
}

func TestCompactInSeveralTransactions(t *testing.T) {
	t.Parallel()
	const most = 64 << 10 // bytes in one
	path := newFilled(t, 10)
	b := mustOpen(t, path, Options{})
	require.NoError(t, b.Update(t.Context(), func(tx *bbolt.Tx) error {
		for _, name := range []string{"a", "b"} {
			outer, err := tx.CreateBucket([]byte(name))
			require.NoError(t, err)
			inner, err := outer.CreateBucket([]byte("inner"))
			require.NoError(t, err)
			for i := range 3 {
				require.NoError(t, outer.Put(fmt.Append(nil, i), make([]byte, most/2)))
				require.NoError(t, inner.Put(fmt.Append(nil, i), make([]byte, most/2)))
			}
		}
		return nil
	}))
	require.NoError(t, b.Close())
	require.NoError(t, compact(t.Context(), path, Options{}, most))
	b = mustOpen(t, path, Options{})
	require.Empty(t, found(t, b))
	require.NoError(t, b.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		for _, name := range []string{"a", "b"} {
			for i := range 3 {
				require.Len(t, tx.Bucket([]byte(name)).Get(fmt.Append(nil, i)), most/2)
				require.Len(t, tx.Bucket([]byte(name)).Bucket([]byte("inner")).Get(fmt.Append(nil, i)), most/2)
			}
		}
		return nil
	}))
	require.NoError(t, b.Close())
}

func TestCompactThatFailsChangesNothing(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	path, _ := emptied(t)
	dir := filepath.Dir(path)
	before := storetest.State(t, dir)
	delete(before, dir) // a file came and went
	unchanged := func(what string) {
		t.Helper()
		after := storetest.State(t, dir)
		delete(after, dir)
		require.Equal(t, before, after, what)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := Compact(engine.WithProgress(ctx, func(int64, int64) { cancel() }), path, Options{})
	require.ErrorIs(t, err, context.Canceled)
	unchanged("cancelled")
	require.ErrorIs(t, Compact(t.Context(), path, Options{ReadOnly: true}), idem.ErrInvalid)
	require.ErrorIs(t, Compact(t.Context(), path, Options{MaxSize: -1}), idem.ErrInvalid)
	require.ErrorIs(t, Compact(t.Context(), filepath.Join(dir, "absent"), Options{}), fs.ErrNotExist)
	unchanged("refused")
	b := mustOpen(t, path, Options{})
	require.ErrorIs(t, Compact(t.Context(), path, Options{LockTimeout: time.Millisecond}), idem.ErrLocked)
	require.NoError(t, b.Close())
	unchanged("locked")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	leaves, size := leavesOf(t, path)
	content[leaves[0]*size+8] ^= 0xff
	require.NoError(t, os.WriteFile(path, content, 0o600))
	before = storetest.State(t, dir)
	delete(before, dir)
	require.ErrorIs(t, Compact(t.Context(), path, Options{}), idem.ErrCorrupt)
	unchanged("damaged")
}

func TestCompactOnAFullDisk(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	content, err := os.ReadFile(newFilled(t, 900))
	require.NoError(t, err)
	disk := storetest.SmallDisk(t, len(content)+16<<10)
	path := filepath.Join(disk, fileName)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	before := storetest.Digest(t, disk)
	require.ErrorIs(t, Compact(t.Context(), path, Options{}), syscall.ENOSPC)
	require.Equal(t, before, storetest.Digest(t, disk))
}
