package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// A backup holds the caller's own data too, of every kind that Pebble has, and opens with
// the options of the store.
func TestBackupOfOwnData(t *testing.T) {
	t.Parallel()
	o := Options{MemTableBytes: 1 << 20}
	s, b := newStore(t, o, idem.Options{})
	storetest.Complete(t, s, "k", "result")
	require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
		return errors.Join(
			batch.Set([]byte("a"), []byte("before the store's keys"), nil),
			batch.Set([]byte("z"), bytes.Repeat([]byte("z"), 3<<20), nil),
			batch.Set([]byte("empty"), nil, nil),
			batch.Merge([]byte("merged"), []byte("x"), nil), batch.Merge([]byte("merged"), []byte("y"), nil),
			batch.Set([]byte("gone"), []byte("v"), nil), batch.DeleteRange([]byte("gone"), []byte("gonf"), nil),
			batch.RangeKeySet([]byte("c"), []byte("f"), nil, []byte("range"), nil),
			batch.RangeKeySet([]byte("jj"), []byte("x"), nil, []byte("other"), nil),
		)
	}))
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, b.Backup(t.Context(), dir))
	storetest.Complete(t, s, "later", "result")
	require.Equal(t, []string{"copy"}, storetest.Names(t, filepath.Dir(dir)))
	require.Equal(t, []string{markerName, dbName}, storetest.Names(t, dir))

	copied := mustOpen(t, dir, o)
	other := storetest.Open(t, copied, idem.Options{})
	require.Equal(t, "result", string(storetest.Refused(t, other, "k", idem.ErrCompleted).Result))
	storetest.Claim(t, other, "later")
	for key, want := range map[string]string{
		"a": "before the store's keys", "z": strings.Repeat("z", 3<<20), "empty": "", "merged": "xy",
	} {
		require.Equal(t, want, string(get(copied.DB(), key)), key)
	}
	require.Nil(t, get(copied.DB(), "gone"))
	it, err := copied.DB().NewIter(&pebble.IterOptions{KeyTypes: pebble.IterKeyTypeRangesOnly})
	require.NoError(t, err)
	ranges := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		start, end := it.RangeBounds()
		for _, k := range it.RangeKeys() {
			ranges[string(start)+"-"+string(end)] = string(k.Value)
		}
	}
	require.NoError(t, it.Close())
	require.Equal(t, map[string]string{"c-f": "range", "jj-x": "other"}, ranges)
	require.Empty(t, found(t, copied))
	for i := range 200 {
		storetest.Complete(t, other, fmt.Sprint("more ", i), "r")
	}
	require.NoError(t, copied.Compact(t.Context()))
	require.Empty(t, found(t, copied))
	require.NoError(t, other.Close())
}

// metaIn returns the meta entry of the store in dir.
func metaIn(t *testing.T, dir string) engine.Meta {
	t.Helper()
	b := mustOpen(t, dir, Options{ReadOnly: true})
	defer func() { require.NoError(t, b.Close()) }()
	pairs, err := b.engine.Scan(txbackend.Meta, []byte(codec.MetaKey), nil, 1)
	require.NoError(t, err)
	m, err := codec.DecodeMeta(pairs[0].Value)
	require.NoError(t, err)
	return m
}

// The mark is in the copy alone, reading the copy leaves it there, and its first commit
// replaces it.
func TestBackupIsMarkedUntilItIsOpened(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	b := mustOpen(t, dir, Options{})
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, b.Backup(t.Context(), copied))
	require.NoError(t, b.Close())
	require.Zero(t, metaIn(t, dir).LostUntil)
	for range 2 {
		require.Equal(t, engine.Restored, metaIn(t, copied).LostUntil)
	}
	again := copied + ".again"
	b = mustOpen(t, copied, Options{ReadOnly: true})
	require.NoError(t, b.Backup(t.Context(), again))
	require.NoError(t, b.Close())
	require.Equal(t, engine.Restored, metaIn(t, again).LostUntil)

	s := storeAt(t, copied, idem.Options{})
	storetest.Claim(t, s, "k")
	left := killed(t, copied)
	require.NoError(t, s.Close())
	for _, d := range []string{left, copied} {
		lost := metaIn(t, d).LostUntil
		require.NotZero(t, lost)
		require.NotEqual(t, engine.Restored, lost)
	}
}

// A backup in several tables.
func TestBackupOfManyBytes(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{MinFree: -1}, idem.Options{})
	large := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%08d", i*7919)), 1<<17) }
	for i := range 10 {
		require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
			return batch.Set(fmt.Append(nil, "own/", i), large(i), nil)
		}))
	}
	storetest.Claim(t, s, "k")
	dir := filepath.Join(t.TempDir(), "copy")
	last, total := int64(0), int64(0)
	require.NoError(t, b.Backup(engine.WithProgress(t.Context(), func(done, of int64) {
		require.GreaterOrEqual(t, done, last)
		require.LessOrEqual(t, done, of)
		last, total = done, of
	}), dir))
	require.Equal(t, total, last)
	copied := mustOpen(t, dir, Options{})
	for i := range 10 {
		require.Equal(t, large(i), get(copied.DB(), fmt.Sprint("own/", i)))
	}
	require.NoError(t, copied.Close())
}

func TestBackupReplacesNothing(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "k")
	file, empty, link := filepath.Join(base, "file"), filepath.Join(base, "empty"), filepath.Join(base, "link")
	require.NoError(t, os.WriteFile(file, []byte("theirs"), 0o600))
	require.NoError(t, os.Mkdir(empty, 0o700))
	require.NoError(t, os.Symlink(b.engine.dir, link))
	dangling := filepath.Join(base, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(base, "nowhere"), dangling))
	before := storetest.State(t, base)
	delete(before, base)
	own := b.engine.dir
	for _, dir := range []string{
		file, empty, base, dangling, own, filepath.Join(own, "copy"), filepath.Join(own, dbName, "copy"),
		filepath.Join(link, "copy"), filepath.Join(link, dbName, "copy") + "/",
	} {
		err := b.Backup(t.Context(), dir)
		require.ErrorIs(t, err, idem.ErrInvalid, dir)
		require.NotContains(t, err.Error(), "\n")
	}
	require.ErrorIs(t, b.Backup(t.Context(), filepath.Join(base, "no", "folder")), fs.ErrNotExist)
	after := storetest.State(t, base)
	delete(after, base)
	require.Equal(t, before, after)
	for _, name := range storetest.Names(t, own) {
		require.NotContains(t, name, "copy")
	}
	storetest.Claim(t, s, "the store lives")
}

// A name that is taken while the copy is made is not taken over.
func TestBackupLosesARace(t *testing.T) {
	t.Parallel()
	_, b := newStore(t, Options{}, idem.Options{})
	dir := filepath.Join(t.TempDir(), "copy")
	ctx := engine.WithProgress(t.Context(), func(int64, int64) { _ = os.Mkdir(dir, 0o700) })
	require.ErrorIs(t, b.Backup(ctx, dir), idem.ErrInvalid)
	require.Empty(t, storetest.Names(t, dir))
	require.Equal(t, []string{"copy"}, storetest.Names(t, filepath.Dir(dir)))
}

// What ends a backup leaves nothing of it, whenever it comes.
func TestBackupThatEndsEarlyLeavesNothing(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{MinFree: -1}, idem.Options{})
	for i := range 5 {
		require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
			return batch.Set(fmt.Append(nil, "own/", i), make([]byte, 1<<20), nil)
		}))
	}
	count := 0
	counting := engine.WithProgress(t.Context(), func(int64, int64) { count++ })
	require.NoError(t, b.Backup(counting, filepath.Join(t.TempDir(), "copy")))
	require.Greater(t, count, 4)
	for at := 1; at <= count; at++ {
		base := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := b.Backup(engine.WithProgress(ctx, func(int64, int64) {
			if n++; n == at {
				cancel()
			}
		}), filepath.Join(base, "copy"))
		require.ErrorIs(t, err, context.Canceled, "%d of %d", at, count)
		require.Empty(t, storetest.Names(t, base))
		cancel()
	}
	base := t.TempDir()
	closed := make(chan error, 1)
	n := 0
	err := b.Backup(engine.WithProgress(t.Context(), func(int64, int64) {
		if n++; n > 1 {
			return
		}
		go func() { closed <- s.Close() }()
		for b.Intact() == nil {
			runtime.Gosched()
		}
	}), filepath.Join(base, "copy"))
	require.ErrorIs(t, err, idem.ErrClosed)
	require.NoError(t, <-closed)
	require.ErrorIs(t, b.Backup(t.Context(), filepath.Join(base, "copy")), idem.ErrClosed)
	require.Empty(t, storetest.Names(t, base))
}

func TestABrokenStoreMakesNoBackup(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "k")
	base := t.TempDir()
	err := b.Backup(engine.WithProgress(t.Context(), func(int64, int64) { _ = b.Break(errInjected) }), filepath.Join(base, "copy"))
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, errInjected)
	require.Empty(t, storetest.Names(t, base))
}

func TestBackupOfADamagedRecord(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	damage(t, dir, vfs.Default, "b")
	s := storeAt(t, dir, idem.Options{})
	b, err := From(s)
	require.NoError(t, err)
	base := t.TempDir()
	err = b.Backup(t.Context(), filepath.Join(base, "copy"))
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, s.KeyHash("b"))
	require.Empty(t, storetest.Names(t, base))
	require.NoError(t, s.Forget(t.Context(), idem.Token{Key: "b"}))
	require.NoError(t, b.Backup(t.Context(), filepath.Join(base, "copy")))
}

// Whatever call on the copy's files fails: the backup fails, leaves nothing, and is no
// matter of the store's.
func TestBackupOntoADiskThatFails(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	s := f.open(t)
	defer func() { require.NoError(t, s.Close()) }()
	b, err := From(s)
	require.NoError(t, err)
	storetest.Complete(t, s, "k", "r")
	calls := 0
	counting := func(op errorfs.Op) bool {
		changes := op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, ".new-")
		if changes {
			calls++
		}
		return changes
	}
	f.on(func(op errorfs.Op) error { counting(op); return nil })
	require.NoError(t, b.Backup(t.Context(), "/copy"))
	total := calls
	require.Greater(t, total, 10)
	for at := 1; at <= total; at++ {
		calls = 0
		f.on(failing(syscall.ENOSPC, func(op errorfs.Op) bool {
			return counting(op) && calls >= at && op.Kind != errorfs.OpRemoveAll && op.Kind != errorfs.OpRemove
		}))
		var err error
		within(t, fmt.Sprintf("a backup whose call %d of %d fails", at, total), func() {
			err = b.Backup(t.Context(), fmt.Sprint("/copy", at))
		})
		f.on(func(errorfs.Op) error { return nil })
		if err == nil {
			continue // the call was one that need not succeed
		}
		require.ErrorContains(t, err, syscall.ENOSPC.Error(), "call %d", at)
		names, listErr := f.mem.List("/")
		require.NoError(t, listErr)
		for _, name := range names {
			require.NotContains(t, name, fmt.Sprint("copy", at), "call %d", at)
		}
		storetest.Complete(t, s, fmt.Sprint("k", at), "r")
	}
}

// A full disk for backups, in earnest.
func TestBackupToAFullDisk(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{MinFree: -1}, idem.Options{})
	require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
		return batch.Set([]byte("own"), []byte(strings.Repeat("0123456789abcdef", 1<<17)), nil)
	}))
	storetest.Claim(t, s, "k")
	disk := storetest.SmallDisk(t, 64<<10)
	err := b.Backup(t.Context(), filepath.Join(disk, "copy"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Empty(t, storetest.Names(t, disk))
	storetest.Claim(t, s, "the store lives")

	disk = storetest.SmallDisk(t, 64<<20)
	dir := filepath.Join(disk, "copy")
	require.NoError(t, b.Backup(t.Context(), dir))
	other := storeAt(t, dir, idem.Options{})
	storetest.Refused(t, other, "k", idem.ErrInFlight)
	require.NoError(t, other.Close())
}
