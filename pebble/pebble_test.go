package pebble

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// disks are the file systems in memory that conformance runs on, by folder: what a
// killed process leaves can be had of one moment there, while files are removed.
var disks sync.Map // dir → *vfs.MemFS

func diskOf(dir string) *vfs.MemFS {
	disk, _ := disks.LoadOrStore(dir, vfs.NewCrashableMem())
	return disk.(*vfs.MemFS)
}

func harness() idemtest.Harness {
	return idemtest.Harness{
		Open: func(t testing.TB, dir string) engine.Backend {
			t.Cleanup(func() { disks.Delete(dir) })
			return openStallable(t, "store", diskOf(dir))
		},
		OpenAgain: func(_ testing.TB, dir string) error { return openAgain("store", diskOf(dir)) },
		OpenReadOnly: func(t testing.TB, dir string) engine.Backend {
			return mustOpen(t, "store", Options{fs: sharing{FS: diskOf(dir), mem: diskOf(dir)}, ReadOnly: true})
		},
		Backup: func(t testing.TB, b engine.Backend, dir string) string {
			require.NoError(t, b.(*Backend).Backup(t.Context(), "backup"))
			folder := t.TempDir()
			disk := vfs.NewCrashableMem()
			_, err := vfs.Clone(diskOf(dir), disk, "backup", "store")
			require.NoError(t, err)
			disks.Store(folder, disk)
			return folder
		},
		Stall:      stall,
		FailCommit: failCommit,
		Crash: func(t testing.TB, _ engine.Backend, dir string) string {
			left := t.TempDir()
			disks.Store(left, diskOf(dir).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}))
			return left
		},
		Damage: func(t testing.TB, dir, key string) { damage(t, "store", diskOf(dir), key) },
	}
}

// onDisk is the same on the machine's own file system, without crashes. Pebble makes
// and syncs a dozen files whenever it is opened, so that only what opens it rarely
// is run there.
func onDisk() idemtest.Harness {
	store := func(dir string) string { return filepath.Join(dir, "store") }
	return idemtest.Harness{
		Open: func(t testing.TB, dir string) engine.Backend {
			return openStallable(t, store(dir), vfs.Default)
		},
		OpenAgain: func(_ testing.TB, dir string) error { return openAgain(store(dir), vfs.Default) },
		OpenReadOnly: func(t testing.TB, dir string) engine.Backend {
			return mustOpen(t, store(dir), Options{ReadOnly: true})
		},
		Backup: func(t testing.TB, b engine.Backend, _ string) string {
			folder := t.TempDir()
			require.NoError(t, b.(*Backend).Backup(t.Context(), store(folder)))
			return folder
		},
		Stall:      stall,
		FailCommit: failCommit,
		Damage:     func(t testing.TB, dir, key string) { damage(t, store(dir), vfs.Default, key) },
	}
}

// mustOpen opens a store whose memory is small: many are open at once.
func mustOpen(t testing.TB, dir string, o Options) *Backend {
	t.Helper()
	o.CacheBytes = cmp.Or(o.CacheBytes, 8<<20)
	o.MemTableBytes = cmp.Or(o.MemTableBytes, 1<<20)
	b, err := Open(dir, o)
	require.NoError(t, err)
	return b
}

// newStore opens a store of its own for the test.
func newStore(t testing.TB, o Options, so idem.Options) (*idem.Store, *Backend) {
	t.Helper()
	b := mustOpen(t, filepath.Join(t.TempDir(), "store"), o)
	return storetest.Open(t, b, so), b
}

// storeAt opens the store in dir.
func storeAt(t testing.TB, dir string, so idem.Options) *idem.Store {
	t.Helper()
	return storetest.Open(t, mustOpen(t, dir, Options{}), so)
}

// stalls holds the switch of each open engine's file system.
var stalls sync.Map // engine.Backend → *syncSwitch

// syncSwitch is a file system whose logs can be kept from reaching the disk: their
// syncs wait, for real, while Pebble has shown the commit to every reader.
type syncSwitch struct {
	mu      sync.Mutex
	reached chan struct{} // nil: syncs pass
	once    *sync.Once
	free    chan struct{}
}

func (s *syncSwitch) MaybeError(op errorfs.Op) error {
	if !isSync(op) || filepath.Ext(op.Path) != ".log" {
		return nil
	}
	s.mu.Lock()
	reached, once, free := s.reached, s.once, s.free
	s.mu.Unlock()
	if reached != nil {
		once.Do(func() { close(reached) })
		<-free
	}
	return nil
}

func (s *syncSwitch) String() string { return "syncSwitch" }

func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

func openStallable(t testing.TB, dir string, disk vfs.FS) engine.Backend {
	s := &syncSwitch{}
	b := mustOpen(t, dir, Options{fs: errorfs.Wrap(disk, s)})
	stalls.Store(b, s)
	t.Cleanup(func() { stalls.Delete(b) })
	return b
}

func openAgain(dir string, disk vfs.FS) error {
	b, err := Open(dir, Options{fs: disk, LockTimeout: time.Millisecond})
	if err != nil {
		return err
	}
	return b.Close()
}

// sharing is a file system in memory whose locks may be shared, which its own may not.
type sharing struct {
	vfs.FS
	mem *vfs.MemFS
}

// shares counts who has the lock of a disk.
var shares struct {
	sync.Mutex
	of map[*vfs.MemFS]*share
}

type share struct {
	n    int
	lock io.Closer
}

func (s sharing) Lock(name string) (io.Closer, error) {
	shares.Lock()
	defer shares.Unlock()
	sh := shares.of[s.mem]
	if sh == nil {
		lock, err := s.FS.Lock(name)
		if err != nil {
			return nil, err
		}
		if shares.of == nil {
			shares.of = map[*vfs.MemFS]*share{}
		}
		sh = &share{lock: lock}
		shares.of[s.mem] = sh
	}
	sh.n++
	return unshare(func() error {
		shares.Lock()
		defer shares.Unlock()
		if sh.n--; sh.n > 0 {
			return nil
		}
		delete(shares.of, s.mem)
		return sh.lock.Close()
	}), nil
}

type unshare func() error

func (u unshare) Close() error { return u() }

func stall(t testing.TB, b engine.Backend) (<-chan struct{}, func()) {
	found, _ := stalls.Load(b)
	s := found.(*syncSwitch)
	reached, free := make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	s.reached, s.once, s.free = reached, new(sync.Once), free
	s.mu.Unlock()
	var end sync.Once
	release := func() {
		end.Do(func() {
			s.mu.Lock()
			s.reached = nil
			s.mu.Unlock()
			close(free)
		})
	}
	t.Cleanup(release)
	return reached, release
}

var errInjected = errors.New("injected: input/output error")

func failCommit(_ testing.TB, b engine.Backend) {
	e := b.(*Backend).engine
	hook := func() error { e.afterCommit.Store(nil); return errInjected }
	e.afterCommit.Store(&hook)
}

func damage(t testing.TB, dir string, disk vfs.FS, key string) {
	db, err := pebble.Open(disk.PathJoin(dir, dbName), &pebble.Options{FS: disk, FormatMajorVersion: format, Logger: newFatal()})
	require.NoError(t, err)
	k := appendKey(nil, txbackend.Records, key)
	stored, closer, err := db.Get(k)
	require.NoError(t, err, "no record of that key")
	value := bytes.Clone(stored)
	require.NoError(t, closer.Close())
	value[len(value)/2] ^= 1 << 3
	require.NoError(t, db.Set(k, value, pebble.Sync))
	require.NoError(t, db.Close())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, harness())
}

func TestEffects(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]idemtest.Harness{"in memory": harness(), "on disk": onDisk()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idemtest.RunEffects(t, h, effects())
		})
	}
}

func effects() idemtest.Effects {
	return idemtest.Effects{
		Do: func(ctx context.Context, s *idem.Store, r idem.Request, fn func(idemtest.KV) ([]byte, error)) ([]byte, bool, error) {
			return Do(ctx, s, r, func(_ context.Context, b *pebble.Batch) ([]byte, error) { return fn(kv{b}) })
		},
		Complete: func(ctx context.Context, s *idem.Store, token idem.Token, fn func(idemtest.KV) ([]byte, error)) error {
			return Complete(ctx, s, token, func(_ context.Context, b *pebble.Batch) ([]byte, error) { return fn(kv{b}) })
		},
		Update: func(ctx context.Context, b engine.Backend, fn func(idemtest.KV) error) error {
			return b.(*Backend).Update(ctx, func(b *pebble.Batch) error { return fn(kv{b}) })
		},
		Get: func(t testing.TB, b engine.Backend, key string) []byte {
			return get(b.(*Backend).DB(), "own/"+key)
		},
	}
}

// kv is the caller's own keys.
type kv struct{ batch *pebble.Batch }

func (k kv) Get(key string) []byte { return get(k.batch, "own/"+key) }

func (k kv) Put(key string, value []byte) {
	if err := k.batch.Set([]byte("own/"+key), value, nil); err != nil {
		panic(err)
	}
}

func get(r pebble.Reader, key string) []byte {
	stored, closer, err := r.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		panic(err)
	}
	value := bytes.Clone(stored)
	if err := closer.Close(); err != nil {
		panic(err)
	}
	return value
}
