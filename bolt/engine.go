package bolt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"unsafe"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// buckets are the names of the spaces; see docs/FORMAT.md.
var buckets = [...][]byte{
	txbackend.Records: []byte("idem.records"),
	txbackend.Expiry:  []byte("idem.expiry"),
	txbackend.Meta:    []byte("idem.meta"),
}

// errNoBucket means that something deleted one of the store's buckets.
var errNoBucket = errors.New("a bucket of the store is missing")

// scanBytes ends a page of a scan early, before it has the number of pairs asked for.
const scanBytes = 4 << 20

// driver is the database under the txbackend.Backend.
type driver struct {
	db   *bbolt.DB
	file *os.File // that of db
	path string
	dir  string // absolute, of the file
	opts Options

	identity *diskspace.Identity
	layout   layout

	meta   *metaPage // if opened read-only; else nil
	damage error     // of the trees of a file opened read-only

	// The newest transaction ID and meta entry in the file, as of opening and then of the
	// last commit; only Update uses them.
	last  int
	saved []byte

	pageSize int64
	size     atomic.Int64 // as of the last commit: readers of it need not wait for the map

	readers txbackend.Readers[reader]

	// afterCommit is for tests. It runs when a commit is visible but has not returned
	// yet.
	afterCommit atomic.Pointer[func() error]
}

var _ txbackend.Engine = (*driver)(nil)

func (e *driver) Name() string { return e.path }

// Close closes the readers first: bbolt waits for them.
func (e *driver) Close() error {
	e.readers.Hold()
	return e.db.Close()
}

// reader is a read transaction with the bucket of the records.
type reader struct {
	tx      *bbolt.Tx
	records *bbolt.Bucket
}

func (e *driver) openReader() (r reader, err error) {
	tx, err := e.db.Begin(false)
	if err != nil {
		return r, err
	}
	defer func() {
		if r.tx == nil { // also after a panic, or Close would wait for it
			_ = tx.Rollback()
		}
	}()
	b := tx.Bucket(buckets[txbackend.Records])
	if b == nil {
		return r, errNoBucket
	}
	return reader{tx, b}, nil
}

func (r reader) close() { _ = r.tx.Rollback() }

func (e *driver) Read(key string) (*engine.Entry, error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	r, err := e.readers.Get()
	if err != nil {
		return nil, err
	}
	defer e.readers.Put(r)                                                   // also after a panic, or Close would wait for it
	value := r.R.records.Get(unsafe.Slice(unsafe.StringData(key), len(key))) // read only, and not kept
	if value == nil {
		return nil, nil
	}
	return codec.DecodeRecord(key, value)
}

func (e *driver) Scan(space txbackend.Space, from, to []byte, limit int) (pairs []txbackend.Pair, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = e.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets[space])
		if b == nil {
			return errNoBucket
		}
		size := 0
		c := b.Cursor()
		for k, v := c.Seek(from); k != nil && len(pairs) < limit && size < scanBytes; k, v = c.Next() {
			if to != nil && bytes.Compare(k, to) >= 0 {
				break
			}
			pairs = append(pairs, txbackend.Pair{Key: bytes.Clone(k), Value: bytes.Clone(v)})
			size += len(k) + len(v)
		}
		return nil
	})
	return pairs, err
}

func (e *driver) Update(fn func(txbackend.Tx) error) error {
	// bbolt waits for open read transactions when the file grows, and does not reuse a
	// page that one of them might read. So from here on a read transaction lives only as
	// long as its look-up.
	e.readers.Hold()
	defer e.readers.Renew()
	id, saved := e.last, e.saved
	err := e.db.Update(func(btx *bbolt.Tx) error {
		// A transaction starts from the meta page in the file. Its ID falls back if an
		// older copy was written over the file. The free list then does not match that
		// copy's tree, and its records lack the claims made since.
		if id = btx.ID(); id <= e.last {
			return e.overwritten("an older copy")
		}
		t := &tx{engine: e, tx: btx, layout: e.layout}
		for i, name := range buckets {
			b := btx.Bucket(name)
			if b == nil {
				return errNoBucket
			}
			t.buckets[i], t.was[i] = b, state{uint64(b.Root()), b.Sequence()}
		}
		// The ID of another store, or of another line of this one, may be higher. Its meta
		// entry has another secret or another time.
		if !bytes.Equal(t.buckets[txbackend.Meta].Get([]byte(codec.MetaKey)), e.saved) {
			return e.overwritten("another store")
		}
		if err := fn(t); err != nil {
			return err
		}
		for _, w := range t.writes {
			if w.space == txbackend.Meta {
				saved = w.value
			}
		}
		return t.flush()
	})
	if err == nil {
		e.last, e.saved = id, saved
		err = e.measure()
	}
	if err != nil {
		return withCause(err)
	}
	if after := e.afterCommit.Load(); after != nil {
		return (*after)()
	}
	return nil
}

func (e *driver) overwritten(by string) error {
	return fmt.Errorf("%s was overwritten by %s while the store was open; restore it with the process stopped", e.path, by)
}

// Moved returns an error if the path no longer names the open file. The lock is on the
// file, so another process that opens the path would get another file and the same
// keys.
func (e *driver) Moved() error { return e.identity.Check() }

// Room compares the space in use, not the file's size. The file never shrinks, and
// space that the sweep frees is reused.
func (e *driver) Room() error {
	if e.opts.MaxSize > 0 {
		st := e.db.Stats()
		used := e.size.Load() - int64(st.FreePageN+st.PendingPageN)*e.pageSize
		if used >= e.opts.MaxSize {
			return fmt.Errorf("%w: %s has %d bytes in use, Options.MaxSize is %d; raise it or shorten the retention",
				idem.ErrFull, e.path, used, e.opts.MaxSize)
		}
	}
	return diskspace.Room(e.dir, e.opts.MinFree)
}

func (e *driver) Size() (int64, error) { return e.size.Load(), nil }

// measure records the file's size after a commit.
func (e *driver) measure() error {
	return e.db.View(func(tx *bbolt.Tx) error { e.size.Store(tx.Size()); return nil })
}

// tx is one commit in the making. Writes are collected and then made in key order,
// because neighbours share pages that are then in the cache.
type tx struct {
	engine  *driver
	tx      *bbolt.Tx
	layout  layout
	buckets [len(buckets)]*bbolt.Bucket
	was     [len(buckets)]state
	writes  []write
}

type write struct {
	space  txbackend.Space
	key    []byte
	value  []byte
	delete bool
}

func (t *tx) Get(space txbackend.Space, key []byte) ([]byte, error) {
	return t.buckets[space].Get(key), nil
}

func (t *tx) Set(space txbackend.Space, key, value []byte) error {
	t.writes = append(t.writes, write{space: space, key: bytes.Clone(key), value: bytes.Clone(value)})
	return nil
}

func (t *tx) Delete(space txbackend.Space, key []byte) error {
	t.writes = append(t.writes, write{space: space, key: bytes.Clone(key), delete: true})
	return nil
}

func (t *tx) flush() error {
	slices.SortStableFunc(t.writes, func(a, b write) int { // stable: the last write to a key wins
		return cmp.Or(cmp.Compare(a.space, b.space), bytes.Compare(a.key, b.key))
	})
	for _, w := range t.writes {
		var err error
		if w.delete {
			err = t.buckets[w.space].Delete(w.key)
		} else {
			err = t.buckets[w.space].Put(w.key, w.value)
		}
		if err != nil {
			return fmt.Errorf("writing to bucket %s: %w", buckets[w.space], err)
		}
	}
	return nil
}

// Effect runs a function on the transaction. bbolt has no savepoints, so a failed
// function's writes can only be undone with the whole transaction.
func (t *tx) Effect(ctx context.Context, fn any) (result []byte, spoiled bool, err error) {
	c, ok := fn.(*function)
	if !ok {
		return nil, false, fmt.Errorf("%w: %T is not a same-commit function of the bolt engine", idem.ErrInvalid, fn)
	}
	result, err = callback.Run(func() ([]byte, error) { return t.run(ctx, c) })
	return result, err != nil, err
}
