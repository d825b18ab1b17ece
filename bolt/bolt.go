// Package bolt is the engine on bbolt: one file, small, pure Go, no background
// work. Reads come from a memory map; a commit costs two syncs of the file, shared
// by all who wait for it.
//
// The file is the store's own. The caller's data may live in it too, in buckets
// whose names do not begin with "idem.", and is then written only through Update,
// Do and Complete, in the commits of the store:
//
//	backend, err := bolt.Open("idem.db", bolt.Options{})
//	store, err := idem.New(backend, idem.Options{})
//
//	result, replayed, err := bolt.Do(ctx, store, idem.Request{Key: "txn_001"},
//		func(ctx context.Context, tx *bbolt.Tx) ([]byte, error) {
//			ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
//			// … the charge and the completion of txn_001 commit or vanish together
//		})
package bolt

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/txbackend"
)

// core is what the engines on disk share: the methods of engine.Backend.
type core = txbackend.Backend

// Backend is a bbolt engine. Its methods other than DB, View and Update are for the
// idem.Store it is given to.
type Backend struct {
	*core
	engine *driver
}

var (
	_ engine.Backend = (*Backend)(nil)
	_ engine.Scanner = (*Backend)(nil)
	_ engine.Expirer = (*Backend)(nil)
	_ engine.Sizer   = (*Backend)(nil)
)

// Open opens the store's file at path, or makes it. The file belongs to this
// process until the Backend is closed.
//
// idem.ErrLocked is returned when the file is open elsewhere, after
// Options.LockTimeout; idem.ErrInvalid when it is not a file of this engine, is
// empty, or an option is out of range; idem.ErrCorrupt when it is truncated or
// damaged; idem.ErrVersion when it is of another version of the format. The file is
// then as it was. Other errors are of the operating system.
func Open(path string, o Options) (*Backend, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := open(path, o)
	if err != nil {
		return nil, err
	}
	return &Backend{core: txbackend.New(e), engine: e}, nil
}

// From returns the engine under store, for DB, Update and the like. idem.ErrInvalid is
// returned when store is on another engine.
func From(store *idem.Store) (*Backend, error) {
	if store == nil {
		return nil, fmt.Errorf("%w: the store is nil", idem.ErrInvalid)
	}
	b, ok := engine.Of(store).(*Backend)
	if !ok {
		return nil, fmt.Errorf("%w: the store is on a %T, not on a bolt engine; use that engine's own package",
			idem.ErrInvalid, engine.Of(store))
	}
	return b, nil
}

// DB returns the database, for reads. Nothing but Update, Do and Complete may
// write to it, and it must not be closed. What it shows may not be durable yet.
//
// Prefer View to DB().View. When the memory map has to grow, a commit waits for all
// open read transactions, and new ones wait for the commit. So the function of a
// DB().View that calls the store may wait for itself for ever, with all other callers
// behind it; the function of View gets an error instead. A long read transaction
// holds up everybody in the same way. It also keeps pages from being used again, and
// the file grows. Close waits for those still open.
func (b *Backend) DB() *bbolt.DB { return b.engine.db }

// Update runs fn, which writes the caller's own data, in a commit of the store,
// shared with others, and returns when it is durable. It may run more than once;
// only one run's writes commit. An error of fn is returned and undoes its writes.
//
// fn touches only its tx, during the call, and only its own buckets, and does not
// call the store or DB(). If it writes to the store's buckets, or makes one whose
// name begins with "idem.", its writes are undone and idem.ErrInvalid is returned.
// What it gives tx.OnCommit runs after the commit, in the goroutine that called
// Update, and may call the store. (Both hold for the release of bbolt that go.mod names.
// If a later one keeps its transactions in another way, some of these writes are not
// found, and bbolt runs the handlers itself: a panic of one breaks the store.)
//
// ctx is honoured until the commit begins. idem.ErrBroken and idem.ErrClosed are
// returned as by idem.Store.
func (b *Backend) Update(ctx context.Context, fn func(tx *bbolt.Tx) error) error {
	if err := b.outside(ctx, "Update"); err != nil {
		return err
	}
	c := &function{fn: func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return nil, fn(tx) }}
	err := b.core.Update(ctx, c)
	c.finish(err)
	return err
}

// Do claims r, runs fn, and completes the claim with fn's result, all in one
// commit: fn's writes and the completion are there together or not at all,
// whenever the process ends. A duplicate does not run fn; it is waited for if it
// is in flight, and its result is replayed: replayed is then true.
//
// fn's ctx has the values of Do's, ends with it, and also when the store breaks: fn
// must return then, because commits and Close wait for it. fn keeps to what Update says
// of such functions. It may run up to three times; only one run's writes commit. It may
// share the commit with others. Its error or panic is its caller's alone: its writes
// vanish and the record stays as it was. An error marked idem.Permanent is recorded as
// the operation's final failure, one marked idem.Unknown holds the operation, and where
// r limits the attempts any error counts as one. Other errors are those of idem.Store.Claim; idem.ErrTooLarge is returned when the
// result is over Options.MaxResult, with fn's writes and the completion recorded;
// idem.ErrInvalid when store is not on a bolt engine.
func Do(ctx context.Context, store *idem.Store, r idem.Request, fn func(ctx context.Context, tx *bbolt.Tx) (result []byte, err error)) (result []byte, replayed bool, err error) {
	if _, err := From(store); err != nil {
		return nil, false, err
	}
	c := &function{fn: fn}
	result, replayed, err = store.DoEffect(ctx, r, c)
	c.finish(err)
	return result, replayed, err
}

// Complete runs fn and completes the claim of token with its result, in one
// commit: see Do. fn runs only if the record is in flight or held with token's
// fence. Errors are those of idem.Store.Complete, and fn's own.
func Complete(ctx context.Context, store *idem.Store, token idem.Token, fn func(ctx context.Context, tx *bbolt.Tx) (result []byte, err error)) error {
	if _, err := From(store); err != nil {
		return err
	}
	c := &function{fn: fn}
	err := store.CompleteEffect(ctx, token, c)
	c.finish(err)
	return err
}
