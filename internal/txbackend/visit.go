package txbackend

import (
	"context"
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

// guest runs functions of a visit's caller. What they do is no fault of the engine.
type guest struct{ inside bool } // one is running, or has not returned

func (g *guest) run(f func()) {
	g.inside = true
	f()
	g.inside = false
}

// Visit runs fn, which reads the database for longer than a look-up. The database stays
// open until fn has returned. fn's ctx ends with the caller's, and when the backend breaks
// or is closed: fn must return then. A panic of fn breaks the backend, but a panic of the
// caller's progress function is the caller's.
func (b *Backend) Visit(ctx context.Context, fn func(ctx context.Context) error) error {
	return b.visit(ctx, func(ctx context.Context, _ *guest) error { return fn(ctx) })
}

func (b *Backend) visit(ctx context.Context, fn func(context.Context, *guest) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Intact(); err != nil {
		return err
	}
	if !b.visits.enter() {
		return engine.ErrClosed
	}
	defer b.visits.under.Done()
	var g guest
	defer func() {
		if !g.inside {
			b.caught(recover(), &err)
		}
	}()
	progress := engine.Progress(ctx)
	ctx = engine.WithProgress(ctx, func(done, total int64) { g.run(func() { progress(done, total) }) })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.visits.ctx, func() { cancel(context.Cause(b.visits.ctx)) })()
	if err = fn(ctx, &g); err != nil {
		if why := b.Intact(); why != nil { // that is why it failed
			return why
		}
	}
	return err
}

// Intact returns nil while the backend is neither broken nor closed, and its path still
// names the database. A visit asks it before it vouches for what it has read.
func (b *Backend) Intact() (err error) {
	if err := b.err(); err != nil {
		return err
	}
	defer b.guard(&err)
	if err := b.engine.Moved(); err != nil {
		return b.breakWith("checking", err)
	}
	return nil
}
