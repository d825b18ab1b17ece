package pebble_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/golden"
	idempebble "github.com/idemkv/idem/pebble"
)

// goldenDir is a store of format 1, made once. It is never made again: if these
// tests fail, stores in the field cannot be read.
const goldenDir = "testdata/format1"

var goldenNew = flag.Bool("golden-new", false, "make the golden store of a new format; refuses to make one again")

func TestMakeGolden(t *testing.T) {
	if !*goldenNew {
		t.Skip("only with -golden-new, once for each format")
	}
	_, err := os.Stat(goldenDir)
	require.ErrorIs(t, err, fs.ErrNotExist, "%s is there; golden files are never made again", goldenDir)
	dir := filepath.Join(t.TempDir(), "new")
	fillGolden(t, dir)
	require.NoError(t, os.Remove(filepath.Join(dir, "db", "LOCK"))) // an empty file, made on opening
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenDir), 0o755))
	require.NoError(t, os.CopyFS(goldenDir, os.DirFS(dir)))
}

// fillGolden makes what the golden store holds, in dir.
func fillGolden(t testing.TB, dir string) {
	t.Helper()
	golden.Fill(t, func() idem.Backend {
		b, err := idempebble.Open(dir, idempebble.Options{})
		require.NoError(t, err)
		return b
	}, func(s *idem.Store, r idem.Request) {
		_, _, err := idempebble.Do(context.Background(), s, r, func(_ context.Context, batch *pebble.Batch) ([]byte, error) {
			return []byte("charged"), errors.Join(
				batch.Set([]byte("ledger/alice"), []byte("-100"), nil), batch.Set([]byte("ledger/bob"), []byte("100"), nil))
		})
		require.NoError(t, err)
	})
}

// copyGolden returns the path of a copy of the golden store.
func copyGolden(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.CopyFS(dir, os.DirFS(goldenDir)))
	return dir
}

func openGolden(t testing.TB) idem.Backend {
	b, err := idempebble.Open(copyGolden(t), idempebble.Options{})
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
		dir := filepath.Join(t.TempDir(), "store")
		fillGolden(t, dir)
		b, err := idempebble.Open(dir, idempebble.Options{})
		require.NoError(t, err)
		return b
	})
}

// The caller's own data is there as it was, and beside it only keys of the store.
func TestGoldenCallersData(t *testing.T) {
	t.Parallel()
	b := openGolden(t).(*idempebble.Backend)
	defer func() { require.NoError(t, b.Close()) }()
	own := map[string]string{}
	for key, value := range content(t, b.DB()) {
		if len(key) < 5 || key[:5] != "idem\x00" {
			own[key] = value
		}
	}
	require.Equal(t, map[string]string{"ledger/alice": "-100", "ledger/bob": "100"}, own)
}

// content is all that a database holds.
func content(t *testing.T, db *pebble.DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	it, err := db.NewIter(nil)
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		require.NoError(t, err)
		all[string(it.Key())] = string(value)
	}
	require.NoError(t, it.Close())
	return all
}

// behind opens the database of the store in dir behind the library's back.
func behind(t *testing.T, dir string, fn func(db *pebble.DB)) {
	t.Helper()
	db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{
		ErrorIfNotExists: true, FormatMajorVersion: pebble.FormatWALSyncChunks, Logger: silent{},
	})
	require.NoError(t, err)
	require.Equal(t, pebble.FormatWALSyncChunks, db.FormatMajorVersion())
	fn(db)
	require.NoError(t, db.Close())
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(format)
}

// change replaces the value of a key of the store.
func change(t *testing.T, dir, key string, by func(value []byte) []byte) {
	t.Helper()
	behind(t, dir, func(db *pebble.DB) {
		value, done, err := db.Get([]byte(key))
		require.NoError(t, err)
		changed := by(append([]byte(nil), value...))
		require.NoError(t, done.Close())
		require.NoError(t, db.Set([]byte(key), changed, pebble.Sync))
	})
}

// A store whose marker says that a newer library made it is refused as that, and
// nothing is written.
func TestGoldenNewerMarker(t *testing.T) {
	t.Parallel()
	dir := copyGolden(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "IDEM"), []byte("idem format 2 on pebble\n"), 0o600))
	before := files(t, dir)
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.ErrorIs(t, err, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "idem format 2 on pebble")
	require.Nil(t, b)
	require.Equal(t, before, files(t, dir), "a store that was refused was written to")
}

// files are the contents of all files under dir, by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

// The same where only the meta entry says so. Pebble begins files of its own when it
// is opened; what is stored stays as it is.
func TestGoldenNewerMeta(t *testing.T) {
	t.Parallel()
	dir := copyGolden(t)
	change(t, dir, "idem\x00mmeta", func(v []byte) []byte { return golden.Newer("meta", v) })
	var before, after map[string]string
	behind(t, dir, func(db *pebble.DB) { before = content(t, db) })
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.ErrorIs(t, err, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, dir)
	require.Nil(t, b)
	behind(t, dir, func(db *pebble.DB) { after = content(t, db) })
	require.Equal(t, before, after)
}

// One record of a newer version: ErrVersion for its key alone, and nothing is
// granted; it can be forgotten.
func TestGoldenNewerRecord(t *testing.T) {
	t.Parallel()
	dir := copyGolden(t)
	change(t, dir, "idem\x00r"+golden.KeyCompleted, func(v []byte) []byte { return golden.Newer(golden.KeyCompleted, v) })
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.NoError(t, err)
	golden.CheckUnreadable(t, b, golden.KeyCompleted, idem.ErrVersion)
}

// C5: the same record with a flipped bit: ErrCorrupt for its key alone.
func TestGoldenDamagedRecord(t *testing.T) {
	t.Parallel()
	dir := copyGolden(t)
	change(t, dir, "idem\x00r"+golden.KeyCompleted, func(v []byte) []byte { v[100] ^= 4; return v })
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.NoError(t, err)
	golden.CheckUnreadable(t, b, golden.KeyCompleted, idem.ErrCorrupt)
}
