package idem

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/idemkv/idem/engine"
)

// opPool saves a claim or completion the allocation of its operation.
var opPool = sync.Pool{New: func() any {
	o := new(pooledOp)
	o.list[0] = &o.operation
	return o
}}

// pooledOp is an operation with the one-element slice that Apply takes.
type pooledOp struct {
	operation
	list [1]engine.Op
}

func (s *Store) newOp(key string, act action) *operation {
	p := opPool.Get().(*pooledOp)
	p.operation = operation{pooled: p, key: key, act: act, store: s}
	return &p.operation
}

// own returns op as the store's own type. Every op that an engine sees is one.
func own(op engine.Op) *operation { return op.(*operation) }

// one returns the op as a list, without allocation.
func (o *operation) one() []engine.Op { return o.pooled.list[:] }

// free returns the op to the pool. Entries it handed out stay valid. An op that the
// engine may still hold is left to the garbage collector.
func (o *operation) free() {
	p := o.pooled
	if p == nil {
		return
	}
	p.operation = operation{}
	opPool.Put(p)
}

// lookup returns the durable entry of key, from the cache if it is there, and what a
// commit needs to reuse it.
func (s *Store) lookup(ctx context.Context, key string) (e *engine.Entry, snap snapshot, err error) {
	if s.direct {
		e, err = s.backend.Read(ctx, key)
		snap.entry = e
		return e, snap, err
	}
	snap = s.tracker.before(key)
	if s.tracker.cache == nil {
		e, err = s.read(ctx, key)
		snap.entry = e
		return e, snap, err
	}
	e = s.tracker.cached(key, &snap)
	if s.observed() {
		kind := CacheMiss
		if e != nil {
			kind = CacheHit
		}
		s.observe(ctx, Event{Kind: kind, KeyHash: s.KeyHash(key)})
	}
	if e == nil {
		if e, err = s.read(ctx, key); err == nil {
			s.tracker.fill(key, &snap, e)
		}
	}
	snap.entry = e
	return e, snap, err
}

func (s *Store) read(ctx context.Context, key string) (*engine.Entry, error) {
	in := s.calls.enter()
	if in == nil {
		return nil, s.endedErr()
	}
	e, err := s.backend.Read(ctx, key)
	in.leave()
	return e, s.outranked(err)
}

// apply runs ops in one commit. A nil error means that each op has its answer. After
// ErrBroken the engine may still be using the ops: do not touch them.
func (s *Store) apply(ctx context.Context, ops []engine.Op) error {
	if len(ops) == 0 {
		return nil
	}
	if s.readOnly != nil {
		return s.readOnly
	}
	in := s.calls.enter()
	if in == nil {
		return s.endedErr()
	}
	err := s.backend.Apply(ctx, ops)
	in.leave()
	if errors.Is(err, ErrBroken) {
		for _, op := range ops {
			own(op).pooled = nil
		}
		if ended := s.outranked(err); ended != ErrClosed {
			return ended
		}
		return fmt.Errorf("%w, and a commit under way failed: %w", ErrClosed, err)
	}
	for _, op := range ops {
		if o := own(op); o.began && !o.done {
			o.began = false
			s.tracker.abandon(o)
		}
	}
	return s.outranked(err)
}

// applyClaims is apply for claims; it refuses them after Shutdown. If the store is
// full, it sweeps a slice and retries the ops that were refused. It repeats this for as
// long as anything makes room, this sweep or another, because other callers may take
// the room first.
func (s *Store) applyClaims(ctx context.Context, ops []engine.Op) error {
	in := s.enterGranting()
	if in == nil {
		return ErrClosed
	}
	defer in.leave()
	removals := s.tracker.removals.Load()
	if err := s.apply(ctx, ops); err != nil {
		return err
	}
	for {
		refused := fullOps(ops)
		if refused == nil {
			return nil
		}
		var err error
		if x, ok := s.backend.(engine.Expirer); ok {
			if _, _, err = s.sweep(ctx, x, s.opts.SweepSlice, s.observeLater); !errors.Is(err, ErrBroken) {
				err = nil // they keep their answer
			}
		}
		now := s.tracker.removals.Load()
		if err == nil && now == removals {
			return nil
		}
		if removals = now; err == nil {
			err = s.apply(ctx, refused)
		}
		if err != nil {
			for _, op := range refused { // only theirs: the others have their answers
				own(op).late = err
			}
			return nil
		}
	}
}

// fullOps returns the ops that were refused for lack of room. An effect's own error
// does not count, whatever it wraps: the effect must not run again.
func fullOps(ops []engine.Op) (refused []engine.Op) {
	for _, op := range ops {
		if o := own(op); o.err != nil && !o.failed && errors.Is(o.err, ErrFull) {
			refused = append(refused, op)
		}
	}
	return refused
}

func (s *Store) groupDone(ops int, took time.Duration) {
	s.commits.Add(1)
	s.commitOps.Add(uint64(ops))
	if s.observed() {
		s.observeLater(Event{Kind: CommitDone, Count: ops, Duration: took})
	}
}
