package idemadmin_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/memory"
)

// bad is an engine in memory with a record that cannot be read until it is forgotten.
type bad struct {
	*memory.Backend
	key  string
	gone atomic.Bool
}

func newBad(key string) *bad { return &bad{Backend: memory.New(memory.Options{}), key: key} }

func (b *bad) err(key string) error {
	if key == b.key && !b.gone.Load() {
		return fmt.Errorf("%w: its checksum is wrong", idem.ErrCorrupt)
	}
	return nil
}

func (b *bad) Bind(h engine.Host) (engine.Binding, error) {
	binding, err := b.Backend.Bind(h)
	binding.Direct = false
	return binding, err
}

func (b *bad) Read(ctx context.Context, key string) (*engine.Entry, error) {
	if err := b.err(key); err != nil {
		return nil, err
	}
	return b.Backend.Read(ctx, key)
}

// Apply tells an operation on the bad record that it cannot be read. One that changes it
// all the same forgets it.
func (b *bad) Apply(ctx context.Context, ops []engine.Op) error {
	for _, op := range ops {
		if err := b.err(op.Key()); err != nil {
			if next, changed := op.Run(nil, err); changed && next == nil {
				b.gone.Store(true)
				op.Committed()
			}
			return nil
		}
	}
	return b.Backend.Apply(ctx, ops)
}

func (b *bad) Scan(ctx context.Context, prefix, cursor string) (page []engine.Scanned, next string, err error) {
	page, next, err = b.Backend.Scan(ctx, prefix, cursor)
	if err == nil && next == "" {
		if bad := b.err(b.key); bad != nil {
			page = append(page, engine.Scanned{Key: b.key, Err: bad})
		}
	}
	return page, next, err
}

// secretive is an engine in memory of a store whose secret is known, so that keys with
// one hash can be given. It counts the pages that are scanned.
type secretive struct {
	*memory.Backend
	scans atomic.Int64
}

func newSecretive() *secretive { return &secretive{Backend: memory.New(memory.Options{})} }

func (b *secretive) Bind(h engine.Host) (engine.Binding, error) {
	binding, err := b.Backend.Bind(h)
	binding.Saved.Secret = [16]byte{1}
	return binding, err
}

func (b *secretive) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	if cursor == "" {
		b.scans.Add(1)
	}
	return b.Backend.Scan(ctx, prefix, cursor)
}

// listless is an engine that cannot list its records.
type listless struct{ engine.Backend }

// slow is an engine whose scans take their time before the first page.
type slow struct {
	*memory.Backend
	takes time.Duration
	scans atomic.Int64
}

func newSlow(takes time.Duration) *slow {
	return &slow{Backend: memory.New(memory.Options{}), takes: takes}
}

func (b *slow) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	if cursor != "" {
		return b.Backend.Scan(ctx, prefix, cursor)
	}
	b.scans.Add(1)
	select {
	case <-time.After(b.takes):
		return b.Backend.Scan(ctx, prefix, cursor)
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

// Two keys with one hash in a secretive's store.
const (
	collisionA = "order-6780575"
	collisionB = "order-21255417"
)
