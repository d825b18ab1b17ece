package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// A backup holds the caller's own buckets too, and opens with the options of the store.
func TestBackupOfOwnData(t *testing.T) {
	t.Parallel()
	o := Options{MaxSize: 1 << 30}
	s, b := newStore(t, o, idem.Options{})
	storetest.Complete(t, s, "k", "result")
	require.NoError(t, b.Update(t.Context(), func(tx *bbolt.Tx) error {
		outer, err := tx.CreateBucket(own)
		require.NoError(t, err)
		inner, err := outer.CreateBucket([]byte("inner"))
		require.NoError(t, err)
		require.NoError(t, outer.SetSequence(7))
		return inner.Put([]byte("k"), make([]byte, 30_000))
	}))
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, b.Backup(t.Context(), path))
	storetest.Complete(t, s, "later", "result")

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	copied := mustOpen(t, path, o)
	other := storetest.Open(t, copied, idem.Options{})
	require.Equal(t, "result", string(storetest.Refused(t, other, "k", idem.ErrCompleted).Result))
	storetest.Claim(t, other, "later")
	require.NoError(t, copied.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		require.EqualValues(t, 7, tx.Bucket(own).Sequence())
		require.Len(t, tx.Bucket(own).Bucket([]byte("inner")).Get([]byte("k")), 30_000)
		return nil
	}))
	require.Empty(t, found(t, copied))
}

// metaAt returns the meta entry of the file at path.
func metaAt(t *testing.T, path string) (m engine.Meta) {
	t.Helper()
	b := mustOpen(t, path, Options{ReadOnly: true})
	require.NoError(t, b.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) (err error) {
		m, err = codec.DecodeMeta(tx.Bucket(buckets[txbackend.Meta]).Get([]byte(codec.MetaKey)))
		return err
	}))
	require.NoError(t, b.Close())
	return m
}

// The mark is in the copy alone, reading the copy leaves it there, and its first commit
// replaces it.
func TestBackupIsMarkedUntilItIsOpened(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 3)
	b := mustOpen(t, path, Options{})
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, b.Backup(t.Context(), copied))
	require.NoError(t, b.Close())
	require.Zero(t, metaAt(t, path).LostUntil)
	for range 2 {
		require.Equal(t, engine.Restored, metaAt(t, copied).LostUntil)
	}
	again := copied + ".again"
	b = mustOpen(t, copied, Options{ReadOnly: true})
	require.NoError(t, b.Backup(t.Context(), again))
	require.NoError(t, b.Close())
	require.Equal(t, engine.Restored, metaAt(t, again).LostUntil)

	s := storeAt(t, copied, idem.Options{})
	storetest.Claim(t, s, "k")
	left := filepath.Join(t.TempDir(), "left") // as after a kill
	content, err := os.ReadFile(copied)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(left, content, 0o600))
	require.NoError(t, s.Close())
	for _, p := range []string{left, copied} {
		lost := metaAt(t, p).LostUntil
		require.NotZero(t, lost)
		require.NotEqual(t, engine.Restored, lost)
	}
}

func TestBackupReplacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "k")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("theirs"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), link))
	before := storetest.State(t, dir)
	for _, path := range []string{file, dir, link, b.engine.path} {
		err := b.Backup(t.Context(), path)
		require.ErrorIs(t, err, idem.ErrInvalid, path)
		require.ErrorContains(t, err, path)
	}
	require.ErrorIs(t, b.Backup(t.Context(), ""), idem.ErrInvalid)
	require.ErrorIs(t, b.Backup(t.Context(), filepath.Join(dir, "no", "folder")), fs.ErrNotExist)
	require.Equal(t, before, storetest.State(t, dir))
	require.Equal(t, []string{fileName}, storetest.Names(t, filepath.Dir(b.engine.path)))
	storetest.Claim(t, s, "the store lives")
}

// A name that is taken while the copy is made is not taken over.
func TestBackupLosesARace(t *testing.T) {
	t.Parallel()
	_, b := newStore(t, Options{}, idem.Options{})
	path := filepath.Join(t.TempDir(), "copy")
	ctx := engine.WithProgress(t.Context(), func(int64, int64) {
		if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
			t.Error(err)
		}
	})
	require.ErrorIs(t, b.Backup(ctx, path), idem.ErrInvalid)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(content))
	require.Equal(t, []string{"copy"}, storetest.Names(t, filepath.Dir(path)))
}

// What ends a backup leaves nothing of it, whenever it comes.
func TestBackupThatEndsEarlyLeavesNothing(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 900)
	count := 0
	b := mustOpen(t, path, Options{})
	counting := engine.WithProgress(t.Context(), func(done, total int64) {
		count++
		require.LessOrEqual(t, done, total)
	})
	require.NoError(t, b.Backup(counting, filepath.Join(t.TempDir(), "copy")))
	require.Greater(t, count, 4)
	for at := 1; at <= count; at += 1 + count/7 {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := b.Backup(engine.WithProgress(ctx, func(int64, int64) {
			if n++; n == at {
				cancel()
			}
		}), filepath.Join(dir, "copy"))
		require.ErrorIs(t, err, context.Canceled, "%d of %d", at, count)
		require.Empty(t, storetest.Names(t, dir))
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Backup(ctx, path+".copy"), context.Canceled)
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Backup(t.Context(), path+".copy"), idem.ErrClosed)
	require.Equal(t, []string{fileName}, storetest.Names(t, filepath.Dir(path)))
}

func TestCloseEndsABackup(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "k")
	dir := t.TempDir()
	closed := make(chan error, 1)
	n := 0
	err := b.Backup(engine.WithProgress(t.Context(), func(int64, int64) {
		if n++; n > 1 {
			return
		}
		go func() { closed <- s.Close() }()
		for s.Health(context.Background()) == nil || b.Intact() == nil {
			runtime.Gosched()
		}
	}), filepath.Join(dir, "copy"))
	require.ErrorIs(t, err, idem.ErrClosed)
	require.NoError(t, <-closed)
	require.Empty(t, storetest.Names(t, dir))
}

func TestABrokenStoreMakesNoBackup(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "k")
	dir := t.TempDir()
	cause := errors.New("cause")
	err := b.Backup(engine.WithProgress(t.Context(), func(int64, int64) { _ = b.Break(cause) }), filepath.Join(dir, "copy"))
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, b.Backup(t.Context(), filepath.Join(dir, "copy")), idem.ErrBroken)
	require.Empty(t, storetest.Names(t, dir))
}

// A backup holds up no commit, even one for which the file's map must grow; and it is of the
// time when it began.
func TestBackupWhileTheMapGrows(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, newFilled(t, 600), Options{MapSize: 1})
	s := storetest.Open(t, b, idem.Options{})
	path := filepath.Join(t.TempDir(), "copy")
	n := 0
	require.NoError(t, b.Backup(engine.WithProgress(t.Context(), func(int64, int64) {
		if n++; n == 2 {
			grow(t, s)
		}
	}), path))
	require.Greater(t, n, 2)
	require.Empty(t, found(t, b))
	copied := storeAt(t, path, idem.Options{})
	_, err := copied.Get(t.Context(), "large 0")
	require.ErrorIs(t, err, idem.ErrNotFound)
	_, err = copied.Get(t.Context(), keyOf(599))
	require.NoError(t, err)
}

// A bbolt whose map lock cannot be found works too.
func TestBackupOnAnotherLayoutOfBbolt(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{}, idem.Options{})
	b.engine.layout.mapMutex = -1
	storetest.Claim(t, s, "k")
	require.Empty(t, found(t, b))
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, b.Backup(t.Context(), path))
	require.NoError(t, storeAt(t, path, idem.Options{}).Close())
}

// A damaged record makes a backup that is no good; the last good one should stay.
func TestBackupOfADamagedRecord(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 50)
	damage(t, filepath.Dir(path), keyOf(7))
	s := storeAt(t, path, idem.Options{})
	b, err := From(s)
	require.NoError(t, err)
	dir := t.TempDir()
	err = b.Backup(t.Context(), filepath.Join(dir, "copy"))
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, s.KeyHash(keyOf(7)))
	require.Empty(t, storetest.Names(t, dir))
	require.NoError(t, s.Forget(t.Context(), idem.Token{Key: keyOf(7)}))
	require.NoError(t, b.Backup(t.Context(), filepath.Join(dir, "copy")))
}

// A full disk for backups is no matter of the store's.
func TestBackupToAFullDisk(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, newFilled(t, 900), Options{})
	s := storetest.Open(t, b, idem.Options{})
	size, err := b.Size()
	require.NoError(t, err)
	for _, room := range []int64{4096, size / 2} {
		disk := storetest.SmallDisk(t, int(room))
		err = b.Backup(t.Context(), filepath.Join(disk, "copy"))
		require.ErrorIs(t, err, syscall.ENOSPC, "%d bytes", room)
		require.Empty(t, storetest.Names(t, disk))
	}
	for i := range 3 {
		storetest.Complete(t, s, fmt.Sprint("k", i), "r")
	}
	require.NoError(t, s.Health(t.Context()))
	disk := storetest.SmallDisk(t, 64<<20) // another file system
	require.NoError(t, b.Backup(t.Context(), filepath.Join(disk, "copy")))
	copied := storeAt(t, filepath.Join(disk, "copy"), idem.Options{})
	storetest.Refused(t, copied, "k1", idem.ErrCompleted)
	require.NoError(t, copied.Close())
}

func TestBackupInTheFunctionOfView(t *testing.T) {
	t.Parallel()
	_, b := newStore(t, Options{}, idem.Options{})
	err := b.View(t.Context(), func(ctx context.Context, _ *bbolt.Tx) error {
		return b.Backup(ctx, filepath.Join(t.TempDir(), "copy"))
	})
	require.ErrorIs(t, err, idem.ErrInvalid)
}

// Of two backups to one place at once, one is made and one is refused. Backups to two places
// are both made.
func TestTwoBackupsAtOnce(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, newFilled(t, 600), Options{})
	defer func() { require.NoError(t, b.Close()) }()
	dir := t.TempDir()
	paths := []string{"one", "one", "two"}
	got := make(chan error, len(paths))
	var under sync.WaitGroup
	under.Add(len(paths))
	for _, path := range paths {
		go func() {
			var begun sync.Once
			got <- b.Backup(engine.WithProgress(context.Background(), func(int64, int64) {
				begun.Do(func() { under.Done(); under.Wait() })
			}), filepath.Join(dir, path))
		}()
	}
	refused := 0
	for range paths {
		if err := <-got; err != nil {
			require.ErrorIs(t, err, idem.ErrInvalid)
			require.ErrorContains(t, err, filepath.Join(dir, "one"))
			refused++
		}
	}
	require.Equal(t, 1, refused)
	require.Equal(t, []string{"one", "two"}, storetest.Names(t, dir))
	for _, path := range []string{"one", "two"} {
		s := storeAt(t, filepath.Join(dir, path), idem.Options{})
		_, err := s.Get(t.Context(), keyOf(599))
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}

// A store that was moved, or whose place another has taken, vouches for nothing any more. A
// backup of it would be taken for one of the store that is there now.
func TestAMovedStoreMakesNoBackup(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let open files be moved or removed")
	}
	away := func(t *testing.T, path string) { require.NoError(t, os.Rename(path, path+".old")) }
	replaced := func(t *testing.T, path string) {
		require.NoError(t, os.Rename(newFilled(t, 1), path))
	}
	for name, move := range map[string]func(t *testing.T, path string){"moved": away, "replaced": replaced} {
		for _, o := range []Options{{}, {ReadOnly: true}} {
			t.Run(fmt.Sprintf("%s, read-only %v", name, o.ReadOnly), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				for _, meanwhile := range []bool{false, true} {
					path := newFilled(t, 600)
					b := mustOpen(t, path, o)
					n := 0
					ctx := engine.WithProgress(t.Context(), func(int64, int64) {
						if n++; n == 1 && meanwhile {
							move(t, path)
						}
					})
					if !meanwhile {
						move(t, path)
					}
					err := b.Backup(ctx, filepath.Join(dir, "copy"))
					require.ErrorIs(t, err, idem.ErrBroken)
					require.ErrorContains(t, err, "while the store was open")
					require.Empty(t, storetest.Names(t, dir))
					require.ErrorIs(t, b.Verify(t.Context(), func(engine.Damage) {}), idem.ErrBroken)
					_ = b.Close()

					path = newFilled(t, 600)
					b, n = mustOpen(t, path, o), 0
					ctx = engine.WithProgress(t.Context(), func(int64, int64) {
						if n++; n == 1 {
							move(t, path)
						}
					})
					require.ErrorIs(t, b.Verify(ctx, func(engine.Damage) {}), idem.ErrBroken)
					_ = b.Close()
				}
			})
		}
	}
}

// A progress function that panics harms its caller alone: the store goes on, and its pages
// are free again.
func TestAPanicInProgressIsTheCallers(t *testing.T) {
	t.Parallel()
	s, b := newStore(t, Options{MaxSize: 1 << 30}, idem.Options{}) // bbolt then keeps statistics
	storetest.Claim(t, s, "k")
	dir := t.TempDir()
	reading := b.DB().Stats().OpenTxN
	ctx := engine.WithProgress(t.Context(), func(int64, int64) { panic("mine") })
	require.PanicsWithValue(t, "mine", func() { _ = b.Backup(ctx, filepath.Join(dir, "copy")) })
	require.Empty(t, storetest.Names(t, dir))
	require.PanicsWithValue(t, "mine", func() { _ = b.Verify(ctx, func(engine.Damage) {}) })
	require.Equal(t, reading, b.DB().Stats().OpenTxN)
	storetest.Claim(t, s, "the store lives")
	require.NoError(t, s.Close())
}
