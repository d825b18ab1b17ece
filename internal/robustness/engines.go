package robustness

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/pebble"
)

// Engines are the names of the engines that outlive their process.
var Engines = []string{"bolt", "pebble"}

// Sizes are chosen so that what is rare in small stores happens: the growth of
// maps, flushes, compactions.
type Sizes struct {
	Map      int   `json:"map,omitempty"`      // bolt.Options.MapSize
	MemTable int64 `json:"memTable,omitempty"` // pebble.Options.MemTableBytes
}

// Open opens the store at path on the named engine.
func Open(engine, path string, z Sizes, o idem.Options) (s oracle.Subject, err error) {
	o.Stall = cmp.Or(o.Stall, -1) // on a busy machine a commit takes any time
	switch engine {
	case "bolt":
		b, err := bolt.Open(path, bolt.Options{MapSize: z.Map, MinFree: -1})
		if err != nil {
			return s, err
		}
		return onBolt(b, o)
	case "pebble":
		b, err := pebble.Open(path, pebble.Options{CacheBytes: 1 << 20, MemTableBytes: z.MemTable, MinFree: -1})
		if err != nil {
			return s, err
		}
		return onPebble(b, o)
	}
	return s, fmt.Errorf("there is no engine %q", engine)
}

// work says what the engine under s has done that is not the commits themselves.
func work(s oracle.Subject) (flushes, compactions, size int64) {
	switch b := engine.Of(s.Store).(type) {
	case *bolt.Backend:
		size, _ = b.Size() // 0 when it is closed
	case *pebble.Backend:
		m := b.DB().Metrics()
		flushes, compactions, size = m.Flush.Count, m.Compact.Count, int64(m.DiskSpaceUsage())
	}
	return flushes, compactions, size
}

var bucket = []byte("ledger")

// boltKV is the caller's own bucket.
type boltKV struct{ tx *bbolt.Tx }

func (k boltKV) Get(key string) []byte {
	b := k.tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	return b.Get([]byte(key))
}

func (k boltKV) Put(key string, value []byte) {
	b, err := k.tx.CreateBucketIfNotExists(bucket)
	if err == nil {
		err = b.Put([]byte(key), value)
	}
	if err != nil {
		panic(err)
	}
}

func onBolt(b *bolt.Backend, o idem.Options) (oracle.Subject, error) {
	return oracle.NewSubject(b, o, oracle.Doors[*bbolt.Tx]{
		Do: bolt.Do, Complete: bolt.Complete, Update: b.Update,
		KV: func(tx *bbolt.Tx) oracle.KV { return boltKV{tx} },
		Own: func(yield func(string, []byte)) error {
			return b.DB().View(func(tx *bbolt.Tx) error {
				if tx.Bucket(bucket) == nil {
					return nil
				}
				return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
					yield(string(k), v)
					return nil
				})
			})
		},
	})
}

const ownPrefix = "ledger/"

// pebbleKV is the caller's own keys.
type pebbleKV struct{ batch *pebbledb.Batch }

func (k pebbleKV) Get(key string) []byte {
	stored, closer, err := k.batch.Get([]byte(ownPrefix + key))
	if errors.Is(err, pebbledb.ErrNotFound) {
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

func (k pebbleKV) Put(key string, value []byte) {
	if err := k.batch.Set([]byte(ownPrefix+key), value, nil); err != nil {
		panic(err)
	}
}

func onPebble(b *pebble.Backend, o idem.Options) (oracle.Subject, error) {
	return oracle.NewSubject(b, o, oracle.Doors[*pebbledb.Batch]{
		Do: pebble.Do, Complete: pebble.Complete, Update: b.Update,
		KV: func(b *pebbledb.Batch) oracle.KV { return pebbleKV{b} },
		Own: func(yield func(string, []byte)) error {
			it, err := b.DB().NewIter(&pebbledb.IterOptions{LowerBound: []byte(ownPrefix), UpperBound: []byte("ledger0")})
			if err != nil {
				return err
			}
			for ok := it.First(); ok; ok = it.Next() {
				yield(string(it.Key()[len(ownPrefix):]), it.Value())
			}
			return errors.Join(it.Error(), it.Close())
		},
	})
}
