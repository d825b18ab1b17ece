package pebble

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Compact rewrites the store's tables and frees what removed and replaced records still
// take there. Pebble does so by itself as it goes; Compact does it all at once. Calls go on
// meanwhile, slower, and the disk must have room for what is rewritten. idem.ErrInvalid is
// returned on a store that was opened read-only, idem.ErrCorrupt when it is damaged,
// idem.ErrBroken and idem.ErrClosed as by idem.Store, ctx's error when ctx ends: what has
// begun then ends by itself.
func (b *Backend) Compact(ctx context.Context) error {
	return b.Visit(ctx, func(ctx context.Context) error {
		if b.engine.opts.ReadOnly {
			return fmt.Errorf("%w: %s was opened read-only; open it without Options.ReadOnly to compact it", idem.ErrInvalid, b.engine.dir)
		}
		size, err := b.engine.Size()
		if err != nil {
			return err
		}
		progress := engine.Progress(ctx)
		progress(0, size)
		if err := b.engine.compact(ctx); err != nil {
			return fmt.Errorf("idem: compacting %s: %w", b.engine.dir, damaged(err))
		}
		progress(size, size)
		return nil
	})
}

// compact waits for Pebble until the store is broken. Pebble heeds ctx.
func (e *driver) compact(ctx context.Context) error {
	first, last, err := e.bounds()
	if err != nil || first == nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer e.recovered(done)
		done <- e.db.Compact(ctx, first, append(last, 0), true)
	}()
	select {
	case err := <-done:
		return err
	case <-e.fatal.heard:
		return e.fatal.err()
	}
}

// bounds returns the first and the last key of the database; nil if it is empty.
func (e *driver) bounds() (first, last []byte, err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{KeyTypes: pebble.IterKeyTypePointsAndRanges})
	if err != nil {
		return nil, nil, err
	}
	if it.First() {
		first = append([]byte{}, it.Key()...)
	}
	if it.Last() {
		last = append([]byte{}, it.Key()...)
		if _, ranged := it.HasPointAndRange(); ranged {
			_, end := it.RangeBounds()
			last = append(last[:0], end...)
		}
	}
	return first, last, errors.Join(it.Error(), it.Close())
}
