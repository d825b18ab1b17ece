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
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/formattest"
	idempebble "github.com/idemkv/idem/pebble"
)

// goldenDir is a store of format 2, made once, and goldenMade what it got when it was
// made. They are never made again: if these tests fail, stores in the field cannot be
// read.
const (
	goldenDir  = "testdata/format2"
	goldenMade = "testdata/format2.txt"
)

var goldenNew = flag.Bool("golden-new", false, "make the golden store of a new format; refuses to make one again")

func TestMakeGolden(t *testing.T) {
	if !*goldenNew {
		t.Skip("only with -golden-new, once for each format")
	}
	_, err := os.Stat(goldenDir)
	require.ErrorIs(t, err, fs.ErrNotExist, "%s is there; golden files are never made again", goldenDir)
	dir := filepath.Join(t.TempDir(), "new")
	text, err := fillGolden(t, dir).Text()
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "db", "LOCK"))) // an empty file, made on opening
	require.NoError(t, os.MkdirAll(filepath.Dir(goldenDir), 0o755))
	require.NoError(t, os.CopyFS(goldenDir, os.DirFS(dir)))
	require.NoError(t, os.WriteFile(goldenMade, text, 0o644))
}

// fillGolden makes what the golden store holds, in dir.
func fillGolden(t testing.TB, dir string) formattest.Made {
	t.Helper()
	return formattest.Fill(t, func() engine.Backend {
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

func openGolden(t testing.TB) (engine.Backend, formattest.Made) {
	b, err := idempebble.Open(copyGolden(t), idempebble.Options{})
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
		dir := filepath.Join(t.TempDir(), "store")
		m := fillGolden(t, dir)
		b, err := idempebble.Open(dir, idempebble.Options{})
		require.NoError(t, err)
		return b, m
	})
}

// The caller's own data is there as it was, besides only keys of the store.
func TestGoldenCallersData(t *testing.T) {
	t.Parallel()
	opened, _ := openGolden(t)
	b := opened.(*idempebble.Backend)
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

// newStore makes a store and closes it.
func newStore(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	return dir
}

// A store whose marker says that another version made it, newer or older, is refused as
// that, and nothing is written.
func TestMarkerOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for marker, advice := range map[string]string{
		"idem format 1 on pebble": "use the library that wrote it, or make a new store",
		"idem format 3 on pebble": "use a newer library", "idem format 10 on pebble": "use a newer library",
		"idem format 2 on something else": "use a newer library",
	} {
		t.Run(marker, func(t *testing.T) {
			t.Parallel()
			dir := newStore(t)
			if marker == "idem format 1 on pebble" {
				change(t, dir, "idem\x00mmeta", func([]byte) []byte { return formattest.Format1Meta() })
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "IDEM"), []byte(marker+"\n"), 0o600))
			before := files(t, dir)
			b, err := idempebble.Open(dir, idempebble.Options{})
			require.ErrorIs(t, err, idem.ErrVersion)
			require.NotErrorIs(t, err, idem.ErrCorrupt)
			for _, text := range []string{dir, marker, advice} {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "\n")
			require.Nil(t, b)
			require.Equal(t, before, files(t, dir), "a store that was refused was written to")
		})
	}
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

// The same where only the meta entry says so.
func TestMetaOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meta   func(was []byte) []byte
		advice []string
	}{
		"newer":    {func(was []byte) []byte { return formattest.Newer("meta", was) }, []string{"format 255", "use a newer library"}},
		"format 1": {func([]byte) []byte { return formattest.Format1Meta() }, []string{"format 1", "use the library that wrote it, or make a new store"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newStore(t)
			change(t, dir, "idem\x00mmeta", c.meta)
			before := files(t, dir)
			b, err := idempebble.Open(dir, idempebble.Options{})
			require.ErrorIs(t, err, idem.ErrVersion)
			require.NotErrorIs(t, err, idem.ErrCorrupt)
			require.NotContains(t, err.Error(), "\n")
			for _, text := range append(c.advice, dir) {
				require.ErrorContains(t, err, text)
			}
			require.Nil(t, b)
			require.Equal(t, before, files(t, dir), "a store that was refused was written to")
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
			dir := copyGolden(t)
			change(t, dir, "idem\x00r"+formattest.KeyCompleted, func(v []byte) []byte { return as(formattest.KeyCompleted, v) })
			b, err := idempebble.Open(dir, idempebble.Options{})
			require.NoError(t, err)
			formattest.CheckUnreadable(t, b, madeGolden(t), formattest.KeyCompleted, idem.ErrVersion)
		})
	}
}

// The same record with a flipped bit: ErrCorrupt for its key alone.
func TestGoldenDamagedRecord(t *testing.T) {
	t.Parallel()
	dir := copyGolden(t)
	change(t, dir, "idem\x00r"+formattest.KeyCompleted, func(v []byte) []byte { v[100] ^= 4; return v })
	b, err := idempebble.Open(dir, idempebble.Options{})
	require.NoError(t, err)
	formattest.CheckUnreadable(t, b, madeGolden(t), formattest.KeyCompleted, idem.ErrCorrupt)
}
