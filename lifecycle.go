package idem

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
)

// lifecycle is the store's progress from open to closed, and the calls still inside. A
// store starts open. It may drain (Shutdown), it may break, and it ends closed.
type lifecycle struct {
	calls    calls                 // into the engine
	granting atomic.Pointer[calls] // claims that may yet be granted
	renewing sync.Mutex            // of granting and earlier
	earlier  []<-chan struct{}     // closed when the claims from before it was renewed have their answer
	draining atomic.Bool           // no more claims are granted
	ended    atomic.Pointer[error] // why the store answers nothing more; nil while it does
	down     signal                // ended is set
	broke    signal                // the engine has broken
	leaving  signal                // Shutdown or Close has begun: nobody waits for observers
	closing  sync.Once
	closeErr error
	told     atomic.Bool // StoreBroken was sent
}

// signal is a channel that is closed once.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func (s *signal) set() { s.once.Do(func() { close(s.c) }) }

func (l *lifecycle) init() {
	l.calls.init()
	l.renewGranting()
	for _, s := range [...]*signal{&l.down, &l.broke, &l.leaving} {
		s.c = make(chan struct{})
	}
}

// end ends the store with why. The first cause wins, except that ErrClosed replaces a
// failure.
func (l *lifecycle) end(why error) {
	if why == ErrClosed {
		l.ended.Store(&why)
	} else {
		l.broke.set()
		l.ended.CompareAndSwap(nil, &why)
	}
	l.down.set()
}

// renewGranting counts claims anew. It returns the count so far, nil if there was none.
func (l *lifecycle) renewGranting() *calls {
	c := new(calls)
	c.init()
	return l.granting.Swap(c)
}

// enterGranting counts a claim in. It returns nil if no claims are granted any more.
func (l *lifecycle) enterGranting() *callCount {
	for {
		c := l.granting.Load()
		if in := c.enter(); in != nil || c == l.granting.Load() {
			return in
		}
	}
}

// closeGranting refuses claims for good. All channels are closed when those under way
// have their answer.
func (l *lifecycle) closeGranting() []<-chan struct{} {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	l.draining.Store(true)
	return append(slices.Clip(l.earlier), l.granting.Load().close())
}

// outwaitClaims waits until the claims that are under way have their answer, while others
// go on.
func (l *lifecycle) outwaitClaims(ctx context.Context) error {
	l.renewing.Lock()
	if l.draining.Load() {
		l.renewing.Unlock()
		return ErrClosed
	}
	under := append(slices.DeleteFunc(l.earlier, answered), l.renewGranting().close())
	l.earlier = slices.Clip(under) // if this gives up, the next has to wait for them
	l.renewing.Unlock()
	for _, c := range under {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.down.c:
			return *l.ended.Load()
		}
	}
	return nil
}

// answered reports whether c is closed.
func answered(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// brokenWait is how long Close waits for calls into a broken engine. One of them may be
// stuck there for good.
const brokenWait = 2 * time.Second

// awaitCalls refuses new calls into the engine and waits for those under way and for the
// sweeper, at most as long as a commit may take: below zero, as long as they take.
// Nothing breaks the engine when the operating system does not answer a read.
func (s *Store) awaitCalls() {
	left := s.calls.close()
	if sweeper := s.tracker.sweeper; sweeper != nil {
		calls, swept := left, make(chan struct{})
		go func() {
			sweeper.Close()
			<-calls
			close(swept)
		}()
		left = swept
	}
	if await(s.opts.Stall, left, s.broke.c) {
		await(brokenWait, left, nil)
	}
}

// await waits for done and reports whether over came first. It gives up after d, below
// zero never. A process that was stopped has most of d left when it continues.
func await(d time.Duration, done, over <-chan struct{}) bool {
	const ticks = 20
	var tick <-chan time.Time
	if d >= 0 {
		ticker := time.NewTicker(max(d/ticks, 1))
		defer ticker.Stop()
		tick = ticker.C
	}
	for n := 0; n < ticks; {
		select {
		case <-done:
			return false
		case <-over:
			return true
		case <-tick:
			n++
		}
	}
	return false
}

// Close ends the store. Calls under way end with their answer; waiting and later ones
// get ErrClosed. The sweeper stops, and the engine saves the time and is closed. Close
// may be called more than once and returns the engine's error.
//
// Close returns in bounded time. It waits for calls under way no longer than
// Options.Stall, and no more than a few seconds for anything in a broken engine. A call
// stuck in the operating system is left behind. The file or directory then stays locked
// until that call returns or the process ends.
func (s *Store) Close() error {
	s.observeBroken()
	s.closing.Do(func() {
		s.leaving.set()
		s.end(ErrClosed)
		s.closeGranting()
		s.awaitCalls()
		s.closeErr = s.backend.Close()
	})
	return s.closeErr
}

// Shutdown ends the store in order. New claims get ErrClosed. Token operations go on
// until ctx ends or no claim that this store granted or extended is open; settled,
// lapsed and forgotten claims are not open. Then Shutdown closes the store. If ctx cut
// it short, it returns ctx's error joined with Close's.
//
// ErrInvalid is returned, and nothing is shut down, when ctx belongs to work that
// Shutdown would wait for: Do's function or a handler under Heartbeat. Let that return
// first.
func (s *Store) Shutdown(ctx context.Context) error {
	if s.within(ctx, func(*frame) bool { return true }) {
		return invalid("Shutdown waits for the work that calls it; call it from outside, or let the work return first")
	}
	granting := s.closeGranting()
	s.leaving.set()
	for _, answered := range granting {
		select {
		case <-answered:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.Close())
		case <-s.down.c:
			return s.Close()
		}
	}
	for {
		now, _ := s.time.now()
		left := s.tracker.open.until(now)
		if left <= 0 {
			return s.Close()
		}
		lapsed := make(chan struct{})
		stop := s.opts.Clock.AfterFunc(left, func() { close(lapsed) })
		select {
		case <-s.tracker.open.settled:
		case <-lapsed:
		case <-ctx.Done():
			stop()
			return errors.Join(ctx.Err(), s.Close())
		case <-s.down.c:
		}
		stop()
		if s.ended.Load() != nil {
			return s.Close()
		}
	}
}

// Health returns nil if a claim of a new key would be granted now: the store is open,
// intact and not shutting down, and its engine can be reached and has room. Otherwise
// it returns the error of such a claim: ErrClosed, ErrBroken, ErrFull, ErrInvalid on a
// store that was opened read-only, or ctx's error.
// It writes nothing and costs a few system calls at most.
func (s *Store) Health(ctx context.Context) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	if s.draining.Load() {
		return ErrClosed
	}
	if s.readOnly != nil {
		return s.readOnly
	}
	if s.importing.Load() {
		return importing()
	}
	c, ok := s.backend.(engine.Checker)
	if !ok {
		return nil
	}
	err := s.check(ctx, c)
	if errors.Is(err, ErrFull) && s.hasExpired(ctx) {
		return nil // a claim would make room
	}
	return err
}

// check asks the engine. If that panics and a caller recovers, Close must not wait for it.
func (s *Store) check(ctx context.Context, c engine.Checker) error {
	in := s.calls.enter()
	if in == nil {
		return s.endedErr()
	}
	defer in.leave()
	return s.outranked(c.Check(ctx))
}

// hasExpired reports whether a claim on a full store would make room: whether the slice
// it would sweep has an expired record.
func (s *Store) hasExpired(ctx context.Context) bool {
	x, ok := s.backend.(engine.Expirer)
	if !ok {
		return false
	}
	var from engine.Due
	swept := s.swept.Load()
	if swept != nil {
		from = *swept
	}
	places, err := s.expiring(ctx, x, from, s.opts.SweepSlice)
	if err == nil && len(places) == 0 && swept != nil { // a sweep would start over
		places, err = s.expiring(ctx, x, engine.Due{}, s.opts.SweepSlice)
	}
	if err != nil {
		return false
	}
	now, _ := s.time.now()
	for _, p := range places {
		if e, err := s.read(ctx, p.Key); err == nil && e != nil && !live(e, now) {
			return true
		}
	}
	return false
}

// endedErr is the answer of a store that has ended.
func (s *Store) endedErr() error {
	end := s.ended.Load()
	if end == nil { // closing has begun: ended is set before calls are refused
		return ErrClosed
	}
	s.observeBroken()
	return *end
}

// outranked returns err, or ErrClosed if err only says that the store has ended and the
// store has been closed since.
func (s *Store) outranked(err error) error {
	if err == nil || !errors.Is(err, ErrBroken) && !errors.Is(err, ErrClosed) {
		return err
	}
	if s.ended.Load() != nil {
		return s.endedErr()
	}
	return err
}

// observeBroken sends StoreBroken once, from the first call that notices.
func (s *Store) observeBroken() {
	end := s.ended.Load()
	if end == nil || !s.observed() || !errors.Is(*end, ErrBroken) {
		return
	}
	if s.told.CompareAndSwap(false, true) {
		e := Event{Kind: StoreBroken, Err: *end}
		var panicked interface{ Stack() string }
		if errors.As(*end, &panicked) {
			e.Stack = panicked.Stack()
		}
		s.observeLater(e)
	}
}
