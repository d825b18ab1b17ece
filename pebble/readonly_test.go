package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// found returns what Verify reports.
func found(t *testing.T, b *Backend) (all []engine.Damage) {
	t.Helper()
	require.NoError(t, b.Verify(t.Context(), func(d engine.Damage) { all = append(all, d) }))
	return all
}

func whats(all []engine.Damage) (whats []string) {
	for _, d := range all {
		whats = append(whats, d.What)
	}
	return whats
}

// readOnlyUse does everything that can be done with a store opened read-only.
func readOnlyUse(t *testing.T, dir string) {
	t.Helper()
	b := mustOpen(t, dir, Options{ReadOnly: true})
	s := storetest.Open(t, b, idem.Options{SweepInterval: time.Millisecond, LapseOnOpen: true})
	r, err := s.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "a", string(r.Result))
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, st.Completed, 3)
	storetest.Refused(t, s, "new", idem.ErrInvalid)
	require.ErrorIs(t, b.Update(t.Context(), func(*pebble.Batch) error { return nil }), idem.ErrInvalid)
	_, _, err = Do(t.Context(), s, idem.Request{Key: "new"}, nil)
	require.ErrorIs(t, err, idem.ErrInvalid)
	require.ErrorIs(t, b.Compact(t.Context()), idem.ErrInvalid)
	require.Empty(t, found(t, b))
	require.NoError(t, b.Backup(t.Context(), filepath.Join(t.TempDir(), "copy")))
	require.NoError(t, s.Close())
}

func TestReadOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(t *testing.T) (dir string){
		"closed": func(t *testing.T) string { return newFilled(t) },
		"killed, with records that are only in the log": func(t *testing.T) string {
			dir := newFilled(t)
			s := storeAt(t, dir, idem.Options{})
			storetest.Complete(t, s, "in the log", "r")
			return killed(t, dir)
		},
		"never opened here, and without a lock file": func(t *testing.T) string {
			dir := newFilled(t)
			require.NoError(t, os.Remove(filepath.Join(dir, dbName, "LOCK")))
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := make(t)
			old := time.Unix(1_700_000_000, 0)
			for path := range storetest.State(t, dir) {
				require.NoError(t, os.Chtimes(path, old, old))
			}
			before := storetest.State(t, dir)
			readOnlyUse(t, dir)
			require.Equal(t, before, storetest.State(t, dir))

			readOnlyUse(t, storetest.ReadOnlyMount(t, dir))
		})
	}
	t.Run("records of the log are read", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		s := storeAt(t, dir, idem.Options{})
		storetest.Complete(t, s, "in the log", "r")
		b := mustOpen(t, killed(t, dir), Options{ReadOnly: true})
		read := storetest.Open(t, b, idem.Options{})
		r, err := read.Get(t.Context(), "in the log")
		require.NoError(t, err)
		require.Equal(t, "r", string(r.Result))
	})
}

func TestReadOnlyRefuses(t *testing.T) {
	t.Parallel()
	openReadOnly := func(dir string) (*Backend, error) {
		return Open(dir, Options{ReadOnly: true, LockTimeout: time.Millisecond})
	}
	refused := func(t *testing.T, dir string, want error) {
		t.Helper()
		before := storetest.State(t, filepath.Dir(dir))
		_ = storetest.RefusesToOpen(t, dir, func() (*Backend, error) { return openReadOnly(dir) }, want)
		require.Equal(t, before, storetest.State(t, filepath.Dir(dir)))
	}
	t.Run("a path that does not exist", func(t *testing.T) {
		t.Parallel()
		refused(t, filepath.Join(t.TempDir(), "store"), fs.ErrNotExist)
	})
	t.Run("what is no store", func(t *testing.T) {
		t.Parallel()
		empty := filepath.Join(t.TempDir(), "empty")
		require.NoError(t, os.Mkdir(empty, 0o700))
		refused(t, empty, idem.ErrInvalid)
		require.NoError(t, os.WriteFile(filepath.Join(empty, "file"), nil, 0o600))
		refused(t, empty, idem.ErrInvalid)
		refused(t, filepath.Join(empty, "file"), idem.ErrInvalid)
		begun := filepath.Join(t.TempDir(), "begun")
		require.NoError(t, os.Mkdir(begun, 0o700))
		require.NoError(t, begin(begun, vfs.Default))
		refused(t, begun, idem.ErrInvalid)
	})
	t.Run("another format", func(t *testing.T) {
		t.Parallel()
		for _, marker := range []string{oldMarker, "idem format 3 on pebble\n"} {
			dir := newFilled(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, markerName), []byte(marker), 0o600))
			refused(t, dir, idem.ErrVersion)
		}
	})
	t.Run("a missing database", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, dbName)))
		refused(t, dir, idem.ErrCorrupt)
	})
	t.Run("a missing table", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
		require.NoError(t, err)
		require.NotEmpty(t, tables)
		require.NoError(t, os.Remove(tables[0]))
		refused(t, dir, idem.ErrCorrupt)
	})
	t.Run("a missing log", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		s := storeAt(t, dir, idem.Options{})
		storetest.Complete(t, s, "k", "r")
		left := killed(t, dir)
		for _, log := range logsOf(t, left) {
			require.NoError(t, os.Remove(log))
		}
		refused(t, left, idem.ErrCorrupt)
	})
	t.Run("a store that is open for writing, and the reverse", func(t *testing.T) {
		t.Parallel()
		dir := newFilled(t)
		s := storeAt(t, dir, idem.Options{})
		_, err := openReadOnly(dir)
		require.ErrorIs(t, err, idem.ErrLocked)
		storetest.Elsewhere(t, "TestReadOnlyElsewhere", readElsewhereEnv, "locked:"+dir)
		require.NoError(t, s.Close())
		var readers []*Backend
		for range 3 {
			b, err := openReadOnly(dir)
			require.NoError(t, err)
			readers = append(readers, b)
		}
		for i, b := range readers {
			requireLocked(t, dir)
			if i == len(readers)-1 {
				storetest.Elsewhere(t, "TestReadOnlyElsewhere", readElsewhereEnv, dir)
			}
			require.NoError(t, b.Close())
		}
		require.NoError(t, mustOpen(t, dir, Options{}).Close())
	})
}

const readElsewhereEnv = "IDEM_TEST_READ"

// TestReadOnlyElsewhere is what another process does while this one has a store open.
func TestReadOnlyElsewhere(t *testing.T) {
	dir := os.Getenv(readElsewhereEnv)
	if dir == "" {
		t.Skip("it is for other processes")
	}
	if dir, locked := strings.CutPrefix(dir, "locked:"); locked {
		_, err := Open(dir, Options{ReadOnly: true, LockTimeout: time.Millisecond})
		require.ErrorIs(t, err, idem.ErrLocked)
		return
	}
	locksDirectories(t)
	requireLocked(t, dir)
	require.NoError(t, mustOpen(t, dir, Options{ReadOnly: true}).Close())
}

// Pebble never writes where it was opened to read: the file system would refuse it.
func TestReadOnlyFS(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem()
	ro := readOnlyFS{disk}
	require.Equal(t, vfs.FS(disk), ro.Unwrap())
	_, create := ro.Create("a", vfs.WriteCategoryUnspecified)
	_, open := ro.OpenReadWrite("a", vfs.WriteCategoryUnspecified)
	_, reuse := ro.ReuseForWrite("a", "b", vfs.WriteCategoryUnspecified)
	for _, err := range []error{
		create, open, reuse, ro.Link("a", "b"), ro.Remove("a"), ro.RemoveAll("a"), ro.Rename("a", "b"), ro.MkdirAll("a", 0o700),
	} {
		require.ErrorIs(t, err, idem.ErrInvalid)
	}
	names, err := disk.List("")
	require.NoError(t, err)
	require.Empty(t, names)
}

// An opening waits for the lock as long as it is told to.
func TestOpenWaitsForTheLock(t *testing.T) {
	t.Parallel()
	_, err := Open(t.TempDir(), Options{LockTimeout: -1})
	require.ErrorIs(t, err, idem.ErrInvalid)
	for _, readOnly := range []bool{false, true} {
		dir := newFilled(t)
		b := mustOpen(t, dir, Options{})
		_, err := Open(dir, Options{LockTimeout: time.Millisecond, ReadOnly: readOnly})
		require.ErrorIs(t, err, idem.ErrLocked)
		require.ErrorContains(t, err, "LockTimeout (1ms)")
		opened := make(chan *Backend)
		go func() {
			b, err := Open(dir, Options{LockTimeout: time.Hour, ReadOnly: readOnly})
			if err != nil {
				t.Error(err)
			}
			opened <- b
		}()
		require.NoError(t, b.Close())
		require.NoError(t, (<-opened).Close())
	}
}

// many makes a closed store of n records in tables of small blocks, and returns their keys
// by hash.
func many(t *testing.T, n int) (dir string, keys map[string]string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	b := mustOpen(t, dir, Options{})
	s := storetest.Open(t, b, idem.Options{MaxBatch: n})
	rng := rand.New(rand.NewPCG(1, 2))
	requests, keys := make([]idem.Request, n), map[string]string{}
	for i := range requests {
		key := fmt.Sprintf("%016x", rng.Uint64())
		keys[s.KeyHash(key)] = key
		requests[i] = idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte(key))}
	}
	for _, r := range s.ClaimMany(t.Context(), requests) {
		require.NoError(t, r.Err)
	}
	require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
		return errors.Join(batch.Set([]byte("own/k"), []byte("v"), nil), batch.RangeKeySet([]byte("own/a"), []byte("own/b"), nil, []byte("range"), nil))
	}))
	require.NoError(t, s.Close())
	return dir, keys
}

// damageBlock flips a bit in the block with the record of key, which is one of many. Its
// fingerprint cannot be compressed, so it is in the file as it is.
func damageBlock(t *testing.T, dir, key string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	require.NoError(t, err)
	print := idem.FingerprintOf([]byte(key))
	for _, name := range tables {
		table, err := os.ReadFile(name)
		require.NoError(t, err)
		if at := bytes.Index(table, print[8:24]); at >= 0 {
			table[at] ^= 1
			require.NoError(t, os.WriteFile(name, table, 0o600))
			return
		}
	}
	t.Fatal("the record was not found in any table")
}

// A damaged block costs the records in it. They are named, all others are read, and the
// store still opens.
func TestVerifyGoesOnPastDamagedBlocks(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	dir, keys := many(t, 1000)
	tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	lost, all := 0, 0
	for _, table := range tables {
		whole, err := os.ReadFile(table)
		require.NoError(t, err)
		for at := 1000; at < len(whole)/2; at += len(whole) / 3 {
			all++
			damaged := append([]byte{}, whole...)
			damaged[at] ^= 1
			damaged[(at+len(whole)/3)%(len(whole)/2)] ^= 1
			require.NoError(t, os.WriteFile(table, damaged, 0o600))
			b := mustOpen(t, dir, Options{ReadOnly: true})
			s, err := idem.New(b, idem.Options{})
			if err != nil { // the meta entry is in the block
				require.ErrorIs(t, err, idem.ErrCorrupt)
				require.Contains(t, whats(found(t, b)), "meta entry")
				require.NoError(t, b.Close())
				continue
			}
			report := found(t, b)
			require.Contains(t, whats(report), "table", "byte %d of %s", at, table)
			require.Contains(t, report[0].Err.Error(), filepath.Base(table))
			named := map[string]bool{}
			for _, d := range report {
				require.ErrorIs(t, d.Err, idem.ErrCorrupt)
				require.NotContains(t, d.Err.Error(), reserved)
				if d.What == "record" {
					require.Contains(t, keys, d.KeyHash)
					named[keys[d.KeyHash]] = true
				}
			}
			for _, key := range keys {
				switch _, err := s.Get(t.Context(), key); {
				case errors.Is(err, idem.ErrCorrupt):
					lost++
					require.True(t, named[key], "a record cannot be read, and is not named")
				default:
					require.NoError(t, err)
				}
			}
			require.ErrorIs(t, b.Backup(t.Context(), filepath.Join(t.TempDir(), "copy")), idem.ErrCorrupt)
			require.NoError(t, s.Close())
		}
		require.NoError(t, os.WriteFile(table, whole, 0o600))
	}
	require.Greater(t, lost, all, "blocks of records were hit")
	b := mustOpen(t, dir, Options{ReadOnly: true})
	require.Empty(t, found(t, b))
	require.NoError(t, b.Close())
}

// The walk loses no more than the damaged block: it goes on right behind it.
func TestWalkGoesOnBehindADamagedBlock(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	dir, keys := many(t, 3000)
	damageBlock(t, dir, slices.Sorted(maps.Values(keys))[1500])
	b := mustOpen(t, dir, Options{ReadOnly: true})
	defer func() { require.NoError(t, b.Close()) }()
	walked, damage := map[string]bool{}, 0
	require.NoError(t, b.engine.Inspect(func(v txbackend.View) error {
		return v.Walk(t.Context(), func(space txbackend.Space, key, _ []byte) {
			if space == txbackend.Records {
				walked[string(key)] = true
			}
		}, func(string, error) { damage++ })
	}))
	require.Equal(t, 2, damage, "the table, and the walk once")
	for _, key := range keys {
		_, err := b.engine.Read(key)
		require.Equal(t, err == nil, walked[key])
	}
	require.Greater(t, len(walked), 2500)
	require.Less(t, len(walked), 3000)
}

// A damaged meta entry is no reason not to look at the rest.
func TestReadOnlyOfADamagedMetaEntry(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	bare(t, dir, func(db *pebble.DB) error {
		return db.Set(appendKey(nil, txbackend.Meta, codec.MetaKey), []byte("damaged"), pebble.Sync)
	})
	refused(t, dir, idem.ErrCorrupt)
	b := mustOpen(t, dir, Options{ReadOnly: true})
	_, err := idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.Equal(t, []string{"meta entry"}, whats(found(t, b)))
	require.NoError(t, b.Close())
}

// What cannot come from a store's own commits is reported.
func TestVerifyFindsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		patch func(db *pebble.DB) error
		want  string
	}{
		"a record without its place": {func(db *pebble.DB) error {
			return db.DeleteRange(appendKey(nil, txbackend.Expiry, ""), append([]byte(reserved), 'y'), pebble.Sync)
		}, "record"},
		"a place without its record": {func(db *pebble.DB) error {
			return db.Delete(appendKey(nil, txbackend.Records, "a"), pebble.Sync)
		}, "expiry index"},
		"a key in no space": {func(db *pebble.DB) error { return db.Set([]byte(reserved+"?"), nil, pebble.Sync) }, "database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newFilled(t)
			bare(t, dir, c.patch)
			b := mustOpen(t, dir, Options{ReadOnly: true})
			require.Contains(t, whats(found(t, b)), c.want)
			require.NoError(t, b.Close())
		})
	}
}

// A store in use is verified under traffic: flushes and compactions come and go.
func TestVerifyUnderCompactions(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{MemTableBytes: 64 << 10, MinFree: -1}, idem.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 400 {
			c, err := s.Claim(context.Background(), idem.Request{Key: fmt.Sprint("k", i%50), Retention: time.Nanosecond})
			if err == nil {
				err = s.Complete(context.Background(), c.Token, make([]byte, 4<<10))
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		require.Empty(t, found(t, b))
	}
}
