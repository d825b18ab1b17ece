// Package pebble is the engine on Pebble, the log-structured store of CockroachDB:
// a directory, one sync of a log per commit group, and reads that stay fast with
// many millions of records. It costs a larger binary and background work.
//
// The directory is the store's own. The caller's data may live in it too, under
// keys that do not begin with the five bytes "idem\x00", and is then written only
// through Update, Do and Complete, in the commits of the store. In files that use
// both, import this package as idempebble or Pebble's under another name.
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

// core is what the engines on disk share: the methods of engine.Backend.
type core = txbackend.Backend

// Backend is a Pebble engine. Its methods other than DB and Update are for the
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

// Open opens the store in directory dir, or makes it. The directory belongs to
// this process until the Backend is closed.
//
// idem.ErrLocked is returned when the store is open elsewhere; idem.ErrInvalid when
// dir is a file, a directory with something else in it, or an option is out of
// range; idem.ErrCorrupt when the database is damaged or missing; idem.ErrVersion
// when it is of another version of the format. What is there is then as it was. Other
// errors are of the operating system.
//
// After idem.ErrBroken, parts of Pebble may be stuck and hold the directory's lock:
// it may then take a new process to open it again.
func Open(dir string, o Options) (*Backend, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	b := &Backend{core: txbackend.New(e), engine: e}
	e.fatal.breaks(b.core)
	return b, nil
}

// From returns the engine under store, for DB, Update and the like. idem.ErrInvalid is
// returned when store is on another engine.
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

// DB returns the database, for reads. Nothing but Update, Do and Complete may
// write to it, and it must not be closed. What it shows may not be durable yet.
// Close iterators, snapshots and the values of Get before the store: its Close
// returns an error otherwise, though nothing is lost, and an iterator that is used
// after it may crash.
func (b *Backend) DB() *pebble.DB { return b.engine.db }

// Update runs fn, which writes the caller's own data into the indexed batch, in a
// commit of the store, shared with others, and returns when it is durable. fn
// touches only its batch, and only its own keys, does not commit or close it, and
// does not call the store. An error of fn is returned and undoes its writes. ctx is
// honoured until the commit begins. idem.ErrInvalid is returned when fn wrote to
// keys of the store; idem.ErrBroken and idem.ErrClosed as by idem.Store.
func (b *Backend) Update(ctx context.Context, fn func(batch *pebble.Batch) error) error {
	err := b.core.Update(ctx, withoutResult(fn))
	callback.Rethrow(err)
	return err
}

func withoutResult(fn func(batch *pebble.Batch) error) func(ctx context.Context, batch *pebble.Batch) ([]byte, error) {
	return func(_ context.Context, batch *pebble.Batch) ([]byte, error) { return nil, fn(batch) }
}

// Do claims r, runs fn, and completes the claim with fn's result, all in one
// commit: fn's writes and the completion are there together or not at all,
// whenever the process ends. A duplicate does not run fn; it is waited for if it
// is in flight, and its result is replayed: replayed is then true.
//
// fn's ctx has the values of Do's, ends with it, and also when the store breaks: fn
// must return then, because commits and Close wait for it. fn gets an indexed batch: it
// reads the database with all that was committed or is being committed before it, and
// its own writes. It touches only that batch, and only its own keys, does not commit or
// close it, and never calls the store. It may run more than once; only one run's writes
// commit. It may share the sync with others. Its error or panic is its caller's alone:
// its writes vanish and the record stays as it was. An error marked idem.Permanent is
// recorded as the operation's final failure, one marked idem.Unknown holds the operation,
// and where r limits the attempts any error counts as one. Other errors are those of idem.Store.Claim;
// idem.ErrTooLarge is returned when the result is over Options.MaxResult, with fn's
// writes and the completion recorded; idem.ErrInvalid when store is not on a Pebble
// engine or fn wrote to keys of the store.
func Do(ctx context.Context, store *idem.Store, r idem.Request, fn func(ctx context.Context, batch *pebble.Batch) (result []byte, err error)) (result []byte, replayed bool, err error) {
	if _, err := From(store); err != nil {
		return nil, false, err
	}
	result, replayed, err = store.DoEffect(ctx, r, fn)
	callback.Rethrow(err)
	return result, replayed, err
}

// Complete runs fn and completes the claim of token with its result, in one
// commit: see Do. fn runs only if the record is in flight or held with token's
// fence. Errors are those of idem.Store.Complete, and fn's own.
func Complete(ctx context.Context, store *idem.Store, token idem.Token, fn func(ctx context.Context, batch *pebble.Batch) (result []byte, err error)) error {
	if _, err := From(store); err != nil {
		return err
	}
	err := store.CompleteEffect(ctx, token, fn)
	callback.Rethrow(err)
	return err
}
