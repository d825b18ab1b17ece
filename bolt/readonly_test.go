package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/formattest"
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

// patch changes the file at path behind the library's back.
func patch(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
}

func whats(all []engine.Damage) (whats []string) {
	for _, d := range all {
		whats = append(whats, d.What)
	}
	return whats
}

// keyOf is the key of record i of filled.
func keyOf(i int) string { return string([]byte{0, 0, byte(i >> 8), byte(i)}) }

// readOnlyUse does everything that can be done with a store opened read-only.
func readOnlyUse(t *testing.T, path string) {
	t.Helper()
	b := mustOpen(t, path, Options{ReadOnly: true})
	s := storetest.Open(t, b, idem.Options{SweepInterval: time.Millisecond, LapseOnOpen: true})
	_, err := s.Get(t.Context(), keyOf(1))
	require.NoError(t, err)
	_, err = s.Stats(t.Context())
	require.NoError(t, err)
	storetest.Refused(t, s, "new", idem.ErrInvalid)
	require.ErrorIs(t, b.Update(t.Context(), func(*bbolt.Tx) error { return nil }), idem.ErrInvalid)
	_, _, err = Do(t.Context(), s, idem.Request{Key: "new"}, nil)
	require.ErrorIs(t, err, idem.ErrInvalid)
	require.NoError(t, b.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		require.NotNil(t, tx.Bucket(buckets[txbackend.Records]))
		return nil
	}))
	require.Empty(t, found(t, b))
	require.NoError(t, b.Backup(t.Context(), filepath.Join(t.TempDir(), "copy")))
	require.NoError(t, s.Close())
}

func TestReadOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(t *testing.T) (path string){
		"closed": func(t *testing.T) string { return newFilled(t, 600) },
		"killed": func(t *testing.T) string {
			path := newFilled(t, 600)
			s := storeAt(t, path, idem.Options{})
			storetest.Complete(t, s, "k", "r")
			left := filepath.Join(t.TempDir(), fileName)
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(left, content, 0o600))
			return left
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := make(t)
			old := time.Unix(1_700_000_000, 0)
			require.NoError(t, os.Chtimes(path, old, old))
			require.NoError(t, os.Chtimes(filepath.Dir(path), old, old))
			before := storetest.State(t, filepath.Dir(path))
			readOnlyUse(t, path)
			require.Equal(t, before, storetest.State(t, filepath.Dir(path)))
			require.NoError(t, os.Chmod(path, 0o400))
			readOnlyUse(t, path)
		})
	}
	t.Run("on a file system that is read-only", func(t *testing.T) {
		t.Parallel()
		path := newFilled(t, 600)
		readOnlyUse(t, filepath.Join(storetest.ReadOnlyMount(t, filepath.Dir(path)), fileName))
	})
}

func TestReadOnlyRefuses(t *testing.T) {
	t.Parallel()
	openReadOnly := func(path string) (*Backend, error) {
		return Open(path, Options{ReadOnly: true, LockTimeout: time.Millisecond})
	}
	refused := func(t *testing.T, path string, want error) {
		t.Helper()
		_ = storetest.RefusesToOpen(t, path, func() (*Backend, error) { return openReadOnly(path) }, want)
	}
	t.Run("a path that does not exist", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		refused(t, filepath.Join(dir, fileName), fs.ErrNotExist)
		_, err := openReadOnly(filepath.Join(dir, "no", "such", fileName))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Empty(t, storetest.Names(t, dir))
	})
	t.Run("what is no store", func(t *testing.T) {
		t.Parallel()
		refused(t, t.TempDir(), idem.ErrInvalid)
		for _, content := range []string{"", "text", string(bytes.Repeat([]byte("text"), 10_000))} {
			path := filepath.Join(t.TempDir(), fileName)
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			refused(t, path, idem.ErrInvalid)
		}
		path := filepath.Join(t.TempDir(), fileName)
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		refused(t, path, idem.ErrInvalid)
	})
	t.Run("a store of another format", func(t *testing.T) {
		t.Parallel()
		for _, other := range []func(key string, value []byte) []byte{formattest.Older, formattest.Newer} {
			path := newFilled(t, 1)
			patch(t, path, func(tx *bbolt.Tx) error {
				b := tx.Bucket(buckets[txbackend.Meta])
				return b.Put([]byte(codec.MetaKey), other(codec.MetaKey, b.Get([]byte(codec.MetaKey))))
			})
			refused(t, path, idem.ErrVersion)
		}
	})
	t.Run("a store that is open for writing, and the reverse", func(t *testing.T) {
		t.Parallel()
		path := newFilled(t, 1)
		s := storeAt(t, path, idem.Options{})
		_, err := openReadOnly(path)
		require.ErrorIs(t, err, idem.ErrLocked)
		require.NoError(t, s.Close())
		b, err := openReadOnly(path)
		require.NoError(t, err)
		_, err = Open(path, Options{LockTimeout: time.Millisecond})
		require.ErrorIs(t, err, idem.ErrLocked)
		storetest.Elsewhere(t, "TestReadOnlyElsewhere", readElsewhereEnv, path)
		require.NoError(t, b.Close())
	})
	t.Run("neither meta page can be read", func(t *testing.T) {
		t.Parallel()
		path := newFilled(t, 1)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		content[pageHeader+20] ^= 1
		content[os.Getpagesize()+pageHeader+20] ^= 1
		require.NoError(t, os.WriteFile(path, content, 0o600))
		refused(t, path, idem.ErrCorrupt)
	})
}

const readElsewhereEnv = "IDEM_TEST_READ"

// TestReadOnlyElsewhere is what another process does while this one reads a store.
func TestReadOnlyElsewhere(t *testing.T) {
	path := os.Getenv(readElsewhereEnv)
	if path == "" {
		t.Skip("it is for other processes")
	}
	_, err := Open(path, Options{LockTimeout: time.Millisecond})
	require.ErrorIs(t, err, idem.ErrLocked)
	require.NoError(t, mustOpen(t, path, Options{ReadOnly: true}).Close())
}

// leavesOf returns the leaf pages of a store's records and index, and the page size.
func leavesOf(t *testing.T, path string) (leaves []int, pageSize int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		for id := 0; ; id++ {
			info, err := tx.Page(id)
			if info == nil || err != nil {
				return err
			}
			if info.Type == "leaf" && info.Count > 10 {
				leaves = append(leaves, id)
			}
			id += info.OverflowCount
		}
	}))
	return leaves, db.Info().PageSize
}

// A page that is damaged costs the records in it. They are named, all others are read, and
// the store still opens for reading.
func TestVerifyGoesOnPastDamagedPages(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	const records = 900
	whole := newFilled(t, records)
	s := storeAt(t, whole, idem.Options{})
	hashes := map[string]string{}
	for i := range records {
		hashes[s.KeyHash(keyOf(i))] = keyOf(i)
	}
	require.NoError(t, s.Close())
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	leaves, size := leavesOf(t, whole)
	require.Greater(t, len(leaves), 10)
	path := filepath.Join(t.TempDir(), fileName)
	lost := 0
	for _, id := range []int{leaves[0], leaves[len(leaves)/2], leaves[len(leaves)-1]} {
		damaged := bytes.Clone(content)
		damaged[id*size+8] ^= 0xff // its kind
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err := Open(path, Options{})
		require.ErrorIs(t, err, idem.ErrCorrupt)

		b := mustOpen(t, path, Options{ReadOnly: true})
		require.ErrorIs(t, b.Backup(t.Context(), path+".copy"), idem.ErrCorrupt)
		require.ErrorIs(t, b.View(t.Context(), func(context.Context, *bbolt.Tx) error { return nil }), idem.ErrCorrupt)
		s := storetest.Open(t, b, idem.Options{})
		all := found(t, b)
		require.Contains(t, whats(all), "page")
		require.ErrorContains(t, all[0].Err, fmt.Sprintf("page %d", id))
		named := map[string]bool{}
		for _, d := range all {
			if d.What == "record" {
				require.Contains(t, hashes, d.KeyHash)
				named[hashes[d.KeyHash]] = true
			}
		}
		for i := range records {
			_, err := s.Get(t.Context(), keyOf(i))
			if errors.Is(err, idem.ErrCorrupt) {
				lost++
				require.True(t, named[keyOf(i)], "record %d cannot be read, and is not named", i)
				continue
			}
			require.NoError(t, err, "record %d", i)
		}
		require.NoError(t, s.Close())
	}
	require.Greater(t, lost, 10)
}

// Whatever byte of a file is changed: reading it, and verifying it, ends in order; what is
// read is what was written; and what cannot be read is reported.
func TestVerifyOfEachByte(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	whole := filepath.Join(t.TempDir(), fileName)
	s := storeAt(t, whole, idem.Options{})
	keys := []string{"a", "b", "c", "d"}
	result := func(key string) []byte { return bytes.Repeat([]byte(key), 3000) }
	for _, key := range keys {
		storetest.Complete(t, s, key, string(result(key)))
	}
	require.NoError(t, s.Close())
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	meta, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	content = content[:meta.pages*meta.pageSize] // the rest was only allocated
	step := 61
	if testing.Short() {
		step = 613
	}
	path := filepath.Join(t.TempDir(), fileName)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	reported := 0
	check := func(at int) {
		t.Helper()
		b, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			require.True(t, isOneOf(err, idem.ErrCorrupt, idem.ErrInvalid, idem.ErrVersion), "byte %d: %v", at, err)
			return
		}
		all := found(t, b)
		if len(all) > 0 {
			reported++
		}
		s, err := idem.New(b, idem.Options{})
		if err != nil {
			require.NotEmpty(t, all, "byte %d: %v", at, err)
			require.NoError(t, b.Close())
			return
		}
		for _, key := range keys {
			r, err := s.Get(t.Context(), key)
			if err != nil {
				require.NotEmpty(t, all, "byte %d: %v", at, err)
				continue
			}
			require.Equal(t, result(key), r.Result, "byte %d", at)
		}
		require.NoError(t, s.Close(), "byte %d", at)
	}
	for at := 0; at < len(content); at += step {
		flip(t, path, int64(at), at%8)
		check(at)
		flip(t, path, int64(at), at%8)
	}
	require.Greater(t, reported, 5)
}

func TestVerifyOfATruncatedFile(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 900)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	meta, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(meta.pages*meta.pageSize/2)))
	b := mustOpen(t, path, Options{ReadOnly: true})
	require.NotEmpty(t, found(t, b))
	require.NoError(t, b.Close())
}

// What cannot come from a store's own commits is reported, whichever side it is on.
func TestVerifyFindsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	place := func(at engine.Instant, key string) []byte {
		return codec.AppendPlace(nil, engine.Due{At: at, Key: key})
	}
	inRecords := func(change func(m *engine.Meta)) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b := tx.Bucket(buckets[txbackend.Meta])
			m, err := codec.DecodeMeta(b.Get([]byte(codec.MetaKey)))
			require.NoError(t, err)
			change(&m)
			return b.Put([]byte(codec.MetaKey), codec.AppendMeta(nil, m))
		}
	}
	expiry := func(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket(buckets[txbackend.Expiry]) }
	for name, c := range map[string]struct {
		patch func(tx *bbolt.Tx) error
		want  []string
		says  string
	}{
		"a record without its place": {func(tx *bbolt.Tx) error {
			k, _ := expiry(tx).Cursor().First()
			return expiry(tx).Delete(k)
		}, []string{"record"}, "not in the expiry index"},
		"a place without its record": {
			func(tx *bbolt.Tx) error { return tx.Bucket(buckets[txbackend.Records]).Delete([]byte(keyOf(3))) },
			[]string{"expiry index"},
			"belongs to no record",
		},
		"a place too many":   {func(tx *bbolt.Tx) error { return expiry(tx).Put(place(1, keyOf(3)), nil) }, []string{"expiry index"}, "a place is at 1"},
		"no place at all":    {func(tx *bbolt.Tx) error { return expiry(tx).Put([]byte("short"), nil) }, []string{"expiry index"}, "no place"},
		"a place of a value": {func(tx *bbolt.Tx) error { return expiry(tx).Put(place(engine.Never-1, "x"), []byte("v")) }, []string{"expiry index", "expiry index"}, ""},
		"no meta entry":      {func(tx *bbolt.Tx) error { return tx.Bucket(buckets[txbackend.Meta]).Delete([]byte(codec.MetaKey)) }, []string{"meta entry"}, "missing"},
		"another meta entry": {func(tx *bbolt.Tx) error { return tx.Bucket(buckets[txbackend.Meta]).Put([]byte("other"), nil) }, []string{"meta entry"}, "another entry"},
		"a meta entry older than the records, as in a copy of an open file": {
			inRecords(func(m *engine.Meta) { m.Fence = 7 }),
			[]string{"meta entry"},
			"fence",
		},
		"an opening that has not been": {inRecords(func(m *engine.Meta) { m.Epoch = 0 }), []string{"meta entry"}, "opening"},
		"a clock from the future":      {inRecords(func(m *engine.Meta) { m.Wall += int64(9 * 365 * 24 * time.Hour) }), []string{"clock"}, "ahead"},
		"no index": {
			func(tx *bbolt.Tx) error { return tx.DeleteBucket(buckets[txbackend.Expiry]) },
			[]string{"bucket"},
			"missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newFilled(t, 40)
			patch(t, path, c.patch)
			b := mustOpen(t, path, Options{ReadOnly: true})
			defer func() { require.NoError(t, b.Close()) }()
			all := found(t, b)
			require.Subset(t, whats(all), c.want)
			require.ErrorContains(t, all[0].Err, c.says)
		})
	}
}

// bbolt's own tools write a list of free pages, which the store does not.
func TestVerifyOfAListOfFreePages(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	from := newFilled(t, 900)
	path := filepath.Join(t.TempDir(), fileName)
	src, err := bbolt.Open(from, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	dst, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, bbolt.Compact(dst, src, 1<<10))
	require.NoError(t, dst.Close())
	require.NoError(t, src.Close())
	b := mustOpen(t, path, Options{ReadOnly: true})
	require.NotEqual(t, noFreelist, b.engine.meta.freelist)
	require.Empty(t, found(t, b))
	m := *b.engine.meta
	require.NoError(t, b.Close())

	content, err := os.ReadFile(path)
	require.NoError(t, err)
	list := m.freelist * m.pageSize
	for name, at := range map[string]uint64{"its kind": list + 8, "its length": list + 10, "a page in it": list + pageHeader} {
		damaged := bytes.Clone(content)
		damaged[at] ^= 0x04
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		b := mustOpen(t, path, Options{ReadOnly: true})
		require.Equal(t, []string{"page"}, whats(found(t, b)), name)
		require.NoError(t, b.Close())
	}
}

// Verify of a store in use holds up no commit, even one for which the file's map must grow.
func TestVerifyWhileTheMapGrows(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 600)
	b := mustOpen(t, path, Options{MapSize: 1})
	s := storetest.Open(t, b, idem.Options{})
	n := 0
	ctx := engine.WithProgress(t.Context(), func(done, total int64) {
		if n++; n == 1 {
			grow(t, s)
		}
	})
	require.NoError(t, b.Verify(ctx, func(d engine.Damage) { t.Errorf("%s: %v", d.What, d.Err) }))
	require.NotZero(t, n)
	require.Empty(t, found(t, b))
}

// grow lets the file of s grow several times over.
func grow(t *testing.T, s *idem.Store) {
	for i := range 12 {
		c, err := s.Claim(context.Background(), idem.Request{Key: fmt.Sprint("large ", i)})
		if err == nil {
			err = s.Complete(context.Background(), c.Token, make([]byte, 1<<20))
		}
		if err != nil {
			t.Error(err)
		}
	}
}
