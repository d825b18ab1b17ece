package txbackend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/groupcommit"
)

const (
	// groupWeight bounds a commit group, in bytes of payload plus opWeight per
	// operation. It thereby bounds the memory and time of one commit.
	groupWeight = 8 << 20
	opWeight    = 1 << 10
	// commitBytes ends a commit early, before its group is done: some databases take no
	// more than 4 GiB in one.
	commitBytes = 64 << 20
	// scanPage is the largest number of records in a page of a scan.
	scanPage = 256
	// brokenClose is how long closing a broken database may take before it is abandoned.
	// On some paths both databases panic, or wait while they hold locks.
	brokenClose = 2 * time.Second
)

// Backend is an engine.Backend over an Engine.
type Backend struct {
	engine Engine
	queue  *groupcommit.Queue[*job]
	gate   gate
	pass   pass // the queue's
	floor  floor
	watch  atomic.Pointer[watch]
	cancel atomic.Pointer[context.CancelCauseFunc] // of the function that is running
	broken atomic.Pointer[error]
	broke  chan struct{} // closed when broken is set
	closed atomic.Bool
	visits visits

	readOnly bool

	commitBytes int // the constant, except in tests

	mu   sync.Mutex
	host atomic.Pointer[engine.Host]
}

var (
	_ engine.Backend  = (*Backend)(nil)
	_ engine.Scanner  = (*Backend)(nil)
	_ engine.Expirer  = (*Backend)(nil)
	_ engine.Sizer    = (*Backend)(nil)
	_ engine.Checker  = (*Backend)(nil)
	_ engine.Verifier = (*Backend)(nil)
)

// New returns a Backend that owns e.
func New(e Engine) *Backend {
	b := &Backend{engine: e, broke: make(chan struct{}), commitBytes: commitBytes}
	b.queue = groupcommit.New(groupWeight, b.broke, b.run)
	b.visits.init()
	return b
}

// NewReadOnly returns a Backend that owns e and never calls e.Update.
func NewReadOnly(e Engine) *Backend {
	b := New(e)
	b.readOnly = true
	return b
}

// Bind implements engine.Backend.
func (b *Backend) Bind(host engine.Host) (engine.Binding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.err(); err != nil {
		return engine.Binding{}, err
	}
	if b.host.Load() != nil {
		return engine.Binding{}, fmt.Errorf("%w: %s is in use by another store", engine.ErrInvalid, b.engine.Name())
	}
	saved, err := b.savedMeta()
	if err != nil {
		return engine.Binding{}, err
	}
	if host.Stall > 0 {
		b.watch.Store(newWatch(host.Stall, func() { b.stalled(host.Stall) }))
	}
	b.host.Store(&host)
	if err := b.err(); err != nil { // broken just now, perhaps without telling host
		return engine.Binding{}, err
	}
	return engine.Binding{Saved: saved, ReadOnly: b.readOnly}, nil
}

func (b *Backend) savedMeta() (saved engine.Meta, err error) {
	defer b.guard(&err)
	pairs, err := b.engine.Scan(Meta, []byte(codec.MetaKey), nil, 1)
	if err != nil && aboutRecord(err) {
		return saved, fmt.Errorf("%s: reading the meta entry: %w", b.engine.Name(), err)
	}
	if err != nil {
		return saved, b.breakWith("reading the meta entry", err)
	}
	if len(pairs) == 0 || string(pairs[0].Key) != codec.MetaKey {
		return saved, nil
	}
	saved, err = codec.DecodeMeta(pairs[0].Value)
	if err != nil {
		return saved, fmt.Errorf("%s: %w", b.engine.Name(), err)
	}
	return saved, nil
}

// err returns why the backend answers nothing more, nil while it does.
func (b *Backend) err() error {
	if b.closed.Load() {
		return engine.ErrClosed
	}
	return b.brokenErr()
}

func (b *Backend) brokenErr() error {
	if p := b.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// Break makes the backend answer idem.ErrBroken with the cause from now on. It returns
// that error. Engines call it for failures in the background. It may be called under
// any lock.
func (b *Backend) Break(cause error) error {
	err := fmt.Errorf("%w: %s: %w", engine.ErrBroken, b.engine.Name(), cause)
	if !b.broken.CompareAndSwap(nil, &err) {
		return *b.broken.Load()
	}
	if h := b.host.Load(); h != nil {
		h.Broken(err)
	}
	close(b.broke)
	b.visits.end(err)
	if cancel := b.cancel.Load(); cancel != nil {
		(*cancel)(err)
	}
	return err
}

// stalled breaks a store whose commit does not return.
func (b *Backend) stalled(stall time.Duration) {
	what := "the commit did not return within %v: is the disk stuck?"
	switch {
	case b.cancel.Load() != nil:
		what = "a same-commit function did not return within %v"
	case b.closed.Load():
		what = "closing did not end within %v: is the disk stuck?"
	}
	_ = b.Break(fmt.Errorf(what, stall))
}

// functionCtx returns the ctx for a caller's function, derived from the caller's own.
// Call end when the function has returned.
func (b *Backend) functionCtx(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(b.Within(ctx))
	b.cancel.Store(&cancel)
	if err := b.brokenErr(); err != nil { // broken just now
		cancel(err)
	}
	return ctx, func() {
		b.cancel.Store(nil)
		cancel(nil)
	}
}

// Within marks ctx for a caller's function. Calls to the store with it are refused.
func (b *Backend) Within(ctx context.Context) context.Context {
	if h := b.host.Load(); h != nil && h.Within != nil {
		return h.Within(ctx)
	}
	return ctx
}

func (b *Backend) breakWith(doing string, cause error) error {
	return b.Break(fmt.Errorf("%s: %w", doing, cause))
}

// guard turns a panic or memory fault of the engine into a broken store.
func (b *Backend) guard(err *error) { b.caught(recover(), err) }

// caught is guard for v, which was recovered; nil if nothing was.
func (b *Backend) caught(v any, err *error) {
	if v != nil {
		*err = b.Break(callback.Caught("panic in the engine", v))
	}
}

// Read implements engine.Backend.
func (b *Backend) Read(_ context.Context, key string) (e *engine.Entry, err error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	if was, held := b.gate.look(key); held {
		return was.entry, was.err
	}
	e, err = b.read(key)
	if was, held := b.gate.look(key); held {
		return was.entry, was.err
	}
	return e, err
}

func (b *Backend) read(key string) (e *engine.Entry, err error) {
	defer b.guard(&err)
	e, err = b.engine.Read(key)
	if err != nil && !aboutRecord(err) {
		return nil, b.breakWith("reading "+b.named(key), err)
	}
	return e, b.about(key, err)
}

// named returns the text that stands for a key in messages.
func (b *Backend) named(key string) string {
	if h := b.host.Load(); h != nil && h.KeyHash != nil {
		return "key " + h.KeyHash(key)
	}
	return "a key"
}

// about adds to err which record it concerns.
func (b *Backend) about(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", b.engine.Name(), b.named(key), err)
}

// aboutRecord reports whether err concerns one record and not the whole database.
func aboutRecord(err error) bool {
	return errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrVersion)
}

// Apply implements engine.Backend.
func (b *Backend) Apply(ctx context.Context, ops []engine.Op) error {
	weight := 0
	for _, op := range ops {
		weight += opWeight + op.Size()
	}
	return b.do(ctx, &job{ctx: ctx, ops: ops}, weight)
}

// Update runs fn, a same-commit function of the engine's own type, in a commit of the
// store, and returns its error.
func (b *Backend) Update(ctx context.Context, fn any) error {
	return b.do(ctx, &job{ctx: ctx, update: fn}, opWeight)
}

func (b *Backend) do(ctx context.Context, j *job, weight int) error {
	if err := b.err(); err != nil {
		return err
	}
	if b.readOnly {
		return b.readOnlyErr()
	}
	err := b.queue.Do(ctx, j, weight)
	switch {
	case err == groupcommit.ErrStopped: // j may still run: do not look at it any more
		return *b.broken.Load()
	case err != nil:
		return err
	}
	return j.err
}

// Close implements engine.Backend.
func (b *Backend) Close() error {
	var err error
	if b.broken.Load() == nil && b.host.Load() != nil && !b.readOnly {
		err = b.saveMeta()
	}
	if b.closed.Swap(true) {
		return nil
	}
	b.visits.close(engine.ErrClosed)
	done := make(chan error, 1)
	go func() {
		// Jobs that run from now on find the backend closed. While a write is stuck, the
		// engine stays open and keeps its lock. A second owner must not meet a write that
		// wakes up.
		b.queue.Wait()
		w := b.watch.Load()
		w.begin()
		b.visits.under.Wait()
		err := b.closeEngine()
		w.end()
		w.stop()
		done <- err
	}()
	select {
	case closeErr := <-done:
		return errors.Join(err, closeErr)
	case <-b.broke: // before, or by a last write while closing
	}
	timer := time.NewTimer(brokenClose)
	defer timer.Stop()
	select {
	case closeErr := <-done:
		return errors.Join(err, closeErr)
	case <-timer.C:
		return fmt.Errorf("%w; it did not close within %v, and it may take a new process to open it again",
			*b.broken.Load(), brokenClose)
	}
}

func (b *Backend) readOnlyErr() error {
	return fmt.Errorf("%w: %s was opened read-only; open it without Options.ReadOnly to change it", engine.ErrInvalid, b.engine.Name())
}

// saveMeta saves the time of closing, in its own commit.
func (b *Backend) saveMeta() error {
	j := &job{ctx: context.Background(), save: true}
	if err := b.queue.Do(context.Background(), j, 0); err != nil {
		return *b.broken.Load()
	}
	return j.err
}

func (b *Backend) closeEngine() (err error) {
	defer b.guard(&err)
	if err := b.engine.Close(); err != nil {
		return fmt.Errorf("idem: closing %s: %w", b.engine.Name(), err)
	}
	return nil
}

// Check returns an error if the backend cannot be expected to commit: it is broken or
// closed, its path now names something else, or there is no room for new records.
func (b *Backend) Check(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.err(); err != nil {
		return err
	}
	if b.readOnly {
		return b.readOnlyErr()
	}
	if err := b.Intact(); err != nil {
		return err
	}
	defer b.guard(&err)
	return b.engine.Room()
}

// Size implements engine.Sizer. An error breaks nothing: how large the database is says
// nothing about its content, and a process that is out of descriptors cannot list files.
func (b *Backend) Size() (n int64, err error) {
	if err := b.err(); err != nil {
		return 0, err
	}
	defer b.guard(&err)
	if n, err = b.engine.Size(); err != nil {
		return 0, fmt.Errorf("idem: measuring %s: %w", b.engine.Name(), err)
	}
	return n, nil
}
