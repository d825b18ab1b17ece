// Package bolt is the engine on bbolt: one file, small, pure Go, no background work.
// Reads come from a memory map. A commit costs two syncs of the file, shared by all
// callers that wait for it.
//
// The file belongs to the store. Your own data may live in it too, in buckets whose
// names do not begin with "idem.". Write it only through Update, Do and Complete, in
// the store's commits:
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

// core is the part that engines on disk share: the methods of engine.Backend.
type core = txbackend.Backend

// Backend is a bbolt engine. DB, View, Update, Backup and Verify are for its user, the
// other methods for its idem.Store.
type Backend struct {
	*core
	engine *driver
}

var (
	_ engine.Backend  = (*Backend)(nil)
	_ engine.Scanner  = (*Backend)(nil)
	_ engine.Expirer  = (*Backend)(nil)
	_ engine.Sizer    = (*Backend)(nil)
	_ engine.Verifier = (*Backend)(nil)
	_ engine.Checker  = (*Backend)(nil)
)

// Open opens the store's file at path, creating it if necessary. The file belongs to
// this process until the Backend is closed; but see Options.ReadOnly.
//
// idem.ErrLocked is returned when the file is open elsewhere, after
// Options.LockTimeout. idem.ErrInvalid is returned when the file is not one of this
// engine or is empty, or an option is out of range; idem.ErrCorrupt when it is
// truncated or damaged; idem.ErrVersion when it has another version of the format. Open
// then leaves the file as it was. Other errors come from the operating system.
func Open(path string, o Options) (*Backend, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := open(path, o)
	if err != nil {
		return nil, err
	}
	b := &Backend{engine: e}
	switch {
	case e.damage != nil:
		b.core = txbackend.NewReadOnly(damagedFile{e})
	case o.ReadOnly:
		b.core = txbackend.NewReadOnly(e)
	default:
		b.core = txbackend.New(e)
	}
	return b, nil
}

// From returns the engine under store, for DB, Update and the like. idem.ErrInvalid is
// returned when store is nil or on another engine.
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

// DB returns the database, for reads. Write to it only through Update, Do and Complete,
// and do not close it. It may show data that is not durable yet.
//
// Prefer View to DB().View. When the memory map has to grow, a commit waits for all
// open read transactions, and new ones wait for the commit. A function in DB().View
// that calls the store may therefore wait for itself forever and block all other
// callers; the function of View gets an error instead. A long read transaction blocks
// everyone in the same way. It also keeps pages from being reused, so the file grows.
// Close waits for read transactions that are still open. On a damaged file that was opened
// read-only, reading may end the process.
func (b *Backend) DB() *bbolt.DB { return b.engine.db }

// Update runs fn in a commit of the store, which it may share with other callers, and
// returns when the commit is durable. fn writes your own data. It may run more than
// once; only one run's writes commit. An error of fn is returned and undoes its writes.
//
// During the call fn may use only its tx and only your own buckets. It must not call
// the store or DB(). If it writes to the store's buckets, or creates one whose name
// begins with "idem.", its writes are undone and idem.ErrInvalid is returned. Handlers
// it passes to tx.OnCommit run after the commit, in the goroutine that called Update,
// and may call the store. (Both hold for the bbolt release that go.mod names. If a
// later one lays out its transactions differently, some of these writes go unnoticed,
// and bbolt runs the handlers itself: a panic in one breaks the store.)
//
// ctx counts until the commit begins. idem.ErrBroken and idem.ErrClosed are returned as
// by idem.Store.
func (b *Backend) Update(ctx context.Context, fn func(tx *bbolt.Tx) error) error {
	if err := b.outside(ctx, "Update"); err != nil {
		return err
	}
	c := &function{fn: func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return nil, fn(tx) }}
	err := b.core.Update(ctx, c)
	c.finish(err)
	return err
}

// Do claims r, runs fn, and completes the claim with fn's result, all in one commit.
// Whenever the process ends, fn's writes and the completion are either both there or
// both absent. A duplicate does not run fn. If it is in flight Do waits for it, and its
// result is replayed; replayed is then true.
//
// fn's ctx has the values of Do's. It ends with Do's and also when the store breaks: fn
// must return then, because commits and Close wait for it. The rules of Update apply to
// fn. It may run up to three times, and only one run's writes commit. It may share the
// commit with others. An error or panic of fn affects only its own caller: its writes
// vanish and the record stays as it was. An error marked idem.Permanent is recorded as
// the operation's final failure, and one marked idem.Unknown holds the operation. If r
// limits the attempts, any other error counts as one.
//
// idem.ErrTooLarge is returned when the result is over Options.MaxResult; fn's writes
// and the completion are recorded anyway. idem.ErrInvalid is returned when store is not
// on a bolt engine. Other errors are those of idem.Store.Claim.
func Do(ctx context.Context, store *idem.Store, r idem.Request, fn func(ctx context.Context, tx *bbolt.Tx) (result []byte, err error)) (result []byte, replayed bool, err error) {
	if _, err := From(store); err != nil {
		return nil, false, err
	}
	c := &function{fn: fn}
	result, replayed, err = store.DoEffect(ctx, r, c)
	c.finish(err)
	return result, replayed, err
}

// Complete runs fn and completes the claim of token with its result, in one commit; see
// Do. fn runs only if the record is in flight or held with token's fence. Errors are
// those of idem.Store.Complete, and fn's own.
func Complete(ctx context.Context, store *idem.Store, token idem.Token, fn func(ctx context.Context, tx *bbolt.Tx) (result []byte, err error)) error {
	if _, err := From(store); err != nil {
		return err
	}
	c := &function{fn: fn}
	err := store.CompleteEffect(ctx, token, c)
	c.finish(err)
	return err
}
