package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// filled makes a store with some records at path, closed.
func filled(t testing.TB, path string, records int) {
	t.Helper()
	s := storeAt(t, path, idem.Options{})
	rs := make([]idem.Request, records)
	for i := range rs {
		rs[i].Key = string(binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	for _, r := range s.ClaimMany(context.Background(), rs) {
		require.NoError(t, r.Err)
	}
	require.NoError(t, s.Close())
}

// newFilled makes such a store in a folder of its own.
func newFilled(t testing.TB, records int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), fileName)
	filled(t, path, records)
	return path
}

// refused opens path and requires that it is refused with target, and left as it is.
func refused(t *testing.T, path string, target error) {
	t.Helper()
	open := func() (*Backend, error) { return Open(path, Options{LockTimeout: 50 * time.Millisecond}) }
	_ = storetest.RefusesToOpen(t, path, open, target)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a foreign file", func(t *testing.T) {
		t.Parallel()
		for name, content := range map[string]string{
			"text": "not a database, but longer than both of the pages that would be read first", "one byte": "x",
			"zeroes": string(make([]byte, 1<<17)),
		} {
			path := filepath.Join(t.TempDir(), name)
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			refused(t, path, idem.ErrInvalid)
		}
	})
	t.Run("an empty file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "empty")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		refused(t, path, idem.ErrInvalid)
	})
	t.Run("a database of something else", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "other.db")
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("theirs"))
			return err
		}))
		require.NoError(t, db.Close())
		refused(t, path, idem.ErrInvalid)
	})
	t.Run("a store without one of its buckets", func(t *testing.T) {
		t.Parallel()
		path := newFilled(t, 1)
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(buckets[txbackend.Expiry]) }))
		require.NoError(t, db.Close())
		refused(t, path, idem.ErrCorrupt)
	})
	t.Run("a directory", func(t *testing.T) {
		t.Parallel()
		_, err := Open(t.TempDir(), Options{})
		require.ErrorIs(t, err, idem.ErrInvalid)
	})
	t.Run("a folder that is not there", func(t *testing.T) {
		t.Parallel()
		_, err := Open(filepath.Join(t.TempDir(), "none", fileName), Options{})
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
	t.Run("a folder without permission", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() <= 0 {
			t.Skip("permissions do not bind this user")
		}
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o500))
		_, err := Open(filepath.Join(dir, fileName), Options{})
		require.ErrorIs(t, err, fs.ErrPermission)
	})
	t.Run("options out of range", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), fileName)
		for _, o := range []Options{{LockTimeout: -1}, {MapSize: -1}, {MaxSize: -1}} {
			_, err := Open(path, o)
			require.ErrorIs(t, err, idem.ErrInvalid)
		}
		require.NoFileExists(t, path)
	})
}

// A truncated file would end the process with SIGBUS if bbolt were let at it.
func TestTruncated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := filepath.Join(dir, fileName)
	filled(t, whole, 900)
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	// bbolt grows the file ahead of what it uses.
	meta, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	used := int(meta.pages * meta.pageSize)
	for _, size := range []int{1, 100, 4096, 8192, 12288, used / 2, used - 1} {
		path := filepath.Join(t.TempDir(), fileName)
		require.NoError(t, os.WriteFile(path, content[:size], 0o600))
		want := idem.ErrCorrupt
		if size < pageHeader+metaBytes {
			want = idem.ErrInvalid // too short to tell what it was
		}
		refused(t, path, want)
	}
}

// A truncation while the store is open is met by a read: a memory fault, which
// breaks the store and not the process.
func TestTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a mapped file cannot be truncated on windows")
	}
	path := newFilled(t, 900)
	s := storeAt(t, path, idem.Options{CacheBytes: -1, SweepInterval: -1})
	require.NoError(t, os.Truncate(path, 8192))
	var broken error
	for i := range 900 {
		if _, broken = s.Get(context.Background(), string(binary.BigEndian.AppendUint32(nil, uint32(i)))); broken != nil {
			break
		}
	}
	require.ErrorIs(t, broken, idem.ErrBroken)
	storetest.Refused(t, s, "new", idem.ErrBroken)
	_ = s.Close()
	_, err := Open(path, Options{})
	require.ErrorIs(t, err, idem.ErrCorrupt)
}

// Every byte of the pages that bbolt trusts, changed: opening and reading answers
// or refuses, and never ends the process or replays another result.
func TestDamagedPages(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	whole := filepath.Join(t.TempDir(), fileName)
	ctx := context.Background()
	s := storeAt(t, whole, idem.Options{})
	for _, key := range []string{"a", "b", "c"} {
		c := storetest.Claim(t, s, key)
		require.NoError(t, s.Complete(ctx, c.Token, bytes.Repeat([]byte(key), 40)))
	}
	require.NoError(t, s.Close())
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	step := 37
	if testing.Short() {
		step = 371
	}
	path := filepath.Join(t.TempDir(), fileName)
	for at := 0; at < len(content); at += step {
		damaged := bytes.Clone(content)
		damaged[at] ^= 0x10
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		b, err := Open(path, Options{})
		if err != nil {
			require.True(t, isOneOf(err, idem.ErrCorrupt, idem.ErrInvalid, idem.ErrVersion), "byte %d: %v", at, err)
			require.NotContains(t, err.Error(), "\n", "one line, for logs")
			continue
		}
		s, err := idem.New(b, idem.Options{SweepInterval: -1})
		if err != nil {
			_ = b.Close()
			continue
		}
		for _, key := range []string{"a", "b", "c"} {
			rec, err := s.Get(ctx, key)
			if err == nil && rec.State == idem.Completed {
				require.Equal(t, bytes.Repeat([]byte(key), 40), rec.Result, "byte %d", at)
			}
		}
		_ = s.Close()
	}
}

func isOneOf(err error, targets ...error) bool {
	for _, target := range targets {
		if bytes.Contains([]byte(err.Error()), []byte(target.Error())) {
			return true
		}
	}
	return false
}

const holderEnv = "IDEM_TEST_HOLD"

func TestSecondOpen(t *testing.T) {
	if path := os.Getenv(holderEnv); path != "" { // the other process
		_, err := Open(path, Options{LockTimeout: 50 * time.Millisecond})
		require.ErrorIs(t, err, idem.ErrLocked)
		return
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	b := mustOpen(t, path, Options{})
	_, err := Open(path, Options{LockTimeout: 50 * time.Millisecond})
	require.ErrorIs(t, err, idem.ErrLocked)
	require.ErrorContains(t, err, path)

	storetest.Elsewhere(t, "TestSecondOpen", holderEnv, path)

	require.NoError(t, b.Close())
	require.NoError(t, mustOpen(t, path, Options{}).Close())
}

func TestOneStoreOfSeveralCreators(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			b, err := Open(path, Options{LockTimeout: time.Hour})
			if err == nil {
				err = b.Close()
			}
			results <- err
		}()
	}
	for range cap(results) {
		require.NoError(t, <-results)
	}
	left, err := filepath.Glob(path + ".new-*")
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	require.NoError(t, mustOpen(t, path, Options{FileMode: 0o640}).Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, fs.FileMode(0o640), info.Mode())
	}
}
