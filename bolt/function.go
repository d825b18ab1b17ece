package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/callback"
)

// function is a same-commit function and what its caller must do afterwards.
type function struct {
	fn func(context.Context, *bbolt.Tx) ([]byte, error)
	// after holds the handlers that fn passed to tx.OnCommit, once the commit is done.
	// bbolt would run them on the goroutine that commits for everyone: a panic there
	// would break the store, and a call to the store would wait for itself.
	after []func()
}

// finish must be called by the function's caller with the error it got.
func (c *function) finish(err error) {
	callback.Rethrow(err)
	if errors.Is(err, idem.ErrBroken) {
		return // it is unknown what was committed
	}
	for _, fn := range c.after {
		fn()
	}
}

// run runs c in the transaction. It returns an error if c did something forbidden.
func (t *tx) run(ctx context.Context, c *function) (result []byte, err error) {
	handlers := t.layout.handlers(t.tx)
	if handlers == nil {
		handlers = new([]func()) // bbolt keeps them
	}
	before := len(*handlers)
	defer t.engine.blame(t.tx)
	if result, err = c.fn(ctx, t.tx); err != nil {
		return result, err
	}
	if err := t.intrusion(); err != nil {
		return nil, err
	}
	if own := (*handlers)[before:]; len(own) > 0 {
		own = append([]func(){}, own...)
		clear((*handlers)[before:])
		*handlers = append((*handlers)[:before], func() { c.after = own })
	}
	return result, nil
}

// blame is deferred around a caller's function in a transaction. A memory fault has two
// possible causes. Either the file cannot be read under its map, which breaks the
// store, or the function wrote to memory that Get returned: the map is read-only, and
// the panic is the function's own. It was a write if the byte can be read from the
// file.
func (e *driver) blame(tx *bbolt.Tx) {
	v := recover()
	if v == nil {
		return
	}
	if fault, ok := v.(interface{ Addr() uintptr }); ok {
		from, addr := e.db.Info().Data, fault.Addr()
		if addr >= from && addr-from < uintptr(tx.Size()) {
			if _, err := e.file.ReadAt(make([]byte, 1), int64(addr-from)); err == nil {
				v = fmt.Errorf("%w: the function wrote to memory of %s; what a transaction returns must not be changed: %v",
					idem.ErrInvalid, e.path, v)
			}
		}
	}
	panic(v)
}

// intrusion returns an error if the store's buckets are not as they were. The store
// holds back all its own writes until the last function has run, so any difference
// comes from a function. bbolt loads a bucket's root node into memory for any write to
// it.
func (t *tx) intrusion() error {
	for i, b := range t.buckets {
		was := &t.was[i]
		if t.tx.Bucket(buckets[i]) != b || uint64(b.Root()) != was.root || b.Sequence() != was.sequence ||
			b.FillPercent != bbolt.DefaultFillPercent || t.layout.written(b, false) {
			return fmt.Errorf("%w: the function wrote to bucket %q of %s, which is the store's own; its writes were undone",
				idem.ErrInvalid, buckets[i], t.tx.DB().Path())
		}
	}
	root := t.tx.Cursor()
	if !t.layout.written(root.Bucket(), true) {
		return nil // no bucket was made or removed
	}
	for name, _ := root.Seek(reserved); bytes.HasPrefix(name, reserved); name, _ = root.Next() {
		if !isOwn(name) {
			return fmt.Errorf("%w: the function made %q in %s; names that begin with %q are the store's own; its writes were undone",
				idem.ErrInvalid, name, t.tx.DB().Path(), reserved)
		}
	}
	return nil
}

// reserved is the prefix of the store's bucket names, in this version and later ones.
var reserved = []byte("idem.")

func isOwn(name []byte) bool {
	for _, b := range buckets {
		if bytes.Equal(name, b) {
			return true
		}
	}
	return false
}

// state is the visible state of a store bucket.
type state struct{ root, sequence uint64 }

// layout locates private fields of bbolt's Tx and Bucket by index, -1 where a later
// bbolt release has none such. The store then works without them and still opens. Only
// a safeguard against functions that break the rules is lost.
type layout struct {
	commitHandlers  int // of Tx, []func()
	rootNode, nodes int // of Bucket, a pointer and a map
	mapMutex        int // of DB, a sync.RWMutex
}

func layoutOfBbolt() layout {
	return layoutOf(reflect.TypeFor[bbolt.Tx](), reflect.TypeFor[bbolt.Bucket](), reflect.TypeFor[bbolt.DB]())
}

// layoutOf returns the layout of bbolt's Tx, Bucket and DB.
func layoutOf(tx, bucket, db reflect.Type) layout {
	field := func(of reflect.Type, name string, fits func(reflect.Type) bool) int {
		if f, ok := of.FieldByName(name); ok && len(f.Index) == 1 && fits(f.Type) {
			return f.Index[0]
		}
		return -1
	}
	kind := func(k reflect.Kind) func(reflect.Type) bool {
		return func(t reflect.Type) bool { return t.Kind() == k }
	}
	return layout{
		commitHandlers: field(tx, "commitHandlers", func(t reflect.Type) bool { return t == reflect.TypeFor[[]func()]() }),
		rootNode:       field(bucket, "rootNode", kind(reflect.Pointer)),
		nodes:          field(bucket, "nodes", kind(reflect.Map)),
		mapMutex:       field(db, "mmaplock", func(t reflect.Type) bool { return t == reflect.TypeFor[sync.RWMutex]() }),
	}
}

// handlers returns the handlers passed to tx.OnCommit; nil if they cannot be found.
func (l layout) handlers(tx *bbolt.Tx) *[]func() {
	if l.commitHandlers < 0 {
		return nil
	}
	return (*[]func())(reflect.ValueOf(tx).Elem().Field(l.commitHandlers).Addr().UnsafePointer())
}

// mapLock returns the lock that a read transaction holds on the memory map; nil if it
// cannot be found.
func (l layout) mapLock(db *bbolt.DB) *sync.RWMutex {
	if l.mapMutex < 0 {
		return nil
	}
	return (*sync.RWMutex)(reflect.ValueOf(db).Elem().Field(l.mapMutex).Addr().UnsafePointer())
}

// written reports whether anything was written to b in its transaction. It returns
// unknown if that cannot be determined.
func (l layout) written(b *bbolt.Bucket, unknown bool) bool {
	if l.rootNode < 0 || l.nodes < 0 {
		return unknown
	}
	v := reflect.ValueOf(b).Elem()
	return !v.Field(l.rootNode).IsNil() || v.Field(l.nodes).Len() > 0
}
