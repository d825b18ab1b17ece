// Package pebble is the engine on Pebble, the log-structured store of CockroachDB: a
// directory, one sync of a log per commit group, and reads that stay fast with many
// millions of records. It costs a larger binary and background work.
//
// The directory belongs to the store. Your own data may live in it too, under keys that
// do not begin with the five bytes "idem\x00". Write it only through Update, Do and
// Complete, in the store's commits. In files that use both packages, import this one as
// idempebble or Pebble's under another name.
package pebble

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/txbackend"
)

// core is the part that engines on disk share: the methods of engine.Backend.
type core = txbackend.Backend

// Backend is a Pebble engine. DB, Update, Backup, Verify and Compact are for its user, the
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

// Open opens the store in directory dir, creating it if necessary. The directory
// belongs to this process until the Backend is closed; but see Options.ReadOnly.
//
// idem.ErrLocked is returned when the store is open elsewhere, after Options.LockTimeout.
// idem.ErrInvalid is returned when dir is a file or a directory with something else in it, or an option is
// out of range; idem.ErrCorrupt when the database is damaged or missing;
// idem.ErrVersion when it has another version of the format. Open then leaves the
// directory as it was. Other errors come from the operating system.
//
// After idem.ErrBroken, parts of Pebble may be stuck and hold the directory's lock. It
// may then take a new process to open it again.
func Open(dir string, o Options) (*Backend, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	b := &Backend{engine: e}
	if o.ReadOnly {
		b.core = txbackend.NewReadOnly(e)
	} else {
		b.core = txbackend.New(e)
	}
	e.fatal.breaks(b.core)
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
		return nil, fmt.Errorf("%w: the store is on a %T, not on a Pebble engine; use that engine's own package",
			idem.ErrInvalid, engine.Of(store))
	}
	return b, nil
}

// DB returns the database, for reads. Write to it only through Update, Do and Complete,
// and do not close it. It may show data that is not durable yet. Close iterators,
// snapshots and the values of Get before the store. Otherwise the store's Close returns
// an error, though nothing is lost, and an iterator used after that may crash.
// When the store is broken, calls of DB may not return.
func (b *Backend) DB() *pebble.DB { return b.engine.db }

// Update runs fn in a commit of the store, which it may share with other callers, and
// returns when the commit is durable. fn writes your own data to the indexed batch. It
// may use only that batch and only your own keys, must not commit or close the batch,
// and must not call the store. An error of fn is returned and undoes its writes. ctx
// counts until the commit begins. idem.ErrInvalid is returned when fn wrote to the
// store's keys; idem.ErrBroken and idem.ErrClosed as by idem.Store.
func (b *Backend) Update(ctx context.Context, fn func(batch *pebble.Batch) error) error {
	err := b.core.Update(ctx, withoutResult(fn))
	callback.Rethrow(err)
	return err
}

func withoutResult(fn func(batch *pebble.Batch) error) func(ctx context.Context, batch *pebble.Batch) ([]byte, error) {
	return func(_ context.Context, batch *pebble.Batch) ([]byte, error) { return nil, fn(batch) }
}

// Do claims r, runs fn, and completes the claim with fn's result, all in one commit.
// Whenever the process ends, fn's writes and the completion are either both there or
// both absent. A duplicate does not run fn. If it is in flight Do waits for it, and its
// result is replayed; replayed is then true.
//
// fn's ctx has the values of Do's. It ends with Do's and also when the store breaks: fn
// must return then, because commits and Close wait for it. fn gets an indexed batch.
// Through it fn reads its own writes and the database, including everything committed
// or being committed before it. fn may use only that batch and only your own keys, must
// not commit or close the batch, and must never call the store. It may run more than
// once; only one run's writes commit. It may share the sync with others. An error or
// panic of fn affects only its own caller: its writes vanish and the record stays as it
// was. An error marked idem.Permanent is recorded as the operation's final failure, and
// one marked idem.Unknown holds the operation. If r limits the attempts, any other
// error counts as one.
//
// idem.ErrTooLarge is returned when the result is over Options.MaxResult; fn's writes
// and the completion are recorded anyway. idem.ErrInvalid is returned when store is not
// on a Pebble engine or fn wrote to the store's keys. Other errors are those of
// idem.Store.Claim.
func Do(ctx context.Context, store *idem.Store, r idem.Request, fn func(ctx context.Context, batch *pebble.Batch) (result []byte, err error)) (result []byte, replayed bool, err error) {
	if _, err := From(store); err != nil {
		return nil, false, err
	}
	result, replayed, err = store.DoEffect(ctx, r, fn)
	callback.Rethrow(err)
	return result, replayed, err
}

// Complete runs fn and completes the claim of token with its result, in one commit; see
// Do. fn runs only if the record is in flight or held with token's fence. Errors are
// those of idem.Store.Complete, and fn's own.
func Complete(ctx context.Context, store *idem.Store, token idem.Token, fn func(ctx context.Context, batch *pebble.Batch) (result []byte, err error)) error {
	if _, err := From(store); err != nil {
		return err
	}
	err := store.CompleteEffect(ctx, token, fn)
	callback.Rethrow(err)
	return err
}
