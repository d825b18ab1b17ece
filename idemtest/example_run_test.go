package idemtest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// shelf is an engine of one's own: a map. What it holds is lost when it is closed.
type shelf struct {
	mu            sync.Mutex
	entries       map[string]*engine.Entry
	bound, closed bool
}

func newShelf() *shelf { return &shelf{entries: make(map[string]*engine.Entry)} }

// Bind says that whatever was recorded up to now may be lost.
func (s *shelf) Bind(host engine.Host) (engine.Binding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return engine.Binding{}, idem.ErrClosed
	case s.bound:
		return engine.Binding{}, fmt.Errorf("%w: this shelf has a store", idem.ErrInvalid)
	}
	s.bound = true
	var saved engine.Meta
	wall, _ := host.Clock.Now()
	saved.Lose(wall)
	return engine.Binding{Saved: saved}, nil
}

func (s *shelf) Read(_ context.Context, key string) (*engine.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key], nil
}

// Apply holds the lock from Run until the change can be read.
func (s *shelf) Apply(ctx context.Context, ops []engine.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		next, changed := op.Run(s.entries[op.Key()], nil)
		switch {
		case !changed:
			continue
		case next == nil:
			delete(s.entries, op.Key())
		default:
			s.entries[op.Key()] = next
		}
		op.Committed()
	}
	return nil
}

func (s *shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// testShelf is what the engine's own package calls TestConformance.
func testShelf(t *testing.T) {
	idemtest.Run(t, idemtest.Harness{
		Open:     func(testing.TB, string) engine.Backend { return newShelf() },
		Volatile: true, // so no files to open again, to crash or to damage
	})
}

// A whole engine, and its test. Cases that need a hook which the Harness does not have are
// skipped, and say what they did not show.
func ExampleRun() {
	var t *testing.T // of func TestConformance(t *testing.T)
	testShelf(t)
}
