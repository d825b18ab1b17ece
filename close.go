package idem

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Close ends the store: calls under way end with their answer, waiting ones and
// later ones with ErrClosed, the sweeper stops, and the engine saves the time and
// is closed. It may be called more than once and returns the engine's error.
func (s *Store) Close() error {
	s.tellBroken()
	s.closeOnce.Do(func() {
		close(s.closing)
		closed := ErrClosed
		s.ended.Store(&closed)
		s.downOnce.Do(func() { close(s.down) })
		if s.sweeper != nil {
			s.sweeper.Close()
		}
		s.granting.close()
		s.awaitCalls()
		s.closeErr = s.backend.Close()
	})
	return s.closeErr
}

// brokenWait is how long Close waits for calls into an engine that is broken: one
// may be stuck there for good.
const brokenWait = 2 * time.Second

// awaitCalls refuses new calls into the engine and waits for those under way.
func (s *Store) awaitCalls() {
	idle := s.calls.close()
	select {
	case <-idle:
		return
	case <-s.broke:
	}
	timer := time.NewTimer(brokenWait)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// Shutdown ends the store in order: new claims get ErrClosed, while token
// operations pass until no claim granted or extended by this store is open (settled,
// lapsed or forgotten ones are not) or ctx ends; then it closes. It returns ctx's error
// if that cut it short, joined with Close's.
func (s *Store) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.shutOnce.Do(func() { close(s.shutting) })
	granting := s.granting.close()
	select {
	case <-granting:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.Close())
	case <-s.down:
		return s.Close()
	}
	for {
		now, _ := s.time.now()
		left := s.open.until(now)
		if left <= 0 {
			return s.Close()
		}
		lapsed := make(chan struct{})
		stop := s.opts.Clock.AfterFunc(left, func() { close(lapsed) })
		select {
		case <-s.open.settled:
		case <-lapsed:
		case <-ctx.Done():
			stop()
			return errors.Join(ctx.Err(), s.Close())
		case <-s.down:
		}
		stop()
		if s.ended.Load() != nil {
			return s.Close()
		}
	}
}

// openClaims holds the lease ends of the claims of this opening that are in flight,
// by fence.
type openClaims struct {
	shards  [openShards]openShard
	settled chan struct{} // gets a token when a claim is not in flight any more
}

const openShards = 32

type openShard struct {
	mu     sync.Mutex
	leases map[uint64]Instant
}

func (o *openClaims) init() {
	o.settled = make(chan struct{}, 1)
	for i := range o.shards {
		o.shards[i].leases = make(map[uint64]Instant)
	}
}

func (o *openClaims) shard(fence uint64) *openShard { return &o.shards[fence%openShards] }

func (o *openClaims) changed(op *Op, opening uint64) {
	open := func(e *Entry) bool { return e != nil && e.State == InFlight && e.Opening == opening }
	was, is := open(op.prev), open(op.next)
	if is {
		s := o.shard(op.next.Fence)
		s.mu.Lock()
		s.leases[op.next.Fence] = op.next.LeaseUntil
		s.mu.Unlock()
	}
	if was && !(is && op.next.Fence == op.prev.Fence) {
		s := o.shard(op.prev.Fence)
		s.mu.Lock()
		delete(s.leases, op.prev.Fence)
		s.mu.Unlock()
		select {
		case o.settled <- struct{}{}:
		default:
		}
	}
}

// until returns how long a claim may still be open: zero or less if none is.
func (o *openClaims) until(now Instant) time.Duration {
	latest := now
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		for _, lease := range s.leases {
			latest = max(latest, lease)
		}
		s.mu.Unlock()
	}
	return time.Duration(latest - now)
}

// setBroken ends the store with err; see Host.Broken.
func (s *Store) setBroken(err error) {
	s.brokeOnce.Do(func() { close(s.broke) })
	if s.ended.CompareAndSwap(nil, &err) {
		s.downOnce.Do(func() { close(s.down) })
	}
}

// endedErr is the answer of a store that has ended.
func (s *Store) endedErr() error {
	end := s.ended.Load()
	if end == nil { // closing has begun: ended is set before calls are refused
		return ErrClosed
	}
	s.tellBroken()
	return *end
}

// outranked is err, or ErrClosed if the store was closed meanwhile and err says
// no more than that the store has ended.
func (s *Store) outranked(err error) error {
	if err == nil || !errors.Is(err, ErrBroken) && !errors.Is(err, ErrClosed) {
		return err
	}
	if s.ended.Load() != nil {
		return s.endedErr()
	}
	return err
}

// tellBroken sends StoreBroken once, from the first call that hears of it.
func (s *Store) tellBroken() {
	end := s.ended.Load()
	if end == nil || !s.observed() || !errors.Is(*end, ErrBroken) {
		return
	}
	if s.brokenTold.CompareAndSwap(false, true) {
		s.tell(Event{Kind: StoreBroken, Err: *end})
	}
}
