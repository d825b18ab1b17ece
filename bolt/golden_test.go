package bolt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/internal/golden"
)

// goldenPath is a store of format 1, made once. It is never made again: if these
// tests fail, stores in the field cannot be read.
const goldenPath = "testdata/format1.db"

var goldenNew = flag.Bool("golden-new", false, "make the golden store of a new format; refuses to make one again")

func TestMakeGolden(t *testing.T) {
	if !*goldenNew {
		t.Skip("only with -golden-new, once for each format")
	}
	_, err := os.Stat(goldenPath)
	require.ErrorIs(t, err, fs.ErrNotExist, "%s is there; golden files are never made again", goldenPath)
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenPath), 0o755))
	path := filepath.Join(t.TempDir(), "new.db")
	fillGolden(t, path)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	// bbolt grows its file by 16 MiB; what it has not used yet is not kept.
	require.NoError(t, os.WriteFile(goldenPath, b[:used(t, path)], 0o644))
}

// fillGolden makes what the golden store holds, at path.
func fillGolden(t testing.TB, path string) {
	t.Helper()
	golden.Fill(t, func() idem.Backend {
		b, err := bolt.Open(path, bolt.Options{})
		require.NoError(t, err)
		return b
	}, func(s *idem.Store, r idem.Request) {
		_, _, err := bolt.Do(context.Background(), s, r, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			ledger, err := tx.CreateBucket([]byte("ledger"))
			if err != nil {
				return nil, err
			}
			return []byte("charged"), errors.Join(ledger.Put([]byte("alice"), []byte("-100")), ledger.Put([]byte("bob"), []byte("100")))
		})
		require.NoError(t, err)
	})
}

// used returns how much of the file at path has ever been used.
func used(t *testing.T, path string) (size int64) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil }))
	require.NoError(t, db.Close())
	return size
}

// copyGolden returns the path of a copy of the golden store.
func copyGolden(t testing.TB) string {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("bbolt files are of one byte order, the golden one is little endian")
	}
	b, err := os.ReadFile(goldenPath)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "idem.db")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path
}

func openGolden(t testing.TB) idem.Backend {
	b, err := bolt.Open(copyGolden(t), bolt.Options{})
	require.NoError(t, err)
	return b
}

// Rule 9: a store of format 1 opens, holds what it held, and goes on.
func TestGolden(t *testing.T) {
	t.Parallel()
	golden.Check(t, openGolden)
}

// What this library makes holds just what the golden store does.
func TestGoldenMadeNow(t *testing.T) {
	t.Parallel()
	golden.Check(t, func(t testing.TB) idem.Backend {
		path := filepath.Join(t.TempDir(), "idem.db")
		fillGolden(t, path)
		b, err := bolt.Open(path, bolt.Options{})
		require.NoError(t, err)
		return b
	})
}

// The caller's own data is there as it was.
func TestGoldenCallersData(t *testing.T) {
	t.Parallel()
	b := openGolden(t).(*bolt.Backend)
	defer func() { require.NoError(t, b.Close()) }()
	require.NoError(t, b.DB().View(func(tx *bbolt.Tx) error {
		ledger := tx.Bucket([]byte("ledger"))
		require.NotNil(t, ledger)
		require.Equal(t, 2, ledger.Inspect().KeyN)
		require.Equal(t, "-100", string(ledger.Get([]byte("alice"))))
		require.Equal(t, "100", string(ledger.Get([]byte("bob"))))
		return nil
	}))
}

// patch changes the store at path behind the library's back.
func patch(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
}

// A store that a newer library wrote to is refused as that, and left as it is.
func TestGoldenNewerStore(t *testing.T) {
	t.Parallel()
	path := copyGolden(t)
	patch(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("idem.meta"))
		return b.Put([]byte("meta"), golden.Newer("meta", b.Get([]byte("meta"))))
	})
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	b, err := bolt.Open(path, bolt.Options{})
	require.ErrorIs(t, err, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.Nil(t, b)
	require.ErrorContains(t, err, path)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "a store that was refused was written to")
}

// One record of a newer version: ErrVersion for its key alone, and nothing is
// granted; it can be forgotten.
func TestGoldenNewerRecord(t *testing.T) {
	t.Parallel()
	path := copyGolden(t)
	patch(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("idem.records"))
		key := []byte(golden.KeyCompleted)
		return b.Put(key, golden.Newer(golden.KeyCompleted, b.Get(key)))
	})
	b, err := bolt.Open(path, bolt.Options{})
	require.NoError(t, err)
	golden.CheckUnreadable(t, b, golden.KeyCompleted, idem.ErrVersion)
}

// C5: the same record with a flipped bit: ErrCorrupt for its key alone.
func TestGoldenDamagedRecord(t *testing.T) {
	t.Parallel()
	path := copyGolden(t)
	patch(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("idem.records"))
		value := append([]byte(nil), b.Get([]byte(golden.KeyCompleted))...)
		value[100] ^= 4
		return b.Put([]byte(golden.KeyCompleted), value)
	})
	b, err := bolt.Open(path, bolt.Options{})
	require.NoError(t, err)
	golden.CheckUnreadable(t, b, golden.KeyCompleted, idem.ErrCorrupt)
}
