package storetest

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// whole is an engine with every optional part.
type whole interface {
	engine.Backend
	engine.Scanner
	engine.Expirer
	engine.Checker
	engine.Sizer
}

// Faulty is a sound engine whose reads and commits fail when a test says so.
type Faulty struct {
	whole
	host engine.Host

	// Unreadable, if set, is what Read returns.
	Unreadable atomic.Pointer[error]
	// Breaks has the next commit fail, and break the engine.
	Breaks atomic.Bool
	// Applied, if set, is called after each Apply.
	Applied func()
	// Applies counts the calls of Apply that were let through.
	Applies atomic.Uint64
}

// NewFaulty returns a Faulty around b.
func NewFaulty(b whole) *Faulty { return &Faulty{whole: b} }

// Bind implements engine.Backend.
func (f *Faulty) Bind(h engine.Host) (engine.Binding, error) {
	f.host = h
	return f.whole.Bind(h)
}

// Read implements engine.Backend.
func (f *Faulty) Read(ctx context.Context, key string) (*engine.Entry, error) {
	if err := f.Unreadable.Load(); err != nil {
		return nil, *err
	}
	return f.whole.Read(ctx, key)
}

// Apply implements engine.Backend.
func (f *Faulty) Apply(ctx context.Context, ops []engine.Op) error {
	if f.Breaks.Load() {
		err := fmt.Errorf("%w: input/output error of the disk", idem.ErrBroken)
		f.host.Broken(err)
		return err
	}
	f.Applies.Add(1)
	if f.Applied != nil {
		defer f.Applied()
	}
	return f.whole.Apply(ctx, ops)
}
