package pebble_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/formattest"
	idempebble "github.com/idemkv/idem/pebble"
)

var stores = formattest.Stores{
	Golden: "testdata/format2",
	Made:   "testdata/format2.txt",
	Open:   func(dir string) (engine.Backend, error) { return idempebble.Open(dir, idempebble.Options{}) },
	InCommit: func(s *idem.Store, r idem.Request) error {
		_, _, err := idempebble.Do(context.Background(), s, r, func(_ context.Context, batch *pebble.Batch) ([]byte, error) {
			return []byte("charged"), errors.Join(
				batch.Set([]byte("ledger/alice"), []byte("-100"), nil), batch.Set([]byte("ledger/bob"), []byte("100"), nil))
		})
		return err
	},
	Trim: func(t testing.TB, dir string) {
		require.NoError(t, os.Remove(filepath.Join(dir, "db", "LOCK"))) // an empty file, made on opening
	},
	Change: func(t testing.TB, dir, where, key string, by func([]byte) []byte) {
		name := []byte("idem\x00" + where[:1] + key)
		db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{
			ErrorIfNotExists: true, FormatMajorVersion: pebble.FormatWALSyncChunks, Logger: silent{},
		})
		require.NoError(t, err)
		require.Equal(t, pebble.FormatWALSyncChunks, db.FormatMajorVersion())
		value, done, err := db.Get(name)
		require.NoError(t, err)
		changed := by(append([]byte(nil), value...))
		require.NoError(t, done.Close())
		require.NoError(t, db.Set(name, changed, pebble.Sync))
		require.NoError(t, db.Close())
	},
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(format)
}

func TestMakeGolden(t *testing.T) { stores.Make(t) }

func TestGolden(t *testing.T) {
	t.Parallel()
	stores.Check(t)
}

func TestGoldenMadeNow(t *testing.T) {
	t.Parallel()
	stores.CheckMadeNow(t)
}

// The caller's own data is there as it was, and else only keys of the store.
func TestGoldenCallersData(t *testing.T) {
	t.Parallel()
	b, err := idempebble.Open(stores.Copy(t), idempebble.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	own := map[string]string{}
	it, err := b.DB().NewIter(nil)
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		require.NoError(t, err)
		if key := string(it.Key()); !strings.HasPrefix(key, "idem\x00") {
			own[key] = string(value)
		}
	}
	require.NoError(t, it.Close())
	require.Equal(t, map[string]string{"ledger/alice": "-100", "ledger/bob": "100"}, own)
}

// A store whose marker says that another version made it, newer or older, is refused as
// that, and nothing is written.
func TestMarkerOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for marker, advice := range map[string]string{
		"idem format 1 on pebble":         formattest.UseOlder,
		"idem format 3 on pebble":         formattest.UseNewer,
		"idem format 10 on pebble":        formattest.UseNewer,
		"idem format 2 on something else": formattest.UseNewer,
	} {
		t.Run(marker, func(t *testing.T) {
			t.Parallel()
			dir := stores.New(t)
			if marker == "idem format 1 on pebble" {
				stores.Change(t, dir, "meta", "meta", func([]byte) []byte { return formattest.Format1Meta() })
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "IDEM"), []byte(marker+"\n"), 0o600))
			stores.RefusesVersion(t, dir, marker, advice)
		})
	}
}

// The same where only the meta entry says so.
func TestMetaOfAnotherVersion(t *testing.T) {
	t.Parallel()
	stores.CheckOtherVersions(t)
}

func TestGoldenRecordOfAnotherVersion(t *testing.T) {
	t.Parallel()
	stores.CheckRecordOfAnotherVersion(t)
}

func TestGoldenDamagedRecord(t *testing.T) {
	t.Parallel()
	stores.CheckDamagedRecord(t)
}
