package bolt_test

import (
	"bytes"
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
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/formattest"
)

// goldenPath is a store of format 2, made once, and goldenMade what it got when it was
// made. They are never made again: if these tests fail, stores in the field cannot be
// read.
const (
	goldenPath = "testdata/format2.db"
	goldenMade = "testdata/format2.txt"
)

var goldenNew = flag.Bool("golden-new", false, "make the golden store of a new format; refuses to make one again")

func TestMakeGolden(t *testing.T) {
	if !*goldenNew {
		t.Skip("only with -golden-new, once for each format")
	}
	_, err := os.Stat(goldenPath)
	require.ErrorIs(t, err, fs.ErrNotExist, "%s is there; golden files are never made again", goldenPath)
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenPath), 0o755))
	path := filepath.Join(t.TempDir(), "new.db")
	text, err := fillGolden(t, path).Text()
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(goldenMade, text, 0o644))
	// bbolt grows its file by 16 MiB; what it has not used yet is not kept.
	require.NoError(t, os.WriteFile(goldenPath, b[:used(t, path)], 0o644))
}

// fillGolden makes what the golden store holds, at path.
func fillGolden(t testing.TB, path string) formattest.Made {
	t.Helper()
	return formattest.Fill(t, func() engine.Backend {
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

func openGolden(t testing.TB) (engine.Backend, formattest.Made) {
	b, err := bolt.Open(copyGolden(t), bolt.Options{})
	require.NoError(t, err)
	return b, madeGolden(t)
}

// madeGolden is what the golden store got when it was made.
func madeGolden(t testing.TB) formattest.Made {
	t.Helper()
	text, err := os.ReadFile(goldenMade)
	require.NoError(t, err)
	m, err := formattest.ParseMade(text)
	require.NoError(t, err)
	return m
}

// A store of format 2 opens, holds what it held, and goes on.
func TestGolden(t *testing.T) {
	t.Parallel()
	formattest.Check(t, openGolden)
}

// What this library makes holds just what the golden store does.
func TestGoldenMadeNow(t *testing.T) {
	t.Parallel()
	formattest.Check(t, func(t testing.TB) (engine.Backend, formattest.Made) {
		path := filepath.Join(t.TempDir(), "idem.db")
		m := fillGolden(t, path)
		b, err := bolt.Open(path, bolt.Options{})
		require.NoError(t, err)
		return b, m
	})
}

// The caller's own data is there as it was.
func TestGoldenCallersData(t *testing.T) {
	t.Parallel()
	opened, _ := openGolden(t)
	b := opened.(*bolt.Backend)
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

// A store that another version wrote to, newer or older, is refused as that, and left as
// it is.
func TestStoreOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meta   func(was []byte) []byte
		advice []string
	}{
		"newer":              {func(was []byte) []byte { return formattest.Newer("meta", was) }, []string{"format 255", "use a newer library"}},
		"with other buckets": {func(was []byte) []byte { return formattest.Newer("meta", was) }, []string{"format 255", "use a newer library"}},
		"format 1":           {func([]byte) []byte { return formattest.Format1Meta() }, []string{"format 1", "use the library that wrote it, or make a new store"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "idem.db")
			b, err := bolt.Open(path, bolt.Options{})
			require.NoError(t, err)
			require.NoError(t, b.Close())
			patch(t, path, func(tx *bbolt.Tx) error {
				b := tx.Bucket([]byte("idem.meta"))
				if name == "with other buckets" {
					require.NoError(t, tx.DeleteBucket([]byte("idem.expiry")))
				}
				return b.Put([]byte("meta"), c.meta(b.Get([]byte("meta"))))
			})
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			b, err = bolt.Open(path, bolt.Options{})
			require.ErrorIs(t, err, idem.ErrVersion)
			require.NotErrorIs(t, err, idem.ErrCorrupt)
			require.Nil(t, b)
			require.NotContains(t, err.Error(), "\n")
			for _, text := range append(c.advice, path) {
				require.ErrorContains(t, err, text)
			}
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(before, after), "a store that was refused was written to")
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, entries, 1, "something was left next to it")
		})
	}
}

// One record of another version: ErrVersion for its key alone, and nothing is
// granted; it can be forgotten.
func TestGoldenRecordOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for name, as := range map[string]func(key string, value []byte) []byte{"newer": formattest.Newer, "older": formattest.Older} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := copyGolden(t)
			patch(t, path, func(tx *bbolt.Tx) error {
				b := tx.Bucket([]byte("idem.records"))
				key := []byte(formattest.KeyCompleted)
				return b.Put(key, as(formattest.KeyCompleted, b.Get(key)))
			})
			b, err := bolt.Open(path, bolt.Options{})
			require.NoError(t, err)
			formattest.CheckUnreadable(t, b, madeGolden(t), formattest.KeyCompleted, idem.ErrVersion)
		})
	}
}

// The same record with a flipped bit: ErrCorrupt for its key alone.
func TestGoldenDamagedRecord(t *testing.T) {
	t.Parallel()
	path := copyGolden(t)
	patch(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("idem.records"))
		value := append([]byte(nil), b.Get([]byte(formattest.KeyCompleted))...)
		value[100] ^= 4
		return b.Put([]byte(formattest.KeyCompleted), value)
	})
	b, err := bolt.Open(path, bolt.Options{})
	require.NoError(t, err)
	formattest.CheckUnreadable(t, b, madeGolden(t), formattest.KeyCompleted, idem.ErrCorrupt)
}
