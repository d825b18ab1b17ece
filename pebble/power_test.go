package pebble

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// powerDisk is a file system in memory of which a power cut leaves what was synced
// and some of the rest.
type powerDisk struct {
	mem   *vfs.MemFS
	lying bool // once it is open, logs are not synced
	wrote atomic.Pointer[func()]
}

func (d *powerDisk) MaybeError(op errorfs.Op) error {
	if f := d.wrote.Load(); f != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		(*f)()
	}
	return nil
}

func (d *powerDisk) String() string { return "powerDisk" }

func (d *powerDisk) OnWrite(f func()) {
	if f == nil {
		d.wrote.Store(nil)
		return
	}
	d.wrote.Store(&f)
}

func (d *powerDisk) Crash(rng *rand.Rand) oracle.Disk {
	percent := []int{0, 0, 10, 50, 90, 100}[rng.IntN(6)]
	mem := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	return &powerDisk{mem: mem, lying: d.lying}
}

func (d *powerDisk) Open(o idem.Options) (oracle.Subject, error) {
	var lies atomic.Bool
	b, err := Open("store", Options{
		fs: errorfs.Wrap(lyingFS{d.mem, &lies}, d), MinFree: -1, CacheBytes: 1 << 20, MemTableBytes: 32 << 10,
	})
	if err != nil {
		return oracle.Subject{}, err
	}
	lies.Store(d.lying)
	return subject(b, o)
}

// subject is a store on b, as the oracle attacks it.
func subject(b *Backend, o idem.Options) (oracle.Subject, error) {
	return oracle.NewSubject(b, o, oracle.Doors[*pebble.Batch]{
		Do: Do, Complete: Complete, Update: b.Update,
		KV: func(b *pebble.Batch) oracle.KV { return kv{b} },
		Own: func(yield func(string, []byte)) error {
			it, err := b.DB().NewIter(&pebble.IterOptions{LowerBound: []byte("own/"), UpperBound: []byte("own0")})
			if err != nil {
				return err
			}
			for ok := it.First(); ok; ok = it.Next() {
				yield(string(bytes.TrimPrefix(it.Key(), []byte("own/"))), it.Value())
			}
			return errors.Join(it.Error(), it.Close())
		},
	})
}

// lyingFS does not sync logs while lies is set, and says that it does.
type lyingFS struct {
	vfs.FS
	lies *atomic.Bool
}

type lyingFile struct {
	vfs.File
	lies *atomic.Bool
}

func (f lyingFile) Sync() error {
	if f.lies.Load() {
		return nil
	}
	return f.File.Sync()
}

func (f lyingFile) SyncData() error {
	if f.lies.Load() {
		return nil
	}
	return f.File.SyncData()
}

func (f lyingFile) SyncTo(length int64) (full bool, err error) {
	if f.lies.Load() {
		return false, nil
	}
	return f.File.SyncTo(length)
}

func (l lyingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.log(f, name, err)
}

func (l lyingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(old, name, c)
	return l.log(f, name, err)
}

func (l lyingFS) log(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return lyingFile{f, l.lies}, nil
}

func powerCuts(seed uint64, images int, lying bool) *oracle.Cuts {
	return &oracle.Cuts{
		Fresh: func(*rand.Rand) oracle.Disk { return &powerDisk{mem: vfs.NewCrashableMem(), lying: lying} },
		Seed:  seed, Images: images, Every: 6, Lives: 4, Ops: 200,
	}
}

// What was not synced is lost, all or some of it. Make power runs it long.
func TestPower(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	images := uint64(200)
	if testing.Short() {
		images = 40
	}
	images = storetest.Setting(t, "IDEM_ROBUSTNESS_IMAGES", images)
	seed := storetest.Setting(t, "IDEM_ROBUSTNESS_SEED", rand.Uint64N(1<<32))
	if only := os.Getenv("IDEM_ROBUSTNESS_ENGINE"); only != "" && only != "pebble" {
		t.Skip("not the engine asked for")
	}
	c := powerCuts(seed, int(images), false)
	if err := c.Run(); err != nil {
		t.Fatalf("pebble, seed %d: %v\nTry it again:\n\tmake power ENGINE=pebble SEED=%d IMAGES=%d", c.Seed, err, c.Seed, images)
	}
	t.Logf("from seed %d: %d images of %d stores, %d operations", seed, c.Judged, c.Stores, c.Operations)
}

// The oracle would notice a log that is not synced.
func TestPowerNoticesLyingDisks(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	c := powerCuts(1, 2000, true)
	err := c.Run()
	t.Logf("noticed in image %d: %.200v", c.Judged, err)
	var v *oracle.Violation
	require.True(t, errors.As(err, &v) || errors.Is(err, oracle.ErrContradiction), "%v", err)
}

// A marker names the manifest in use. Whatever a power cut leaves, the manifest must
// be there if the marker is.
func TestPowerMarkersNameWhatIsThere(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	markers := 0
	f.on(func(op errorfs.Op) error {
		_, manifest, ok := strings.Cut(op.Path, "/marker.manifest.")
		if !ok || op.Kind != errorfs.OpCreate {
			return nil
		}
		markers++
		_, manifest, _ = strings.Cut(manifest, ".")
		names, err := f.crash(0).List("store/" + dbName)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // and so no marker either
		}
		if err != nil || !slices.Contains(names, manifest) {
			t.Errorf("before %s is made, a power cut leaves %v, %v", op.Path, names, err)
		}
		return nil
	})
	for range 3 {
		require.NoError(t, f.open(t).Close())
	}
	require.GreaterOrEqual(t, markers, 3)
}

// Whatever a power cut leaves of an opening and what follows it can be opened: there is no
// note of a log that is not there yet. The store was closed before, or killed.
func TestPowerWhileOpening(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	for _, how := range []string{"closed", "killed"} {
		f := newFaulty()
		s := f.open(t)
		first := turn(t, s, 0)
		c := storetest.Complete(t, s, "in the log", "")
		first = append(first, c.Token)
		left := &faulty{mem: f.crash(100)}
		require.NoError(t, s.Close())
		if how == "closed" {
			left = f
		}
		var mu sync.Mutex // Pebble compacts next to what opens it
		var images []*vfs.MemFS
		noted := 0
		left.on(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				mu.Lock()
				defer mu.Unlock()
				for _, percent := range []int{0, 50, 100} {
					image := left.crash(percent)
					images = append(images, image)
					if _, err := image.Stat("store/" + noteName); err == nil {
						noted++
					}
				}
			}
			return nil
		})
		s = left.open(t)
		storetest.Claim(t, s, "second")
		require.NoError(t, s.Close())
		require.Greater(t, noted, 3)
		require.Greater(t, len(images)-noted, 3)
		for _, image := range images {
			again := (&faulty{mem: image}).open(t)
			requireCompleted(t, again, first)
			require.NoError(t, again.Close())
		}
	}
}
