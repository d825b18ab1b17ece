package bolt

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/idemkv/idem"
)

// viewing marks the context of a View's function with its Backend.
type viewing struct{}

// View runs fn in a read transaction and returns its error. fn may see data that is not
// durable yet. Keep it short; see DB.
//
// fn must pass the ctx it is given to everything it calls. Calls to the store, View and
// Update with that ctx get idem.ErrInvalid at once if they might otherwise wait for fn
// to end. tx and what it returns are valid only during the call.
//
// View checks ctx before fn runs, but not while a growing memory map keeps new readers
// waiting. idem.ErrCorrupt is returned on a damaged file that was opened read-only,
// idem.ErrBroken and idem.ErrClosed are returned as by idem.Store.
func (b *Backend) View(ctx context.Context, fn func(ctx context.Context, tx *bbolt.Tx) error) (err error) {
	if err := b.outside(ctx, "View"); err != nil {
		return err
	}
	if _, err := b.Size(); err != nil { // broken or closed
		return err
	}
	if b.engine.damage != nil {
		return b.engine.damage
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, fault := v.(interface{ Addr() uintptr }); !fault {
			panic(v) // fn's own
		}
		err = b.Break(fmt.Errorf("reading in View: memory fault: %v", v))
	}()
	inside := context.WithValue(b.Within(ctx), viewing{}, b)
	err = b.engine.db.View(func(tx *bbolt.Tx) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		defer b.engine.blame(tx)
		return fn(inside, tx)
	})
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return idem.ErrClosed
	}
	return err
}

// outside returns an error if ctx has ended or is that of a View's function.
func (b *Backend) outside(ctx context.Context, call string) error {
	if ctx.Value(viewing{}) == b {
		return fmt.Errorf("%w: %s was called in the function of View, which it might wait for; call it when View has returned",
			idem.ErrInvalid, call)
	}
	return ctx.Err()
}
