package txbackend

import (
	"context"
	"errors"
	"sync"

	"github.com/idemkv/idem/engine"
)

// visits are the calls that read the database for longer than a look-up, such as a backup.
type visits struct {
	mu     sync.Mutex
	closed bool
	under  sync.WaitGroup

	ctx context.Context         // ends when the backend breaks or closes
	end context.CancelCauseFunc // of ctx
}

func (v *visits) init() { v.ctx, v.end = context.WithCancelCause(context.Background()) }

// enter counts a visit in; under.Done ends it. It returns false after close.
func (v *visits) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.under.Add(1)
	}
	return !v.closed
}

// close refuses new visits and asks those under way to end, because of why.
func (v *visits) close(why error) {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.end(why)
}

// Visit runs fn, which reads the database for longer than a look-up. The database stays
// open until fn has returned. fn's ctx ends with the caller's, and when the backend breaks
// or is closed: fn must return then.
func (b *Backend) Visit(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.err(); err != nil {
		return err
	}
	if !b.visits.enter() {
		return engine.ErrClosed
	}
	defer b.visits.under.Done()
	defer b.guard(&err)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.visits.ctx, func() { cancel(context.Cause(b.visits.ctx)) })()
	if err = fn(ctx); errors.Is(err, context.Canceled) && b.visits.ctx.Err() != nil {
		err = context.Cause(b.visits.ctx)
	}
	return err
}

// Intact returns nil while the backend is neither broken nor closed. A visit asks it
// before it vouches for what it has read.
func (b *Backend) Intact() error { return b.err() }
