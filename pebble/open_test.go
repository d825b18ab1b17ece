package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
	"github.com/idemkv/idem/memory"
)

// refused opens dir and requires that it is refused with target, and left as it is.
func refused(t *testing.T, dir string, target error) {
	t.Helper()
	_ = storetest.RefusesToOpen(t, dir, func() (*Backend, error) { return Open(dir, Options{}) }, target)
}

// filled makes a store with a few records at dir, closed.
func filled(t testing.TB, dir string) {
	t.Helper()
	s := storeAt(t, dir, idem.Options{})
	for _, key := range []string{"a", "b", "c"} {
		storetest.Complete(t, s, key, key)
	}
	require.NoError(t, s.Close())
}

// newFilled makes such a store in a folder of its own.
func newFilled(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	filled(t, dir)
	return dir
}

// bare opens the database of the store in dir with Pebble itself, which makes it if there is
// none.
func bare(t *testing.T, dir string, do func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open(filepath.Join(dir, dbName), &pebble.Options{Logger: newFatal()})
	require.NoError(t, err)
	require.NoError(t, do(db))
	require.NoError(t, db.Close())
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
		refused(t, path, idem.ErrInvalid)
	})
	t.Run("a directory with something else in it", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "theirs"), []byte("x"), 0o600))
		refused(t, dir, idem.ErrInvalid)
	})
	t.Run("a Pebble database of something else", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db, err := pebble.Open(dir, &pebble.Options{Logger: newFatal()})
		require.NoError(t, err)
		require.NoError(t, db.Close())
		refused(t, dir, idem.ErrInvalid)
	})
	t.Run("a folder with somebody else's db in it", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		bare(t, dir, func(*pebble.DB) error { return nil })
		refused(t, dir, idem.ErrInvalid)

		dir = t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, dbName), 0o700))
		for _, name := range []string{"app.sqlite", "000002.log", "000009.sst"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, dbName, name), []byte("theirs"), 0o600))
		}
		refused(t, dir, idem.ErrInvalid)
	})
	t.Run("a store whose database is gone", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, dbName)))
		refused(t, dir, idem.ErrCorrupt)
	})
	t.Run("a store whose database is empty", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, dbName)))
		require.NoError(t, os.Mkdir(filepath.Join(dir, dbName), 0o700))
		refused(t, dir, idem.ErrCorrupt)
	})
	t.Run("a damaged marker", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, markerName), []byte("?"), 0o600))
		refused(t, dir, idem.ErrCorrupt)
	})
	t.Run("a truncated manifest", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		manifests, err := filepath.Glob(filepath.Join(dir, dbName, "MANIFEST-*"))
		require.NoError(t, err)
		require.NotEmpty(t, manifests)
		for _, m := range manifests {
			require.NoError(t, os.Truncate(m, 3))
		}
		_, err = Open(dir, Options{})
		require.Error(t, err)
		require.ErrorContains(t, err, dir)
	})
	t.Run("a folder without permission", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() <= 0 {
			t.Skip("permissions do not bind this user")
		}
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o500))
		_, err := Open(filepath.Join(dir, "store"), Options{})
		require.ErrorIs(t, err, fs.ErrPermission)
	})
	t.Run("options out of range", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "store")
		for _, o := range []Options{{CacheBytes: -1}, {MemTableBytes: -1}, {MemTableBytes: 2 << 30}} {
			_, err := Open(dir, o)
			require.ErrorIs(t, err, idem.ErrInvalid)
		}
		require.NoDirExists(t, dir)
	})
}

const holderEnv = "IDEM_TEST_HOLD"

// A second opening is refused under every name of the directory and from every
// process.
func TestSecondOpen(t *testing.T) {
	if dir := os.Getenv(holderEnv); dir != "" { // the other process
		_, err := Open(dir, Options{LockTimeout: time.Millisecond})
		require.ErrorIs(t, err, idem.ErrLocked)
		return
	}
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	b := mustOpen(t, dir, Options{})
	names := []string{dir, filepath.Join(base, "..", filepath.Base(base), "store")}
	if link := filepath.Join(base, "link"); os.Symlink(dir, link) == nil {
		names = append(names, link)
	}
	for _, name := range names {
		_, err := Open(name, Options{LockTimeout: time.Millisecond})
		require.ErrorIs(t, err, idem.ErrLocked, name)
	}
	storetest.Elsewhere(t, "TestSecondOpen", holderEnv, dir)

	require.NoError(t, b.Close())
	require.NoError(t, mustOpen(t, dir, Options{}).Close())
}

// A process that ended while it made a store left no marker: the next goes on.
func TestUnfinishedCreation(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	require.NoError(t, os.Rename(filepath.Join(dir, markerName), filepath.Join(dir, markerName+".new")))
	require.NoError(t, os.Remove(filepath.Join(dir, noteName)), "it is made later")
	s := storeAt(t, dir, idem.Options{})
	_, err := s.Get(context.Background(), "a")
	require.NoError(t, err, "what is there stays")
	require.NoError(t, s.Close())
	require.FileExists(t, filepath.Join(dir, markerName))
}

func TestOnAnotherEngine(t *testing.T) {
	t.Parallel()
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	never := func(context.Context, *pebble.Batch) ([]byte, error) { t.Error("the function ran"); return nil, nil }
	for _, s := range []*idem.Store{s, nil} {
		_, _, err = Do(context.Background(), s, idem.Request{Key: "k"}, never)
		require.ErrorIs(t, err, idem.ErrInvalid)
		require.ErrorIs(t, Complete(context.Background(), s, idem.Token{Key: "k", Fence: 1}, never), idem.ErrInvalid)
	}
}

// The keys of the store are not a same-commit function's to write.
func TestReservedKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{})
	storetest.Complete(t, s, "k", "kept")
	record := []byte(reserved + "rk")
	for name, write := range map[string]func(b *pebble.Batch) error{
		"set":          func(b *pebble.Batch) error { return b.Set(record, []byte("x"), nil) },
		"delete":       func(b *pebble.Batch) error { return b.Delete(record, nil) },
		"range":        func(b *pebble.Batch) error { return b.DeleteRange([]byte("a"), []byte("z"), nil) },
		"inner range":  func(b *pebble.Batch) error { return b.DeleteRange(record, []byte(reserved+"s"), nil) },
		"range before": func(b *pebble.Batch) error { return b.DeleteRange([]byte("a"), []byte(reserved+"s"), nil) },
	} {
		_, _, err := Do(ctx, s, idem.Request{Key: name}, func(_ context.Context, b *pebble.Batch) ([]byte, error) { return nil, write(b) })
		require.ErrorIs(t, err, idem.ErrInvalid, name)
	}
	_, _, err := Do(ctx, s, idem.Request{Key: "own"}, func(_ context.Context, b *pebble.Batch) ([]byte, error) {
		return nil, b.DeleteRange([]byte("j"), []byte("z"), nil)
	})
	require.NoError(t, err)
	rec, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "kept", string(rec.Result))
}

// A process that goes on making a store may be killed at any moment too: what says that
// the store is being made is never away.
func TestCreationGoesOnWithoutANewMarker(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	require.NoError(t, f.mem.MkdirAll("store", 0o700))
	require.NoError(t, begin("store", f.mem))
	var made atomic.Int64
	f.on(func(op errorfs.Op) error {
		if op.Path == "store/"+newMarker && op.Kind == errorfs.OpCreate {
			made.Add(1)
		}
		return nil
	})
	s := f.open(t)
	require.Zero(t, made.Load(), "it was written anew")
	require.NoError(t, s.Close())
}

// Two processes that both found nothing: the second to come must not begin what the
// first has finished and used.
func TestCreationAfterAnother(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]bool{"behind it": false, "before its end": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCreationAfterAnother(t, taken)
		})
	}
}

// testCreationAfterAnother begins when the first has ended or, where taken is true, just
// before: the first has then taken the new marker of both for its own.
func testCreationAfterAnother(t *testing.T, taken bool) {
	dir := filepath.Join(t.TempDir(), "store")
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	filled(t, dir)
	require.NoError(t, begin(dir, o.fs)) // it had looked before
	if taken {
		require.NoError(t, os.Remove(filepath.Join(dir, newMarker)))
	}
	h, err := hold(filepath.Join(dir, dbName), filepath.Join(dir, dbName), o)
	require.NoError(t, err)
	require.NoError(t, create(dir, o, h))
	require.NoError(t, h.Close())
	s := storeAt(t, dir, idem.Options{})
	before, err := s.Get(context.Background(), "a")
	require.NoError(t, err)
	c := storetest.Claim(t, s, "new")
	require.Greater(t, c.Token.Fence, before.Fence)
	saved, err := engine.Of(s).(*Backend).engine.Scan(txbackend.Meta, []byte(codec.MetaKey), nil, 1)
	require.NoError(t, err)
	meta, err := codec.DecodeMeta(saved[0].Value)
	require.NoError(t, err)
	require.EqualValues(t, 2, meta.Epoch, "the store's life went on")
	require.NoFileExists(t, filepath.Join(dir, newMarker))
}

// Pebble's own messages name keys: of tables, of iterators left open.
func TestMessagesNameNoKeys(t *testing.T) {
	t.Parallel()
	cause := errors.New("bounds: [idem\\x00rSECRET, z]")
	require.ErrorIs(t, redact(cause), cause)
	require.NotContains(t, redact(cause).Error(), "SECRET")
	plain := errors.New("plain")
	require.Equal(t, plain, redact(plain))
}

// What is left open of DB makes Close fail, with a word about it, and loses nothing: the
// directory can be opened again.
func TestCloseWithOpenIterators(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(t *testing.T, db *pebble.DB){
		"an iterator": func(t *testing.T, db *pebble.DB) {
			it, err := db.NewIter(nil)
			require.NoError(t, err)
			require.True(t, it.First())
		},
		"an iterator of a table": func(t *testing.T, db *pebble.DB) {
			require.NoError(t, db.Flush())
			it, err := db.NewIter(nil)
			require.NoError(t, err)
			require.True(t, it.First())
		},
		"an iterator of a snapshot": func(t *testing.T, db *pebble.DB) {
			require.NoError(t, db.Flush())
			it, err := db.NewSnapshot().NewIter(nil)
			require.NoError(t, err)
			require.True(t, it.First())
		},
		"a snapshot": func(_ *testing.T, db *pebble.DB) { _ = db.NewSnapshot() },
		"a value": func(t *testing.T, db *pebble.DB) {
			require.NoError(t, db.Flush())
			_, _, err := db.Get(appendKey(nil, txbackend.Records, "SECRET"))
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "store")
			s := storeAt(t, dir, idem.Options{})
			storetest.Complete(t, s, "SECRET", "")
			leave(t, engine.Of(s).(*Backend).DB())
			var err error
			within(t, "Close", func() { err = s.Close() })
			require.ErrorContains(t, err, "close them before the store")
			require.NotContains(t, err.Error(), "SECRET")
			require.NotContains(t, err.Error(), "\n", "one line")
			s = storeAt(t, dir, idem.Options{})
			storetest.Refused(t, s, "SECRET", idem.ErrCompleted)
			require.NoError(t, s.Close())
		})
	}
}

// A same-commit function that commits or closes its batch hears that it must not. Those
// who share its commit notice nothing.
func TestFunctionsThatEndTheirBatch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, end := range map[string]func(b *pebble.Batch, db *pebble.DB) error{
		"commits it":         func(b *pebble.Batch, _ *pebble.DB) error { return b.Commit(pebble.Sync) },
		"commits it later":   func(b *pebble.Batch, _ *pebble.DB) error { return b.Commit(pebble.NoSync) },
		"has it applied":     func(b *pebble.Batch, db *pebble.DB) error { return db.Apply(b, pebble.Sync) },
		"closes it":          func(b *pebble.Batch, _ *pebble.DB) error { return b.Close() },
		"commits and closes": func(b *pebble.Batch, _ *pebble.DB) error { return errors.Join(b.Commit(pebble.Sync), b.Close()) },
	} {
		for _, size := range []int{1, 1 << 20} { // a large batch is a table of its own
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				t.Parallel()
				s := storetest.Open(t, mustOpen(t, "store", Options{fs: vfs.NewMem(), MinFree: -1, MemTableBytes: 1 << 20}), idem.Options{SweepInterval: -1})
				db := engine.Of(s).(*Backend).DB()
				var wg sync.WaitGroup
				for i := range 8 {
					wg.Go(func() {
						_, _, err := Do(ctx, s, idem.Request{Key: fmt.Sprint("good", i)}, func(_ context.Context, b *pebble.Batch) ([]byte, error) {
							return []byte("done"), b.Set([]byte(fmt.Sprint("good", i)), nil, nil)
						})
						if err != nil {
							t.Errorf("another's: %v", err)
						}
					})
					if i%4 == 0 {
						wg.Go(func() {
							_, _, err := Do(ctx, s, idem.Request{Key: fmt.Sprint("bad", i)}, func(_ context.Context, b *pebble.Batch) ([]byte, error) {
								return nil, errors.Join(b.Set([]byte(fmt.Sprint("bad", i)), make([]byte, size), nil), end(b, db))
							})
							if !errors.Is(err, idem.ErrInvalid) {
								t.Errorf("its own: %v", err)
							}
						})
					}
				}
				wg.Wait()
				for i := range 8 {
					storetest.Refused(t, s, fmt.Sprint("good", i), idem.ErrCompleted)
				}
				_, err := s.Get(ctx, "bad0")
				require.ErrorIs(t, err, idem.ErrNotFound)
				require.NoError(t, s.Close())
			})
		}
	}
}

func TestWrongFunction(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, Options{}, idem.Options{})
	_, _, err := s.DoEffect(context.Background(), idem.Request{Key: "k"}, func() {})
	require.ErrorIs(t, err, idem.ErrInvalid)
	storetest.Claim(t, s, "k") // the store lives
}

// A database that a newer Pebble has made its own is refused as of another version, and
// left as it is.
func TestOpenOfANewerPebble(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b, err := Open(dir, Options{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	markers, err := filepath.Glob(filepath.Join(dir, dbName, "marker.format-version.*"))
	require.NoError(t, err)
	require.Len(t, markers, 1)
	require.NoError(t, os.Rename(markers[0], filepath.Join(dir, dbName, "marker.format-version.000099.099")))
	err = storetest.RefusesToOpen(t, dir, func() (*Backend, error) { return Open(dir, Options{}) }, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, "use a newer library")
}
