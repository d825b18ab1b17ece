package idem

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Close ends the store: calls under way end with their answer, waiting ones and
// later ones with ErrClosed, the sweeper stops, and the engine saves the time and
// is closed. It may be called more than once and returns the engine's error.
func (s *Store) Close() error {
	s.tellBroken()
	s.closeOnce.Do(func() {
		closed := ErrClosed
		s.ended.Store(&closed)
		s.downOnce.Do(func() { close(s.down) })
		if s.sweeper != nil {
			s.sweeper.Close()
		}
		s.granting.close()
		<-s.calls.close()
		s.closeErr = s.backend.Close()
	})
	return s.closeErr
}

// Shutdown ends the store in order: new claims get ErrClosed, while token
// operations pass until no claim granted by this store is open (settled, lapsed,
// or forgotten ones are not) or ctx ends; then it closes. It returns ctx's error
// if that cut it short, joined with Close's.
func (s *Store) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
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

// openClaims counts the claims of this opening that are in flight.
type openClaims struct {
	n       atomic.Int64
	latest  atomic.Int64  // the latest lease end of any of them ever, an Instant
	settled chan struct{} // gets a token when n comes down to zero
}

func (o *openClaims) init() { o.settled = make(chan struct{}, 1) }

func (o *openClaims) changed(op *Op, opening uint64) {
	open := func(e *Entry) bool { return e != nil && e.State == InFlight && e.Opening == opening }
	was, is := open(op.prev), open(op.next)
	if is {
		for until := int64(op.next.LeaseUntil); ; {
			latest := o.latest.Load()
			if until <= latest || o.latest.CompareAndSwap(latest, until) {
				break
			}
		}
	}
	switch {
	case is && !was:
		o.n.Add(1)
	case was && !is:
		if o.n.Add(-1) == 0 {
			select {
			case o.settled <- struct{}{}:
			default:
			}
		}
	}
}

// until returns how long a claim may still be open: zero or less if none is.
func (o *openClaims) until(now Instant) time.Duration {
	if o.n.Load() <= 0 {
		return 0
	}
	return time.Duration(Instant(o.latest.Load()) - now)
}

// setBroken ends the store with err; see Host.Broken.
func (s *Store) setBroken(err error) {
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
		s.emit(Event{Kind: StoreBroken, Err: *end})
	}
}
