package idem_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// stub is an engine whose every step a test can watch, stop and make fail. It has
// a cache in front of it, as an engine on disk does, and saves Meta. Its locks are
// channels, so that a bubble of synctest sees who is blocked.
type stub struct {
	// The hooks, all optional. They are called outside the stub's lock.
	onRead   func(key string) error                           // when Read begins
	afterGet func(key string)                                 // when Read has its entry and has not returned
	onApply  func(ctx context.Context, ops []engine.Op) error // before the ops join a commit
	onCommit func() error                                     // everything has run, nothing can be read; an error breaks
	onShown  func()                                           // it can be read, and the store was not told
	refuse   func(key string) error                           // of a claim that would be granted
	onClose  func() error                                     // its error is Close's
	onScan   func(prefix string) error                        // of Scan, Size and Expiring
	corrupt  atomic.Pointer[map[string]error]                 // keys that cannot be read
	saved    engine.Meta                                      // of the opening before
	direct   bool                                             // no cache
	deaf     bool                                             // runs no effects
	most     int                                              // records that it holds; 0: no bound

	// Faults that a test may switch on at any time.
	full     atomic.Bool // claims that would be granted get ErrFull
	blind    atomic.Bool // Scan, Expiring and Size get ErrCorrupt
	breaking atomic.Bool // the next commit fails

	lock       chan struct{} // guards what follows
	committing chan struct{} // one commit at a time
	entries    map[string]*engine.Entry
	places     map[engine.Due]bool
	host       engine.Host
	bound      bool
	failed     error

	reads, looks, applies, closes atomic.Int64
	known, mistaken               atomic.Int64 // what op.Current said, and said wrongly
}

// effect is the stub's kind of function in the same commit.
type effect func() ([]byte, error)

func newStub() *stub {
	return &stub{
		lock: make(chan struct{}, 1), committing: make(chan struct{}, 1),
		entries: map[string]*engine.Entry{}, places: map[engine.Due]bool{},
	}
}

func (b *stub) locked(f func()) {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	f()
}

func (b *stub) Bind(h engine.Host) (engine.Binding, error) {
	if b.bound {
		return engine.Binding{}, fmt.Errorf("%w: the stub is bound", idem.ErrInvalid)
	}
	b.bound, b.host = true, h
	return engine.Binding{Saved: b.saved, Direct: b.direct}, nil
}

// reopen returns what a new process would find.
func (b *stub) reopen() *stub {
	n := newStub()
	b.locked(func() { n.entries, n.places, n.saved = maps.Clone(b.entries), maps.Clone(b.places), b.saved })
	return n
}

func (b *stub) readErr(key string) error {
	if m := b.corrupt.Load(); m != nil {
		return (*m)[key]
	}
	return nil
}

func (b *stub) damage(keys ...string) {
	m := map[string]error{}
	for _, k := range keys {
		m[k] = fmt.Errorf("%w: key %s", idem.ErrCorrupt, b.host.KeyHash(k))
	}
	b.corrupt.Store(&m)
}

func (b *stub) Read(_ context.Context, key string) (e *engine.Entry, err error) {
	b.reads.Add(1)
	if b.onRead != nil {
		if err := b.onRead(key); err != nil {
			return nil, err
		}
	}
	b.locked(func() {
		if err = b.readErr(key); err == nil && b.failed == nil {
			e = b.entries[key]
		}
		if b.failed != nil {
			err = b.failed
		}
	})
	if b.afterGet != nil {
		b.afterGet(key)
	}
	return e, err
}

func (b *stub) Apply(ctx context.Context, ops []engine.Op) error {
	b.applies.Add(1)
	if b.onApply != nil {
		if err := b.onApply(ctx, ops); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.committing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	changed, err := b.commit(ops)
	<-b.committing
	if err == nil && changed {
		b.host.Group(len(ops), time.Millisecond)
	}
	return err
}

func (b *stub) room(key string, records int) error {
	if b.full.Load() || b.most > 0 && records >= b.most {
		return fmt.Errorf("%w: the stub", idem.ErrFull)
	}
	if b.refuse != nil {
		return b.refuse(key)
	}
	return nil
}

func (b *stub) look(prefix string) (err error) {
	b.looks.Add(1)
	if b.locked(func() { err = b.failed }); err != nil {
		return err
	}
	if b.blind.Load() {
		return fmt.Errorf("%w: the stub", idem.ErrCorrupt)
	}
	if b.onScan != nil {
		return b.onScan(prefix)
	}
	return nil
}

// commit runs ops on a copy, and shows the copy when it is durable.
func (b *stub) commit(ops []engine.Op) (changed bool, err error) {
	if b.locked(func() { err = b.failed }); err != nil {
		return false, err
	}
	entries, places := maps.Clone(b.entries), maps.Clone(b.places)
	for _, op := range ops {
		key := op.Key()
		cur, readErr := entries[key], b.readErr(key)
		if readErr != nil {
			cur = nil
		}
		if e, known := op.Current(); known && readErr == nil {
			b.known.Add(1)
			if e != cur {
				b.mistaken.Add(1)
			}
		}
		next, wrote := op.Run(cur, readErr)
		if op.Grants() {
			if err := b.room(key, len(entries)); err != nil {
				op.Refuse(err)
				continue
			}
		}
		if f := op.Effect(); f != nil && !b.deaf {
			next, wrote = op.Finish(f.(effect)())
		}
		if !wrote {
			continue
		}
		changed = true
		delete(places, engine.Due{At: op.Due(), Key: key})
		if cur != nil {
			delete(places, engine.Due{At: cur.Due, Key: key})
		}
		if next == nil {
			delete(entries, key)
			continue
		}
		entries[key] = next
		if next.Due != 0 {
			places[engine.Due{At: next.Due, Key: key}] = true
		}
	}
	meta := b.host.Meta()
	if b.onCommit != nil {
		err = b.onCommit()
	}
	if b.breaking.Load() {
		err = errDisk
	}
	b.locked(func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", idem.ErrBroken, err)
			b.failed = err
			return
		}
		b.entries, b.places, b.saved = entries, places, meta
	})
	if err != nil {
		b.host.Broken(err)
		return false, err
	}
	if b.onShown != nil {
		b.onShown()
	}
	for _, op := range ops {
		op.Committed()
	}
	return changed, nil
}

// fail breaks the engine from the inside, under no call.
func (b *stub) fail(cause error) {
	err := fmt.Errorf("%w: %w", idem.ErrBroken, cause)
	b.host.Broken(err)
	b.locked(func() { b.failed = err })
}

func (b *stub) Close() error {
	b.closes.Add(1)
	failed := false
	b.locked(func() { failed = b.failed != nil })
	if b.bound && !failed {
		b.saved = b.host.Meta()
	}
	if b.onClose != nil {
		return b.onClose()
	}
	return nil
}

// rich is a stub with all that an engine may offer.
type rich struct{ *stub }

func (b rich) Scan(ctx context.Context, prefix, cursor string) (page []engine.Scanned, next string, err error) {
	if err := b.look(prefix); err != nil {
		return nil, "", err
	}
	b.locked(func() {
		keys := slices.Sorted(maps.Keys(b.entries))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k <= cursor || !strings.HasPrefix(k, prefix) })
		for _, k := range keys {
			if len(page) == 2 {
				next = page[1].Key
				break
			}
			s := engine.Scanned{Key: k, Entry: b.entries[k], Err: b.readErr(k)}
			if s.Err != nil {
				s.Entry = nil
			}
			page = append(page, s)
		}
	})
	return page, next, ctx.Err()
}

func (b rich) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) (due []engine.Due, err error) {
	if err := b.look(""); err != nil {
		return nil, err
	}
	order := func(x, y engine.Due) int { return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.Key, y.Key)) }
	b.locked(func() {
		for p := range b.places {
			if order(p, from) > 0 && p.At <= until {
				due = append(due, p)
			}
		}
	})
	slices.SortFunc(due, order)
	return due[:min(limit, len(due))], ctx.Err()
}

func (b rich) Size() (int64, error) {
	if err := b.look(""); err != nil {
		return 0, err
	}
	return 4096, nil
}

var errDisk = errors.New("input/output error")

// gate stops a hook until it is opened, once it has been shut.
type gate struct{ ch atomic.Pointer[chan struct{}] }

func (g *gate) shut() {
	ch := make(chan struct{})
	g.ch.Store(&ch)
}

func (g *gate) open() { close(*g.ch.Swap(nil)) }

func (g *gate) pass() {
	if ch := g.ch.Load(); ch != nil {
		<-*ch
	}
}
