package contenders

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// The buckets of idem's bolt engine; docs/FORMAT.md.
var (
	boltRecords = []byte("idem.records")
	boltExpiry  = []byte("idem.expiry")
	boltMeta    = []byte("idem.meta")
)

// errTaken is returned by a contender that finds the key of a claim there already.
var errTaken = errors.New("the key of a claim is taken")

// openBolt opens or makes a bbolt file with the options of idem's bolt engine.
func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         time.Second,
		InitialMmapSize: 64 << 20,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{boltRecords, boltExpiry, boltMeta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// bareBolt is bbolt with the bytes of idem and nothing around it.
type bareBolt struct {
	db     *bbolt.DB
	stamps *stamps
}

func newBareBolt(dir string, _ Workload) (*bareBolt, error) {
	return bareBoltAt(filepath.Join(dir, "raw.db"))
}

// filledBareBolt opens a file that idem filled.
func filledBareBolt(dir string, w Workload) (*bareBolt, error) {
	if err := w.Filled.Into(dir, "bolt", w); err != nil {
		return nil, err
	}
	return bareBoltAt(filepath.Join(dir, "idem.db"))
}

func bareBoltAt(path string) (*bareBolt, error) {
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	return &bareBolt{db: db, stamps: newStamps()}, nil
}

// put writes the record and the place of a step.
func (b *bareBolt) put(tx *bbolt.Tx, t *step) error {
	if len(t.place) > 0 {
		if err := tx.Bucket(boltExpiry).Put(t.place, nil); err != nil {
			return err
		}
	}
	return tx.Bucket(boltRecords).Put([]byte(t.key), t.value)
}

func (b *bareBolt) putMeta(tx *bbolt.Tx) error {
	return tx.Bucket(boltMeta).Put([]byte(codec.MetaKey), b.stamps.meta(nil))
}

// claimOrPut is put for those who do not know that nobody else has the key.
func (b *bareBolt) claimOrPut(tx *bbolt.Tx, t *step) error {
	if len(t.place) > 0 && tx.Bucket(boltRecords).Get([]byte(t.key)) != nil {
		return errTaken
	}
	return b.put(tx, t)
}

// boltGroup is the writes of a group: sorted, neighbours share pages that are in
// the processor's cache.
type boltGroup struct{ records, places []boltPair }

type boltPair struct{ key, value []byte }

func (b *bareBolt) grouped() func(*step) error {
	return newGroup(
		func(g *boltGroup, t *step) {
			g.records = append(g.records, boltPair{key: []byte(t.key), value: t.value}) // the step waits for its group
			if len(t.place) > 0 {
				g.places = append(g.places, boltPair{key: t.place})
			}
		},
		func(g *boltGroup) error {
			err := b.db.Update(func(tx *bbolt.Tx) error {
				if err := putSorted(tx.Bucket(boltRecords), g.records); err != nil {
					return err
				}
				if err := putSorted(tx.Bucket(boltExpiry), g.places); err != nil {
					return err
				}
				return b.putMeta(tx)
			})
			g.records, g.places = g.records[:0], g.places[:0]
			return err
		},
	).do
}

func putSorted(b *bbolt.Bucket, writes []boltPair) error {
	slices.SortFunc(writes, func(a, b boltPair) int { return bytes.Compare(a.key, b.key) })
	for _, w := range writes {
		if err := b.Put(w.key, w.value); err != nil {
			return err
		}
	}
	return nil
}

// boltCycle is a contender that makes a file and commits steps as how says.
func boltCycle(name, does string, how func(*bareBolt) func(*step) error) Contender {
	return Contender{Name: name, Does: does, Open: opened(newBareBolt, func(b *bareBolt, w Workload) (Instance, error) {
		if name == "raw-bbolt-batch-tuned" {
			// By default a batch with fewer calls than 1,000 waits for its 10 ms, always. Who
			// knows how many callers there are can have the last of them set it off: with half
			// and a quarter of them, or with shorter delays, it was slower.
			b.db.MaxBatchSize = max(1, w.Callers)
		}
		return cycles(w, b.stamps, how(b), b.db.Close)
	})}
}

// boltSteps commits each step by itself, with write.
func boltSteps(update func(*bbolt.DB, func(*bbolt.Tx) error) error, write func(*bareBolt, *bbolt.Tx, *step) error) func(*bareBolt) func(*step) error {
	return func(b *bareBolt) func(*step) error {
		return func(t *step) error { return update(b.db, func(tx *bbolt.Tx) error { return write(b, tx, t) }) }
	}
}

// boltTwo commits each step blindly.
var boltTwo = boltSteps((*bbolt.DB).Update, (*bareBolt).put)

func boltCycles() []Contender {
	batch := boltSteps((*bbolt.DB).Batch, (*bareBolt).claimOrPut)
	return []Contender{
		boltCycle("raw-bbolt-grouped", "the record, index and meta bytes of idem; callers share an Update, its writes sorted", (*bareBolt).grouped),
		boltCycle("raw-bbolt-two", "two Updates with the record and index bytes of idem, without a look", boltTwo),
		boltCycle("raw-bbolt-update", "each step an Update with the record and index bytes of idem; a claim looks first",
			boltSteps((*bbolt.DB).Update, (*bareBolt).claimOrPut)),
		boltCycle("raw-bbolt-batch", "each step a Batch with the record and index bytes of idem; a claim looks first; bbolt's own MaxBatchSize and MaxBatchDelay, 1,000 and 10 ms", batch),
		boltCycle("raw-bbolt-batch-tuned", "the same with the number of callers as MaxBatchSize: the last of them to come sets the batch off", batch),
	}
}

// boltEffects are what a same-commit effect can gain: all of it in one commit against
// claim and completion in two, with bare bbolt.
func boltEffects() []Contender {
	one := func(b *bareBolt, w Workload) (Instance, error) {
		steps, result := make([]step, w.Callers), w.Result()
		return Instance{
			Op: func(worker int, n uint64) error {
				t, key := &steps[worker], Fresh(worker, n)
				t.claim(b.stamps, key)
				place := t.place // a completed record keeps its claim's place
				t.complete(result)
				t.place = place
				return b.db.Update(func(tx *bbolt.Tx) error {
					return errors.Join(putBolt(tx, key, result), b.put(tx, t), b.putMeta(tx))
				})
			},
			Close: b.db.Close,
		}, nil
	}
	return []Contender{
		{Name: "raw-bbolt-one", Does: "an Update with the record, index and meta bytes of idem and a write of the caller's own, without a look", Open: opened(newBareBolt, one)},
		boltCycle("raw-bbolt-two", "two Updates with the record, index and meta bytes of idem, claim and completion, without a look; no write of the caller's own",
			boltSteps((*bbolt.DB).Update, func(b *bareBolt, tx *bbolt.Tx, t *step) error {
				return errors.Join(b.put(tx, t), b.putMeta(tx))
			})),
	}
}

// boltView looks keys up in a file that idem wrote.
func boltView() Contender {
	return Contender{
		Name: "raw-bbolt-view",
		Does: "View and Get of the record bytes in a file that idem filled, copied out into the caller's buffer",
		Open: opened(filledBareBolt, func(b *bareBolt, w Workload) (Instance, error) {
			db, buffers := b.db, newBuffers(w)
			return lookups(w, recordHead, db.Close, func(worker int, key string) (size int, err error) {
				b := &buffers[worker]
				b.key = append(b.key[:0], key...)
				err = db.View(func(tx *bbolt.Tx) error {
					value := tx.Bucket(boltRecords).Get(b.key)
					if value == nil {
						size = absent
						return nil
					}
					b.b = append(b.b[:0], value...)
					size = len(b.b)
					return nil
				})
				return size, err
			})
		}),
	}
}

// boltDeletes removes the records and places of a file that idem filled.
func boltDeletes() Contender {
	return Contender{
		Name: "raw-bbolt-deletes",
		Does: "each operation an Update that deletes a batch of records and their places, known beforehand, and puts the meta entry",
		Open: opened(filledBareBolt, func(b *bareBolt, w Workload) (Instance, error) {
			var places []engine.Due
			err := b.db.View(func(tx *bbolt.Tx) error {
				return tx.Bucket(boltExpiry).ForEach(func(k, _ []byte) error {
					d, ok := codec.DecodePlace(k)
					if !ok {
						return fmt.Errorf("%w: a place of %d bytes", idem.ErrCorrupt, len(k))
					}
					places = append(places, d)
					return nil
				})
			})
			if err != nil {
				return Instance{}, errors.Join(err, b.db.Close())
			}
			return deletes(w, places, b.db.Close, b.remove)
		}),
	}
}

// remove deletes what stands at places, sorted as idem's engine sorts its writes.
func (b *bareBolt) remove(places []engine.Due) error {
	keys := make([][]byte, len(places))
	for i, p := range places {
		keys[i] = []byte(p.Key)
	}
	slices.SortFunc(keys, bytes.Compare)
	return b.db.Update(func(tx *bbolt.Tx) error {
		records, expiry := tx.Bucket(boltRecords), tx.Bucket(boltExpiry)
		for _, k := range keys {
			if err := records.Delete(k); err != nil {
				return err
			}
		}
		var buf []byte
		for _, p := range places { // in order of time: sorted
			buf = codec.AppendPlace(buf[:0], p)
			if err := expiry.Delete(buf); err != nil {
				return err
			}
		}
		return b.putMeta(tx)
	})
}
