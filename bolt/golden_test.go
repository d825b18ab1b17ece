package bolt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/formattest"
)

var stores = formattest.Stores{
	Golden: "testdata/format2.db",
	Made:   "testdata/format2.txt",
	Open:   func(path string) (engine.Backend, error) { return bolt.Open(path, bolt.Options{}) },
	InCommit: func(s *idem.Store, r idem.Request) error {
		_, _, err := bolt.Do(context.Background(), s, r, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			ledger, err := tx.CreateBucket([]byte("ledger"))
			if err != nil {
				return nil, err
			}
			return []byte("charged"), errors.Join(ledger.Put([]byte("alice"), []byte("-100")), ledger.Put([]byte("bob"), []byte("100")))
		})
		return err
	},
	// bbolt grows its file by 16 MiB; what it has not used yet is not kept.
	Trim: func(t testing.TB, path string) {
		var used int64
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		require.NoError(t, err)
		require.NoError(t, db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil }))
		require.NoError(t, db.Close())
		require.NoError(t, os.Truncate(path, used))
	},
	Change: func(t testing.TB, path, where, key string, by func([]byte) []byte) {
		patch(t, path, func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("idem." + where))
			return b.Put([]byte(key), by(append([]byte(nil), b.Get([]byte(key))...)))
		})
	},
}

// patch changes the store at path behind the library's back.
func patch(t testing.TB, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
}

// littleEndian skips the test where the golden store cannot be read: bbolt files are of
// one byte order.
func littleEndian(t *testing.T) {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden store is little endian")
	}
}

func TestMakeGolden(t *testing.T) { stores.Make(t) }

func TestGolden(t *testing.T) {
	littleEndian(t)
	t.Parallel()
	stores.Check(t)
}

func TestGoldenMadeNow(t *testing.T) {
	t.Parallel()
	stores.CheckMadeNow(t)
}

// The caller's own data is there as it was.
func TestGoldenCallersData(t *testing.T) {
	littleEndian(t)
	t.Parallel()
	b, err := bolt.Open(stores.Copy(t), bolt.Options{})
	require.NoError(t, err)
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

func TestStoreOfAnotherVersion(t *testing.T) {
	t.Parallel()
	stores.CheckOtherVersions(t)
	t.Run("newer, with other buckets", func(t *testing.T) {
		t.Parallel()
		path := stores.New(t)
		patch(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("idem.expiry")) })
		stores.Change(t, path, "meta", "meta", func(was []byte) []byte { return formattest.Newer("meta", was) })
		stores.RefusesVersion(t, path, "format 255", formattest.UseNewer)
	})
}

func TestGoldenRecordOfAnotherVersion(t *testing.T) {
	littleEndian(t)
	t.Parallel()
	stores.CheckRecordOfAnotherVersion(t)
}

func TestGoldenDamagedRecord(t *testing.T) {
	littleEndian(t)
	t.Parallel()
	stores.CheckDamagedRecord(t)
}
