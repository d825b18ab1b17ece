package idem

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
)

// Wait returns the record of key once it is no longer in flight under a lease that
// holds: it is completed, failed, held, released or lapsed. After a takeover or an
// extension, Wait goes on waiting.
//
// ErrNotFound is returned when there is no record, or it expires or is forgotten.
// ErrClosed and ErrBroken end the wait too. ErrInvalid is returned when ctx belongs to
// work that runs under a claim of key, which would wait for itself. The record's slices
// are shared: do not change them.
func (s *Store) Wait(ctx context.Context, key string) (Record, error) {
	if err := s.admitKey(ctx, key); err != nil {
		return Record{}, err
	}
	if err := s.inWork(ctx, key); err != nil {
		return Record{}, err
	}
	// Register before the first look, to miss no change between the two.
	w := s.tracker.waiters.add(key)
	defer s.tracker.waiters.remove(key, w)
	for {
		now, toWall := s.time.now()
		e, _, err := s.lookup(ctx, key)
		if err != nil {
			return Record{}, err
		}
		if !live(e, now) {
			return Record{}, ErrNotFound
		}
		if e.State != InFlight || lapsed(e, now, s.leasesFrom) {
			return s.record(key, e, now, toWall), nil
		}
		stop := s.opts.Clock.AfterFunc(time.Duration(e.LeaseUntil-now), w.nudge)
		select {
		case <-w.woken:
		case <-ctx.Done():
			stop()
			return Record{}, ctx.Err()
		case <-s.down.c:
		}
		stop()
		why := s.ended.Load()
		if why != nil && *why != ErrClosed {
			return Record{}, s.endedErr() // broken: it answers nothing more
		}
		if e, ended := s.tracker.waiters.outcome(w, e.Fence); ended { // closed or not, it was recorded
			now, toWall := s.time.now()
			if e == nil {
				return Record{}, ErrNotFound
			}
			return s.record(key, e, now, toWall), nil
		}
		if why != nil {
			return Record{}, s.endedErr()
		}
	}
}

// waiters are the goroutines that wait for a key. The commit hands each of them the
// record it may return. So none misses a release that is claimed again before the
// waiter runs.
type waiters struct {
	n  atomic.Int64 // all waiters: with none, a commit takes no lock
	mu sync.Mutex
	by map[string]map[*waiter]struct{}
}

type waiter struct {
	woken   chan struct{} // has room for one
	ended   bool          // outcome is set
	outcome *engine.Entry // nil: gone
	fence   uint64        // of the claim that ended so
}

func (w *waiter) nudge() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (ws *waiters) add(key string) *waiter {
	w := &waiter{woken: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.by == nil {
		ws.by = make(map[string]map[*waiter]struct{})
	}
	if ws.by[key] == nil {
		ws.by[key] = make(map[*waiter]struct{})
	}
	ws.by[key][w] = struct{}{}
	ws.n.Add(1)
	return w
}

func (ws *waiters) remove(key string, w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.by[key], w)
	if len(ws.by[key]) == 0 {
		delete(ws.by, key)
	}
	ws.n.Add(-1)
}

// wake tells the waiters of key that its entry was prev and is now e.
func (ws *waiters) wake(key string, prev, e *engine.Entry) {
	if ws.n.Load() == 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.by[key] {
		if e == nil || e.State != InFlight {
			w.ended, w.outcome, w.fence = true, e, 0
			for _, of := range [...]*engine.Entry{prev, e} {
				if of != nil {
					w.fence = max(w.fence, of.Fence)
				}
			}
		}
		w.nudge()
	}
}

// outcome returns what w may return, if w saw the claim with fence seen in flight. A
// commit can be read a little before it wakes the waiters. A waiter that arrives in
// between sees the claim that this commit granted, and must not be told how the one
// before ended.
func (ws *waiters) outcome(w *waiter, seen uint64) (*engine.Entry, bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.fence < seen {
		w.ended = false
	}
	return w.outcome, w.ended
}
