package idem

import (
	"context"
	"errors"
	"sync"
	"time"
)

// opPool keeps a claim or completion from costing an allocation for its Op.
var opPool = sync.Pool{New: func() any {
	o := new(pooledOp)
	o.list[0] = &o.Op
	return o
}}

// pooledOp is an Op with the one-element slice that Apply wants.
type pooledOp struct {
	Op
	list [1]*Op
}

func (s *Store) newOp(key string, act action) *Op {
	p := opPool.Get().(*pooledOp)
	p.Op = Op{pooled: p, key: key, act: act, store: s}
	return &p.Op
}

// one returns the op as a list, without allocation.
func (o *Op) one() []*Op { return o.pooled.list[:] }

// free gives the op back; entries it handed out live on.
func (o *Op) free() {
	p := o.pooled
	p.Op = Op{}
	opPool.Put(p)
}

// lookup returns the durable entry of key, from the cache if it is there.
func (s *Store) lookup(key string) (*Entry, error) {
	if s.direct {
		return s.backend.Read(key)
	}
	if s.cache == nil {
		return s.read(key)
	}
	e, version := s.cache.get(key)
	if s.observed() {
		kind := CacheMiss
		if e != nil {
			kind = CacheHit
		}
		s.emit(Event{Kind: kind, KeyHash: KeyHash(key)})
	}
	if e != nil {
		return e, nil
	}
	e, err := s.read(key)
	if err == nil && e != nil && e.State.Final() {
		s.cache.fill(key, e, version)
	}
	return e, err
}

func (s *Store) read(key string) (*Entry, error) {
	in := s.calls.enter()
	if in == nil {
		return nil, s.endedErr()
	}
	e, err := s.backend.Read(key)
	in.leave()
	return e, s.outranked(err)
}

// apply runs ops in one commit. A nil error means that each op has its answer.
func (s *Store) apply(ctx context.Context, ops []*Op) error {
	if len(ops) == 0 {
		return nil
	}
	in := s.calls.enter()
	if in == nil {
		return s.endedErr()
	}
	err := s.backend.Apply(ctx, ops)
	in.leave()
	for _, op := range ops {
		if op.counted && !op.done {
			s.changed(op)
			op.counted, op.pinned = false, false
		}
	}
	return s.outranked(err)
}

// applyClaims is apply for claims: not after Shutdown, and where the store is
// full, once more after what has expired made room.
func (s *Store) applyClaims(ctx context.Context, ops []*Op) error {
	in := s.granting.enter()
	if in == nil {
		return ErrClosed
	}
	defer in.leave()
	if err := s.apply(ctx, ops); err != nil {
		return err
	}
	var refused []*Op
	for _, op := range ops {
		if op.err != nil && errors.Is(op.err, ErrFull) {
			refused = append(refused, op)
		}
	}
	if refused == nil {
		return nil
	}
	x, ok := s.backend.(Expirer)
	if !ok {
		return nil // the ops keep their answer, ErrFull
	}
	if removed, err := s.sweep(ctx, x, s.opts.SweepSlice, s.tell); err != nil || removed == 0 {
		return nil
	}
	if err := s.apply(ctx, refused); err != nil {
		for _, op := range refused { // theirs alone: the others were answered
			op.Refuse(err)
		}
	}
	return nil
}

// committed follows a commit: op's change is durable and can be read. Engines call
// it in commit order and it is quick, because it runs before the next commit.
func (s *Store) committed(op *Op) {
	s.changed(op)
	if s.changes != nil {
		saw := s.changes.before(op.key)
		saw.entry = op.next
		s.changes.recent.committed(op, saw)
	}
	s.waiters.wake(op.key, op.prev, s.shown(op.next))
	s.open.changed(op, s.time.opening)
	if s.sweeper != nil && op.next != nil && op.next.Due != 0 {
		s.sweeper.Due(time.Duration(op.next.Due))
	}
}

// shown is what those who wait find in e, which can be read from now on: nothing if
// its retention was shorter than its commit.
func (s *Store) shown(e *Entry) *Entry {
	if s.waiters.n.Load() > 0 {
		if now, _ := s.time.now(); !e.live(now) {
			return nil
		}
	}
	return e
}

// changing says that op is about to change its key: what was read of it is of no use
// any more, and the cache must not hold it until changed. See cache and changes.
func (s *Store) changing(op *Op) {
	if s.changes != nil && !op.counted {
		s.changes.changed(op.key)
	}
	op.counted = true
	if s.cache != nil && !op.pinned && op.overCached() {
		op.pinned = true
		s.cache.pin(op.key)
	}
}

// changed says that the change, if there was one, can be read.
func (s *Store) changed(op *Op) {
	if s.changes != nil {
		s.changes.changed(op.key)
	}
	if op.pinned {
		s.cache.unpin(op.key)
	}
}

func (s *Store) groupDone(ops int, took time.Duration) {
	s.commits.Add(1)
	s.commitOps.Add(uint64(ops))
	if s.observed() {
		s.tell(Event{Kind: CommitDone, Count: ops, Duration: took})
	}
}
