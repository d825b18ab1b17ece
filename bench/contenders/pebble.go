package contenders

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// The keys of idem's pebble engine begin so; docs/FORMAT.md.
const (
	pebbleRecords = "idem\x00r"
	pebbleExpiry  = "idem\x00x"
	pebbleMeta    = "idem\x00m" + codec.MetaKey
)

// openPebble opens or makes a database with the options of idem's pebble engine.
// A new one is opened twice, as idem does it: the first log of a database has no
// sync chunks.
func openPebble(dir string) (*pebble.DB, error) {
	cache := pebble.NewCache(PebbleCacheBytes)
	defer cache.Unref()
	open := func() (*pebble.DB, error) {
		o := &pebble.Options{
			Cache:                      cache,
			FormatMajorVersion:         pebble.FormatWALSyncChunks,
			MemTableSize:               16 << 20,
			CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
			Logger:                     quiet{},
		}
		for i := range o.Levels {
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
		return pebble.Open(dir, o)
	}
	db, err := open()
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return open()
}

// quiet is a logger that says nothing but the end, which a lost sync is.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("bench: Pebble: " + fmt.Sprintf(format, args...))
}

// barePebble is Pebble with the bytes of idem and nothing around it.
type barePebble struct {
	db     *pebble.DB
	stamps *stamps
}

func newBarePebble(dir string, _ Workload) (*barePebble, error) {
	return barePebbleAt(filepath.Join(dir, "raw"))
}

// filledBarePebble opens a database that idem filled.
func filledBarePebble(dir string, w Workload) (*barePebble, error) {
	if err := w.Filled.Into(dir, "pebble", w); err != nil {
		return nil, err
	}
	return barePebbleAt(filepath.Join(dir, "idem", "db"))
}

func barePebbleAt(dir string) (*barePebble, error) {
	db, err := openPebble(dir)
	if err != nil {
		return nil, err
	}
	return &barePebble{db: db, stamps: newStamps()}, nil
}

// set puts the record and the place of a step into a batch.
func (b *barePebble) set(batch *pebble.Batch, t *step) error {
	if len(t.place) > 0 {
		if err := setKey(batch, pebbleExpiry, string(t.place), nil); err != nil {
			return err
		}
	}
	return setKey(batch, pebbleRecords, t.key, t.value)
}

// setKey writes key and value straight into the batch.
func setKey(batch *pebble.Batch, space, key string, value []byte) error {
	op := batch.SetDeferred(len(space)+len(key), len(value))
	copy(op.Key[copy(op.Key, space):], key)
	copy(op.Value, value)
	return op.Finish()
}

func (b *barePebble) setMeta(batch *pebble.Batch) error {
	var meta [64]byte
	return setKey(batch, pebbleMeta, "", b.stamps.meta(meta[:0]))
}

// two commits each step blindly.
func (b *barePebble) two() func(*step) error { return b.commit }

func (b *barePebble) commit(t *step) error {
	batch := b.db.NewBatch()
	if err := b.set(batch, t); err != nil {
		return err
	}
	return errors.Join(batch.Commit(pebble.Sync), batch.Close())
}

// grouped makes one batch of a group.
func (b *barePebble) grouped() func(*step) error {
	return newGroup(
		func(g *[]*step, t *step) { *g = append(*g, t) }, // the step waits for its group
		func(g *[]*step) error {
			batch := b.db.NewBatch()
			for _, t := range *g {
				if err := b.set(batch, t); err != nil {
					return err
				}
			}
			*g = (*g)[:0]
			if err := b.setMeta(batch); err != nil {
				return err
			}
			return errors.Join(batch.Commit(pebble.Sync), batch.Close())
		},
	).do
}

// stripes is how many locks the claims of one key after the other share.
const stripes = 1024

// perOp commits each step by itself, as somebody does who knows Pebble's commits
// to be grouped in its log: a lock of the key, a look, a synced write.
func (b *barePebble) perOp() func(*step) error {
	var locks [stripes]struct {
		sync.Mutex
		_ [56]byte
	}
	seed := maphash.MakeSeed()
	return func(t *step) error {
		lock := &locks[maphash.String(seed, t.key)%stripes]
		lock.Lock()
		defer lock.Unlock()
		if len(t.place) == 0 {
			return b.db.Set(append([]byte(pebbleRecords), t.key...), t.value, pebble.Sync)
		}
		if _, closer, err := b.db.Get(append([]byte(pebbleRecords), t.key...)); err == nil {
			return errors.Join(errTaken, closer.Close())
		} else if !errors.Is(err, pebble.ErrNotFound) {
			return err
		}
		return b.commit(t)
	}
}

func pebbleCycles() []Contender {
	cycle := func(name, does string, how func(*barePebble) func(*step) error) Contender {
		return Contender{Name: name, Does: does, Open: opened(newBarePebble, func(b *barePebble, w Workload) (Instance, error) {
			return cycles(w, b.stamps, how(b), b.db.Close)
		})}
	}
	return []Contender{
		cycle("raw-pebble-grouped", "the record, index and meta bytes of idem; callers share a batch and its sync", (*barePebble).grouped),
		cycle("raw-pebble-two", "two synced batches with the record and index bytes of idem, without a look or a lock; Pebble shares the sync", (*barePebble).two),
		cycle("raw-pebble-per-op", "each step a synced write of the record and index bytes of idem under one of 1,024 locks; a claim looks first", (*barePebble).perOp),
	}
}

// pebbleReads looks keys up in a database that idem wrote.
func pebbleReads() []Contender {
	read := func(name, does string, find func(db *pebble.DB, dst, key []byte) (value []byte, err error)) Contender {
		return Contender{Name: name, Does: does, Open: opened(filledBarePebble, func(b *barePebble, w Workload) (Instance, error) {
			db, buffers := b.db, newBuffers(w)
			return lookups(w, recordHead, db.Close, func(worker int, key string) (int, error) {
				b := &buffers[worker]
				b.key = append(append(b.key[:0], pebbleRecords...), key...)
				value, err := find(db, b.b[:0], b.key)
				if err != nil || value == nil {
					return absent, err
				}
				b.b = value
				return len(value), nil
			})
		})}
	}
	return []Contender{
		read("raw-pebble-get", "Get of the record bytes in a database that idem filled, copied out into the caller's buffer", pebbleGet),
		read("raw-pebble-seek", "the same by SeekPrefixGE of an iterator that uses the filters of the last level too", pebbleSeek),
	}
}

// pebbleGet appends the value of key to dst; nil if there is none.
func pebbleGet(db *pebble.DB, dst, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			err = nil
		}
		return nil, err
	}
	return append(dst, value...), closer.Close()
}

// pebbleSeek does the same.
func pebbleSeek(db *pebble.DB, dst, key []byte) (value []byte, err error) {
	it, err := db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, err
	}
	if it.SeekPrefixGE(key) && bytes.Equal(it.Key(), key) {
		if value, err = it.ValueAndErr(); err == nil {
			value = append(dst, value...)
		}
	}
	if err == nil {
		err = it.Error()
	}
	return value, errors.Join(err, it.Close())
}

// pebbleDeletes removes the records and places of a database that idem filled.
func pebbleDeletes() Contender {
	return Contender{
		Name: "raw-pebble-deletes",
		Does: "each operation a synced batch that deletes a batch of records and their places, known beforehand, and sets the meta entry",
		Open: opened(filledBarePebble, func(b *barePebble, w Workload) (Instance, error) {
			places, err := pebblePlaces(b.db)
			if err != nil {
				return Instance{}, errors.Join(err, b.db.Close())
			}
			return deletes(w, places, b.db.Close, b.remove)
		}),
	}
}

// pebblePlaces returns all of the index.
func pebblePlaces(db *pebble.DB) (places []engine.Due, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(pebbleExpiry), UpperBound: []byte("idem\x00y")})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid(); it.Next() {
		d, ok := codec.DecodePlace(it.Key()[len(pebbleExpiry):])
		if !ok {
			return nil, errors.Join(fmt.Errorf("%w: a place of %d bytes", idem.ErrCorrupt, len(it.Key())), it.Close())
		}
		places = append(places, d)
	}
	return places, errors.Join(it.Error(), it.Close())
}

// remove deletes what stands at places.
func (b *barePebble) remove(places []engine.Due) error {
	batch := b.db.NewBatch()
	var key []byte
	for _, p := range places {
		key = append(append(key[:0], pebbleRecords...), p.Key...)
		if err := batch.Delete(key, nil); err != nil {
			return err
		}
		key = codec.AppendPlace(append(key[:0], pebbleExpiry...), p)
		if err := batch.Delete(key, nil); err != nil {
			return err
		}
	}
	if err := b.setMeta(batch); err != nil {
		return err
	}
	return errors.Join(batch.Commit(pebble.Sync), batch.Close())
}
