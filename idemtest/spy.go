package idemtest

import (
	"context"
	"sync"
	"time"

	"github.com/idemkv/idem/engine"
)

// spy sits between a store and its engine and records what the store asks for. Set its
// hooks before the store is opened, or while no call is under way.
type spy struct {
	engine.Backend

	// meta, if set, returns what the engine is told to save.
	meta func(engine.Meta) engine.Meta
	// bound, if set, returns what the store is told was saved.
	bound func(engine.Meta) engine.Meta
	// beforeApply runs when Apply is called.
	beforeApply func()
	// afterExpiring runs when Expiring has returned.
	afterExpiring func(places []engine.Due)

	mu       sync.Mutex
	saved    engine.Meta // what Bind returned
	applies  []int       // how many ops each Apply had
	expiring []int       // the limit of each Expiring
}

// spied returns the spy that the case's store is opened with from now on.
func (e *env) spied() *spy {
	s := &spy{}
	e.wrap = func(b engine.Backend) engine.Backend {
		s.Backend = b
		return s
	}
	return s
}

func (s *spy) Bind(h engine.Host) (engine.Binding, error) {
	if meta := h.Meta; s.meta != nil {
		h.Meta = func() engine.Meta { return s.meta(meta()) }
	}
	b, err := s.Backend.Bind(h)
	if s.bound != nil {
		b.Saved = s.bound(b.Saved)
	}
	s.saved = b.Saved
	return b, err
}

func (s *spy) Apply(ctx context.Context, ops []engine.Op) error {
	s.mu.Lock()
	s.applies = append(s.applies, len(ops))
	s.mu.Unlock()
	if s.beforeApply != nil {
		s.beforeApply()
	}
	return s.Backend.Apply(ctx, ops)
}

func (s *spy) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	return s.Backend.(engine.Scanner).Scan(ctx, prefix, cursor)
}

func (s *spy) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) ([]engine.Due, error) {
	s.mu.Lock()
	s.expiring = append(s.expiring, limit)
	s.mu.Unlock()
	places, err := s.Backend.(engine.Expirer).Expiring(ctx, from, until, limit)
	if s.afterExpiring != nil {
		s.afterExpiring(places)
	}
	return places, err
}

func (s *spy) Check(ctx context.Context) error {
	if checker, ok := s.Backend.(engine.Checker); ok {
		return checker.Check(ctx)
	}
	return nil
}

func (s *spy) Size() (int64, error) {
	if sizer, ok := s.Backend.(engine.Sizer); ok {
		return sizer.Size()
	}
	return 0, nil
}

// takeApplies returns the sizes of the Apply calls since it was last called.
func (s *spy) takeApplies() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.applies
	s.applies = nil
	return taken
}

// lateClock is a Clock that holds back its timers, once they are due, until letGo.
type lateClock struct {
	*Clock
	mu   sync.Mutex
	kept []func()
}

func (c *lateClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.Clock.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kept = append(c.kept, f)
	})
}

// letGo runs the timers held back and returns how many there were.
func (c *lateClock) letGo() int {
	c.mu.Lock()
	kept := c.kept
	c.kept = nil
	c.mu.Unlock()
	for _, f := range kept {
		f()
	}
	return len(kept)
}
