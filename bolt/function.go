package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/callback"
)

// function is a same-commit function and what is left to do for its caller.
type function struct {
	fn func(context.Context, *bbolt.Tx) ([]byte, error)
	// after are the handlers that fn gave tx.OnCommit, once they are due. bbolt would
	// run them on the goroutine that commits for everybody: a panic there would break
	// the store, and a call of the store would wait for itself.
	after []func()
}

// finish is called by the caller of the function with the answer it got.
func (c *function) finish(err error) {
	callback.Rethrow(err)
	if errors.Is(err, idem.ErrBroken) {
		return // nobody knows what was committed
	}
	for _, fn := range c.after {
		fn()
	}
}

// run runs c in the transaction, and returns an error if it did what it must not.
func (t *tx) run(ctx context.Context, c *function) (result []byte, err error) {
	handlers := t.layout.handlers(t.tx)
	if handlers == nil {
		handlers = new([]func()) // they stay with bbolt
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

// blame is deferred around a function of the caller's in a transaction. A memory fault
// comes of a file that cannot be read under its map, which breaks the store, or of a
// write to what Get returned, since the map is read-only: that is a panic of the
// function. It is a write if the byte can be read from the file.
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

// intrusion returns an error if the transaction does not have the store's buckets as
// they were. All that the store writes is kept back until the last function has run:
// until then whatever differs is a function's doing. bbolt brings a bucket's root
// node into memory for whatever is written to it.
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

// reserved is how the names of the store's buckets begin, in this version and later.
var reserved = []byte("idem.")

func isOwn(name []byte) bool {
	for _, b := range buckets {
		if bytes.Equal(name, b) {
			return true
		}
	}
	return false
}

// state is what a bucket of the store shows of itself.
type state struct{ root, sequence uint64 }

// layout is where bbolt keeps what it does not show: the fields of Tx and Bucket by
// their index, -1 where a release of bbolt that came later keeps it in another way. The
// store does without then, and does not refuse to open: what is lost is a safeguard
// against functions that do what they must not.
type layout struct {
	commitHandlers  int // of Tx, []func()
	rootNode, nodes int // of Bucket, a pointer and a map
}

// layoutOf returns the layout of bbolt's Tx and Bucket.
func layoutOf(tx, bucket reflect.Type) layout {
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
	}
}

// handlers are what tx.OnCommit was given; nil if they cannot be found.
func (l layout) handlers(tx *bbolt.Tx) *[]func() {
	if l.commitHandlers < 0 {
		return nil
	}
	return (*[]func())(reflect.ValueOf(tx).Elem().Field(l.commitHandlers).Addr().UnsafePointer())
}

// written reports whether anything was written to b in its transaction, and unknown if
// that cannot be found out.
func (l layout) written(b *bbolt.Bucket, unknown bool) bool {
	if l.rootNode < 0 || l.nodes < 0 {
		return unknown
	}
	v := reflect.ValueOf(b).Elem()
	return !v.Field(l.rootNode).IsNil() || v.Field(l.nodes).Len() > 0
}
