package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// A backup holds the caller's own data too, of every kind that Pebble has, and opens with
// the options of the store.
func TestBackupOfOwnData(t *testing.T) {
	race.Skip(t)
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
func TestBackupInSeveralTables(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	s, b := newStore(t, Options{MinFree: -1}, idem.Options{})
	b.engine.tableBytes = 1
	rng := rand.New(rand.NewPCG(1, 2))
	var large [][]byte
	for i := range 4 {
		value := make([]byte, reportBytes)
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		large = append(large, value)
		require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
			return errors.Join(batch.Set(fmt.Append(nil, "own/", i), value, nil),
				batch.RangeKeySet(fmt.Append(nil, "own/", i), fmt.Append(nil, "own/", i, "/"), nil, []byte("range"), nil))
		}))
	}
	storetest.Complete(t, s, "k", "r")
	dir := filepath.Join(t.TempDir(), "copy")
	last, total := int64(0), int64(0)
	require.NoError(t, b.Backup(engine.WithProgress(t.Context(), func(done, of int64) {
		require.GreaterOrEqual(t, done, last)
		require.LessOrEqual(t, done, of)
		last, total = done, of
	}), dir))
	require.Equal(t, total, last)
	tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(tables), 4)
	copied := mustOpen(t, dir, Options{})
	for i, value := range large {
		require.Equal(t, value, get(copied.DB(), fmt.Sprint("own/", i)))
	}
	storetest.Refused(t, storetest.Open(t, copied, idem.Options{}), "k", idem.ErrCompleted)
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
	race.Skip(t)
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
// matter of the store's. Make faults tries each call, otherwise some are chosen.
func TestEveryWriteOfABackupFails(t *testing.T) {
	t.Parallel()
	if only := os.Getenv("IDEM_ROBUSTNESS_CASE"); only != "" {
		t.Skipf("%s was asked for", only)
	}
	f := newFaulty()
	s := f.open(t)
	defer func() { require.NoError(t, s.Close()) }()
	b, err := From(s)
	require.NoError(t, err)
	storetest.Complete(t, s, "k", "r")
	calls := 0
	counting := func(op errorfs.Op) bool {
		of := strings.Contains(op.Path, ".new-") || op.Path == "/" // the folder that it is in
		changes := op.Kind.ReadOrWrite() == errorfs.OpIsWrite && of
		if changes {
			calls++
		}
		return changes
	}
	f.on(func(op errorfs.Op) error { counting(op); return nil })
	require.NoError(t, b.Backup(t.Context(), "/copy"))
	total := calls
	require.Greater(t, total, 10)
	tries := int(storetest.Setting(t, "IDEM_ROBUSTNESS_FAULTS", 20))
	const last = 5 // which give the copy its name
	for at := 1; at <= total; at++ {
		if at <= total-last && rand.IntN(total) >= tries {
			continue
		}
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

// Of two backups to one place at once, one is made and one is refused. Backups to two places
// are both made.
func TestTwoBackupsAtOnce(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, newFilled(t), Options{})
	defer func() { require.NoError(t, b.Close()) }()
	base := t.TempDir()
	names := []string{"one", "one", "two"}
	got := make(chan error, len(names))
	var under sync.WaitGroup
	under.Add(len(names))
	for _, name := range names {
		go func() {
			var begun sync.Once
			got <- b.Backup(engine.WithProgress(context.Background(), func(int64, int64) {
				begun.Do(func() { under.Done(); under.Wait() })
			}), filepath.Join(base, name))
		}()
	}
	refused := 0
	for range names {
		if err := <-got; err != nil {
			require.ErrorIs(t, err, idem.ErrInvalid)
			require.ErrorContains(t, err, filepath.Join(base, "one"))
			refused++
		}
	}
	require.Equal(t, 1, refused)
	require.Equal(t, []string{"one", "two"}, storetest.Names(t, base))
	for _, name := range []string{"one", "two"} {
		s := storeAt(t, filepath.Join(base, name), idem.Options{})
		storetest.Refused(t, s, "c", idem.ErrCompleted)
		require.NoError(t, s.Close())
	}
}

// A store that was moved, or whose place another has taken, vouches for nothing any more. A
// backup of it would be taken for one of the store that is there now, and tables that were
// not read before would be read from that.
func TestAMovedStoreMakesNoBackup(t *testing.T) {
	locksDirectories(t)
	t.Parallel()
	for name, move := range map[string]func(t *testing.T, dir string){
		"moved": func(t *testing.T, dir string) { require.NoError(t, os.Rename(dir, dir+".old")) },
		"replaced by an older copy": func(t *testing.T, dir string) {
			older := killed(t, dir)
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Rename(older, dir))
		},
	} {
		for _, o := range []Options{{}, {ReadOnly: true}} {
			t.Run(fmt.Sprintf("%s, read-only %v", name, o.ReadOnly), func(t *testing.T) {
				t.Parallel()
				base := t.TempDir()
				for _, meanwhile := range []bool{false, true} {
					for _, visit := range []func(ctx context.Context, b *Backend) error{
						func(ctx context.Context, b *Backend) error { return b.Backup(ctx, filepath.Join(base, "copy")) },
						func(ctx context.Context, b *Backend) error { return b.Verify(ctx, func(engine.Damage) {}) },
					} {
						dir := newFilled(t)
						b := mustOpen(t, dir, o)
						n := 0
						ctx := engine.WithProgress(t.Context(), func(int64, int64) {
							if n++; n == 1 && meanwhile {
								move(t, dir)
							}
						})
						if !meanwhile {
							move(t, dir)
						}
						err := visit(ctx, b)
						require.ErrorIs(t, err, idem.ErrBroken)
						require.ErrorContains(t, err, "while the store was open")
						require.Empty(t, storetest.Names(t, base))
						within(t, "Close", func() { _ = b.Close() })
					}
				}
			})
		}
	}
}

// A progress function that panics harms its caller alone.
func TestAPanicInProgressIsTheCallers(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{}, idem.Options{})
	require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
		return batch.Set([]byte("own"), make([]byte, 2*reportBytes), nil)
	}))
	base := t.TempDir()
	ctx := engine.WithProgress(t.Context(), func(int64, int64) { panic("mine") })
	require.PanicsWithValue(t, "mine", func() { _ = b.Backup(ctx, filepath.Join(base, "copy")) })
	require.Empty(t, storetest.Names(t, base))
	require.PanicsWithValue(t, "mine", func() { _ = b.Verify(ctx, func(engine.Damage) {}) })
	require.PanicsWithValue(t, "mine", func() { _ = b.Compact(ctx) })
	storetest.Claim(t, s, "the store lives")
	require.NoError(t, s.Close(), "nothing is open")
}
