package txbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem/engine"
)

// Inspector is an Engine whose whole content can be read for a check.
type Inspector interface {
	// Inspect calls fn with a view of one commit, and returns fn's error.
	Inspect(fn func(View) error) error
}

// View is the state of a database at one commit. It is used by one goroutine.
type View interface {
	// Walk reads the whole database, the callers' own data included. It calls pair for
	// each pair of the store's spaces, in any order, and damaged for what it cannot read or
	// finds wrong, and goes on past it. key and value are valid during the call. Walk
	// reports to the progress function of ctx and returns an error only if it cannot go on.
	Walk(ctx context.Context, pair func(space Space, key, value []byte), damaged func(what string, err error)) error
	// Get returns the value of key, valid until the next call. pair may call it. An error
	// wraps idem.ErrCorrupt if the way to key is damaged.
	Get(space Space, key []byte) (value []byte, found bool, err error)
}

// Verify implements engine.Verifier.
func (b *Backend) Verify(ctx context.Context, report func(engine.Damage)) error {
	inspector, ok := b.engine.(Inspector)
	if !ok {
		return fmt.Errorf("%w: %s cannot be verified", engine.ErrInvalid, b.engine.Name())
	}
	return b.visit(ctx, func(ctx context.Context, g *guest) error {
		tell := func(d engine.Damage) { g.run(func() { report(d) }) }
		if err := inspector.Inspect(func(v View) error { return b.verify(ctx, v, tell) }); err != nil {
			return err
		}
		return b.Intact()
	})
}

func (b *Backend) verify(ctx context.Context, v View, report func(engine.Damage)) error {
	a := b.NewAudit(report)
	if err := v.Walk(ctx, a.Pair, a.Damaged); err != nil {
		return err
	}
	if a.End(b.wallClock()) {
		return nil
	}
	quiet := engine.WithProgress(ctx, nil)
	pair := func(space Space, key, value []byte) { a.compare(v, space, key, value) }
	return v.Walk(quiet, pair, func(string, error) {}) // the damage has been reported
}

// wallClock returns what the store's wall clock reads.
func (b *Backend) wallClock() time.Time {
	if h := b.host.Load(); h != nil && h.Clock != nil {
		wall, _ := h.Clock.Now()
		return wall
	}
	return time.Now()
}

// Whole walks v and returns its first damage. A backup is worth nothing if a record in it
// cannot be read. What the expiry index has too much or too little does no harm, and is
// left to Verify.
func (b *Backend) Whole(ctx context.Context, v View) error {
	var first error
	a := b.NewAudit(func(d engine.Damage) {
		if first == nil && d.What != expiryIndex && errors.Is(d.Err, engine.ErrCorrupt) {
			first = fmt.Errorf("%s %s: %w", d.What, d.KeyHash, d.Err)
		}
	})
	if err := v.Walk(ctx, a.Pair, a.Damaged); err != nil {
		return err
	}
	a.End(b.wallClock())
	return first
}
