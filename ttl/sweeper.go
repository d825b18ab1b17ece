// Package ttl paces a background sweep. The sweep runs when something is due, at most
// once an interval, in slices that take two thirds of the time. It does not run while
// nothing is due. The package knows nothing of stores: the sweep itself is a function.
package ttl

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Idle is a time that never comes. Sweep returns it when nothing will be due.
const Idle = time.Duration(math.MaxInt64)

// Options configures a Sweeper. Sweep is required. Times are durations since one fixed
// point on the caller's own timeline.
type Options struct {
	// Sweep removes one slice of what is due. more says that the slice was full and
	// another should follow, after a rest half as long as the slice took. Otherwise next
	// is when something will be due, Idle if nothing will. ctx ends when the Sweeper is
	// closed.
	Sweep func(ctx context.Context) (more bool, next time.Duration, err error)
	// Ended reports that after err there will never be anything to sweep again. Default:
	// no error ends it. After any other error the sweep is tried again, at growing
	// intervals of up to a minute.
	Ended func(err error) bool
	// Interval is the shortest time between two sweeps, except between slices of one.
	// Default 1 s.
	Interval time.Duration
	// Jitter is the part of Interval, 0 to 1, that is added at random. It keeps many
	// stores opened at once from sweeping in step. Default 0.1; negative: none.
	Jitter float64
	// Now tells the time. Default: since New.
	Now func() time.Duration
	// AfterFunc calls f once d has passed, like time.AfterFunc, and returns the timer's
	// Stop. Default: time.AfterFunc.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
}

const maxBackoff = time.Minute

// Sweeper runs Options.Sweep in its own goroutine until it is closed.
type Sweeper struct {
	o       Options
	cancel  context.CancelFunc
	done    chan struct{}
	wake    chan struct{} // has room for one
	soonest atomic.Int64  // when the next sweep is wanted
}

// New starts a Sweeper. The first sweep starts at once, because it is not yet known
// what is due.
func New(o Options) *Sweeper {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Jitter == 0 {
		o.Jitter = 0.1
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() time.Duration { return time.Since(start) }
	}
	if o.AfterFunc == nil {
		o.AfterFunc = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sweeper{o: o, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go s.run(ctx)
	return s
}

// Due tells the Sweeper that something will be due at a time it may not know of yet. It
// never blocks. It costs one atomic load, unless at is sooner than everything known.
func (s *Sweeper) Due(at time.Duration) {
	for {
		soonest := s.soonest.Load()
		if int64(at) >= soonest {
			return
		}
		if s.soonest.CompareAndSwap(soonest, int64(at)) {
			s.nudge()
			return
		}
	}
}

// Close stops the Sweeper and waits until its goroutine has ended. It may be called
// more than once.
func (s *Sweeper) Close() {
	s.cancel()
	<-s.done
}

func (s *Sweeper) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sweeper) run(ctx context.Context) {
	defer close(s.done)
	backoff := s.o.Interval
	for ctx.Err() == nil {
		// From here on Due counts: it may name times while the sweep runs.
		s.soonest.Store(int64(Idle))
		began := s.o.Now()
		more, next, err := s.o.Sweep(ctx)
		now := s.o.Now()
		pause := time.Duration(0)
		switch {
		case err != nil && s.o.Ended != nil && s.o.Ended(err):
			return
		case err != nil:
			next, pause = now, backoff
			backoff = min(2*backoff, max(maxBackoff, s.o.Interval))
		default:
			backoff = s.o.Interval
			if more {
				// Leave the machine to others for a while. About half the time of a slice
				// is spent waiting for a commit shared with them, so the rest is as long as
				// the work.
				s.Due(now)
				s.sleep(ctx, now+(now-began)/2)
				continue
			}
			pause = s.o.Interval
		}
		s.Due(next)
		if s.o.Jitter > 0 {
			pause += time.Duration(rand.Float64() * s.o.Jitter * float64(s.o.Interval))
		}
		s.sleep(ctx, now+pause)
	}
}

// sleep returns when the soonest sweep is wanted, but not before earliest.
func (s *Sweeper) sleep(ctx context.Context, earliest time.Duration) {
	for {
		at := max(time.Duration(s.soonest.Load()), earliest)
		now := s.o.Now()
		if at <= now {
			return
		}
		stop := func() bool { return true }
		if at != Idle {
			stop = s.o.AfterFunc(at-now, s.nudge)
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}
