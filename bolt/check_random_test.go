package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// Whatever is done to a bbolt file, the check finds nothing: puts and removals of
// every order and size, buckets in buckets, made and removed, in many commits.
func TestCheckOfWholeFiles(t *testing.T) {
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
