package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

// grown is a file with branch pages, overflow pages, and buckets in buckets, small
// and large.
func grown(t *testing.T) []byte {
	path := newFilled(t, 900)
	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{})
	c := storetest.Claim(t, s, "large")
	require.NoError(t, s.Complete(context.Background(), c.Token, make([]byte, 20_000)))
	require.NoError(t, b.Update(context.Background(), func(tx *bbolt.Tx) error {
		outer, err := tx.CreateBucket(own)
		require.NoError(t, err)
		_, err = outer.CreateBucket([]byte("small"))
		require.NoError(t, err)
		return outer.Put([]byte("z"), []byte("value"))
	}))
	require.NoError(t, s.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

// Each byte of every fifth page's header and first elements, changed in turn: the check
// finds it or it does no harm, and it never fails itself.
func TestCheckOfEachByte(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	content := grown(t)
	meta, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	require.NoError(t, checkFile(bytes.NewReader(content), meta))
	found := 0
	for page := uint64(2); page < meta.pages; page += 5 {
		for at := page * meta.pageSize; at < page*meta.pageSize+pageHeader+3*elementSize; at++ {
			for _, bits := range []byte{0x01, 0x80} {
				content[at] ^= bits
				if checkFile(bytes.NewReader(content), meta) != nil {
					found++
				}
				content[at] ^= bits
			}
		}
	}
	require.Greater(t, found, 100)
	require.NoError(t, checkFile(bytes.NewReader(content), meta), "put back")
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	content := grown(t)
	good, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	for name, m := range map[string]metaPage{
		"a page size":           {pageSize: 3, root: good.root, pages: good.pages},
		"a root out of bounds":  {pageSize: good.pageSize, root: good.pages, pages: good.pages},
		"a root that is a meta": {pageSize: good.pageSize, root: 1, pages: good.pages},
		"too few pages":         {pageSize: good.pageSize, root: good.root, pages: 3},
	} {
		require.Error(t, checkFile(bytes.NewReader(content), &m), name)
	}
	require.Error(t, checkFile(bytes.NewReader(content[:good.pageSize*3]), good), "the file ends")

	c := newTreeCheck(bytes.NewReader(content), good)
	page := func(data, low, high []byte, depth int) error {
		return c.node(&node{id: 7, data: data, size: uint64(len(data))}, low, high, depth)
	}
	require.Error(t, c.tree(good.root, nil, nil, maxDepth+1), "too deep")
	require.Error(t, page(make([]byte, 3), nil, nil, 0), "a page without a header")

	leaf := func(flags uint32, key, value string) []byte {
		ne := binary.NativeEndian
		p := make([]byte, pageHeader+elementSize, 200)
		ne.PutUint16(p[8:], leafPage)
		ne.PutUint16(p[10:], 1)
		ne.PutUint32(p[pageHeader:], flags)
		ne.PutUint32(p[pageHeader+4:], elementSize)
		ne.PutUint32(p[pageHeader+8:], uint32(len(key)))
		ne.PutUint32(p[pageHeader+12:], uint32(len(value)))
		return append(append(p, key...), value...)
	}
	require.NoError(t, page(leaf(0, "k", "v"), nil, nil, 0))
	require.Error(t, page(leaf(bucketLeaf, "k", "short"), nil, nil, 0), "a bucket too short")
	require.Error(t, page(leaf(bucketLeaf, "k", string(make([]byte, bucketSize))), nil, nil, maxDepth+1), "buckets too deep")
	require.Error(t, page(leaf(0, "k", "v"), []byte("m"), nil, 0), "a key below its parent's")
	require.Error(t, page(leaf(0, "z", "v"), []byte("m"), nil, 0), "it begins with another key than its parent says")
	require.Error(t, page(leaf(0, "k", "v"), nil, []byte("k"), 0), "a key of the next page")
}

// Whatever is done to a bbolt file, the check finds nothing: puts and removals of
// every order and size, buckets in buckets, made and removed, in many commits.
func TestCheckOfWholeFiles(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	files := 30
	if testing.Short() {
		files = 5
	}
	deepest := 0
	for seed := range uint64(files) {
		rng := rand.New(rand.NewPCG(seed, 12))
		path := filepath.Join(t.TempDir(), fileName)
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 24})
		require.NoError(t, err)
		k := &shuffler{rng: rng, keys: 1 + rng.IntN(3000), size: 1 + rng.IntN(3000), order: rng.IntN(3)}
		batch := 1 + rng.IntN(200)
		for range 40 {
			require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
				for range 1 + rng.IntN(batch) {
					if err := k.change(tx); err != nil {
						return err
					}
				}
				return nil
			}))
			f, err := os.Open(path)
			require.NoError(t, err)
			meta, _, err := readMetas(f)
			require.NoError(t, err)
			require.NoError(t, checkFile(f, meta), "file %d", seed)
			require.NoError(t, f.Close())
		}
		deepest = max(deepest, depth(t, db))
		require.NoError(t, db.Close())
	}
	require.GreaterOrEqual(t, deepest, 3)
}

// depth is how many pages lie one below the other in some bucket.
func depth(t *testing.T, db *bbolt.DB) (deepest int) {
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			deepest = max(deepest, b.Stats().Depth)
			return nil
		})
	}))
	return deepest
}

// shuffler changes buckets at random.
type shuffler struct {
	rng               *rand.Rand
	keys, size, order int
	last              uint64
}

func (k *shuffler) key() []byte {
	if k.order == 1 {
		k.last++
		return binary.BigEndian.AppendUint64(nil, k.last)
	}
	key := binary.BigEndian.AppendUint32(nil, uint32(k.rng.IntN(k.keys)))
	return append(key, bytes.Repeat([]byte{7}, k.rng.IntN(2)*k.rng.IntN(600))...)
}

func (k *shuffler) change(tx *bbolt.Tx) error {
	name := []byte{byte(k.rng.IntN(3))}
	p := k.rng.IntN(1000)
	if p == 0 && tx.Bucket(name) != nil {
		return tx.DeleteBucket(name)
	}
	b, err := tx.CreateBucketIfNotExists(name)
	if err == nil && k.rng.IntN(4) == 0 {
		b, err = b.CreateBucketIfNotExists([]byte{0xff, byte(k.rng.IntN(2))})
	}
	if err != nil || p < 600 {
		return errors.Join(err, b.Put(k.key(), make([]byte, k.rng.IntN(k.size))))
	}
	for range 1 + k.rng.IntN(3) { // the first ones often: pages then begin with another key
		c := b.Cursor()
		at, value := c.First()
		if k.order == 0 {
			at, value = c.Seek(k.key())
		}
		if at != nil && value != nil {
			if err := c.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// thousands is a file of over a thousand pages: small values, large ones, buckets in
// a bucket.
func thousands(t testing.TB, path string, large int) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 26})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		small, err := tx.CreateBucket([]byte("small"))
		require.NoError(t, err)
		for i := range uint32(20_000) {
			require.NoError(t, small.Put(binary.BigEndian.AppendUint32(nil, i), make([]byte, 200)))
		}
		big, err := tx.CreateBucket([]byte("large"))
		require.NoError(t, err)
		for i := range uint32(large) {
			require.NoError(t, big.Put(binary.BigEndian.AppendUint32(nil, i), make([]byte, 1<<20)))
		}
		outer, err := tx.CreateBucket([]byte("outer"))
		require.NoError(t, err)
		for i := range uint32(2000) {
			b, err := outer.CreateBucket(binary.BigEndian.AppendUint32(nil, i))
			require.NoError(t, err)
			require.NoError(t, b.Put([]byte("k"), []byte("v")))
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

// What the check allocates depends on how deep the trees are, not on how large the
// file is. It runs alone: others would count too.
func TestCheckAllocatesLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), fileName)
	thousands(t, path, 16)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	meta, _, err := readMetas(f)
	require.NoError(t, err)
	require.Greater(t, meta.pages, uint64(5000))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, checkFile(f, meta))
	runtime.ReadMemStats(&after)
	bytes, count := after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs
	t.Logf("%d pages: %d bytes, %d allocations", meta.pages, bytes, count)
	// Up to four large values share a page with its overflow: the buffer reaches to the
	// last key there.
	require.Less(t, bytes, meta.pages*meta.pageSize/4)
	require.Less(t, bytes, uint64(6<<20))
	require.Less(t, count, meta.pages/50)
}
