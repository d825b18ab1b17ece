package storetest

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

// Stub is an engine whose every step a test can watch, stop and make fail. It has a
// cache in front of it, as an engine on disk does, and saves Meta. Its locks are
// channels, so that a bubble of synctest sees who is blocked. Rich adds the optional
// parts of an engine.
type Stub struct {
	// The hooks, all optional. They are called outside the stub's lock.
	OnRead    func(key string) error                           // when Read begins
	AfterGet  func(key string)                                 // when Read has its entry and has not returned
	OnApply   func(ctx context.Context, ops []engine.Op) error // before the ops join a commit
	OnCommit  func() error                                     // everything has run, nothing can be read; an error breaks
	OnShown   func()                                           // it can be read, and the store was not told
	OnApplied func()                                           // the last of Apply
	Refuse    func(key string) error                           // of a claim that would be granted
	OnClose   func() error                                     // its error is Close's
	OnScan    func(prefix string) error                        // of Scan, Size and Expiring

	Saved engine.Meta // of the opening before
	Deaf  bool        // runs no effects
	Most  int         // records that it holds; 0: no bound

	// Faults that a test may switch on at any time.
	Corrupt    atomic.Pointer[map[string]error] // keys that cannot be read
	Unreadable atomic.Pointer[error]            // what Read returns
	Full       atomic.Bool                      // claims that would be granted get ErrFull
	Blind      atomic.Bool                      // Scan, Expiring and Size get ErrCorrupt
	Breaking   atomic.Bool                      // the next commit fails

	// What was called: Read; Scan, Size and Expiring; Apply; Close. What op.Current knew,
	// and what it was wrong about.
	Reads, Looks, Applies, Closes, Known, Mistaken atomic.Int64

	lock    chan struct{} // guards what follows
	Entries map[string]*engine.Entry
	Places  map[engine.Due]bool
	failed  error
	Turn    chan struct{} // held by who commits
	Host    engine.Host
	bound   bool
}

// Effect is the stub's kind of function in the same commit.
type Effect func() ([]byte, error)

// ErrDisk is why a commit of a Stub fails.
var ErrDisk = errors.New("input/output error")

// NewStub returns a Stub without records.
func NewStub() *Stub {
	return &Stub{
		lock: make(chan struct{}, 1), Turn: make(chan struct{}, 1),
		Entries: map[string]*engine.Entry{}, Places: map[engine.Due]bool{},
	}
}

// Locked runs f while nothing else changes Entries and Places.
func (b *Stub) Locked(f func()) {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	f()
}

// Bind implements engine.Backend.
func (b *Stub) Bind(h engine.Host) (engine.Binding, error) {
	if b.bound {
		return engine.Binding{}, fmt.Errorf("%w: the stub is bound", idem.ErrInvalid)
	}
	b.bound, b.Host = true, h
	return engine.Binding{Saved: b.Saved}, nil
}

// Reopen returns what a new process would find.
func (b *Stub) Reopen() *Stub {
	n := NewStub()
	b.Locked(func() { n.Entries, n.Places, n.Saved = maps.Clone(b.Entries), maps.Clone(b.Places), b.Saved })
	return n
}

// ReadErr returns why key cannot be read; nil if it can.
func (b *Stub) ReadErr(key string) error {
	if m := b.Corrupt.Load(); m != nil {
		return (*m)[key]
	}
	return nil
}

// Damage makes keys unreadable, and no others.
func (b *Stub) Damage(keys ...string) {
	m := map[string]error{}
	for _, k := range keys {
		m[k] = fmt.Errorf("%w: key %s", idem.ErrCorrupt, b.Host.KeyHash(k))
	}
	b.Corrupt.Store(&m)
}

// Read implements engine.Backend.
func (b *Stub) Read(_ context.Context, key string) (e *engine.Entry, err error) {
	b.Reads.Add(1)
	if b.OnRead != nil {
		if err := b.OnRead(key); err != nil {
			return nil, err
		}
	}
	b.Locked(func() {
		if err = b.ReadErr(key); err == nil && b.failed == nil {
			e = b.Entries[key]
		}
		if b.failed != nil {
			err = b.failed
		}
	})
	if b.AfterGet != nil {
		b.AfterGet(key)
	}
	if err := b.Unreadable.Load(); err != nil {
		return nil, *err
	}
	return e, err
}

// Apply implements engine.Backend.
func (b *Stub) Apply(ctx context.Context, ops []engine.Op) error {
	b.Applies.Add(1)
	if b.OnApply != nil {
		if err := b.OnApply(ctx, ops); err != nil {
			return err
		}
	}
	if b.OnApplied != nil {
		defer b.OnApplied()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.Turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	changed, err := b.Commit(ops)
	<-b.Turn
	if err == nil && changed {
		b.Host.Group(len(ops), time.Millisecond)
	}
	return err
}

func (b *Stub) room(key string, records int) error {
	if b.Full.Load() || b.Most > 0 && records >= b.Most {
		return fmt.Errorf("%w: the stub", idem.ErrFull)
	}
	if b.Refuse != nil {
		return b.Refuse(key)
	}
	return nil
}

func (b *Stub) look(prefix string) (err error) {
	b.Looks.Add(1)
	if b.Locked(func() { err = b.failed }); err != nil {
		return err
	}
	if b.Blind.Load() {
		return fmt.Errorf("%w: the stub", idem.ErrCorrupt)
	}
	if b.OnScan != nil {
		return b.OnScan(prefix)
	}
	return nil
}

// Commit runs ops on a copy, and shows the copy when it is durable.
func (b *Stub) Commit(ops []engine.Op) (changed bool, err error) {
	if b.Locked(func() { err = b.failed }); err != nil {
		return false, err
	}
	entries, places := maps.Clone(b.Entries), maps.Clone(b.Places)
	for _, op := range ops {
		key := op.Key()
		cur, readErr := entries[key], b.ReadErr(key)
		if readErr != nil {
			cur = nil
		}
		if e, known := op.Current(); known && readErr == nil {
			b.Known.Add(1)
			if e != cur {
				b.Mistaken.Add(1)
			}
		}
		next, wrote := op.Run(cur, readErr)
		if op.Grants() {
			if err := b.room(key, len(entries)); err != nil {
				op.Refuse(err)
				continue
			}
		}
		if f := op.Effect(); f != nil && !b.Deaf {
			next, wrote = op.Finish(f.(Effect)())
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
	meta := b.Host.Meta()
	if b.OnCommit != nil {
		err = b.OnCommit()
	}
	if b.Breaking.Load() {
		err = ErrDisk
	}
	b.Locked(func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", idem.ErrBroken, err)
			b.failed = err
			return
		}
		b.Entries, b.Places, b.Saved = entries, places, meta
	})
	if err != nil {
		b.Host.Broken(err)
		return false, err
	}
	if b.OnShown != nil {
		b.OnShown()
	}
	for _, op := range ops {
		op.Committed()
	}
	return changed, nil
}

// Fail breaks the engine from the inside, under no call.
func (b *Stub) Fail(cause error) {
	err := fmt.Errorf("%w: %w", idem.ErrBroken, cause)
	b.Host.Broken(err)
	b.Locked(func() { b.failed = err })
}

// Close implements engine.Backend.
func (b *Stub) Close() error {
	b.Closes.Add(1)
	failed := false
	b.Locked(func() { failed = b.failed != nil })
	if b.bound && !failed {
		b.Saved = b.Host.Meta()
	}
	if b.OnClose != nil {
		return b.OnClose()
	}
	return nil
}

// Rich is a stub with all that an engine may offer.
type Rich struct{ *Stub }

// NewRich returns a Rich without records.
func NewRich() Rich { return Rich{NewStub()} }

// Scan implements engine.Scanner.
func (b Rich) Scan(ctx context.Context, prefix, cursor string) (page []engine.Scanned, next string, err error) {
	if err := b.look(prefix); err != nil {
		return nil, "", err
	}
	b.Locked(func() {
		keys := slices.Sorted(maps.Keys(b.Entries))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k <= cursor || !strings.HasPrefix(k, prefix) })
		for _, k := range keys {
			if len(page) == 2 {
				next = page[1].Key
				break
			}
			s := engine.Scanned{Key: k, Entry: b.Entries[k], Err: b.ReadErr(k)}
			if s.Err != nil {
				s.Entry = nil
			}
			page = append(page, s)
		}
	})
	return page, next, ctx.Err()
}

// Expiring implements engine.Expirer.
func (b Rich) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) (due []engine.Due, err error) {
	if err := b.look(""); err != nil {
		return nil, err
	}
	order := func(x, y engine.Due) int { return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.Key, y.Key)) }
	b.Locked(func() {
		for p := range b.Places {
			if order(p, from) > 0 && p.At <= until {
				due = append(due, p)
			}
		}
	})
	slices.SortFunc(due, order)
	return due[:min(limit, len(due))], ctx.Err()
}

// Size implements engine.Sizer.
func (b Rich) Size() (int64, error) {
	if err := b.look(""); err != nil {
		return 0, err
	}
	return 4096, nil
}
