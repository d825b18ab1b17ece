package ttl_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/idemkv/idem/ttl"
)

// sessions expire one after the other, in the order in which they were opened.
type sessions struct {
	start time.Time
	empty chan struct{}

	mu   sync.Mutex
	open []session
}

type session struct {
	name string
	ends time.Duration // since start
}

// sweep removes at most one session. A real one would remove a batch.
func (s *sessions) sweep(context.Context) (more bool, next time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 0 && s.open[0].ends <= time.Since(s.start) {
		fmt.Println("removed", s.open[0].name)
		s.open = s.open[1:]
		if len(s.open) == 0 {
			close(s.empty)
		}
		return true, 0, nil // there may be more
	}
	if len(s.open) == 0 {
		return false, ttl.Idle, nil
	}
	return false, s.open[0].ends, nil
}

// A Sweeper sleeps until something is due, and until it is told of something that is due
// sooner.
func Example() {
	s := &sessions{start: time.Now(), empty: make(chan struct{})}
	sweeper := ttl.New(ttl.Options{
		Sweep:    s.sweep,
		Interval: time.Millisecond,
		Now:      func() time.Duration { return time.Since(s.start) },
	})
	defer sweeper.Close()

	s.mu.Lock()
	s.open = []session{{"ann", 2 * time.Millisecond}, {"bob", 5 * time.Millisecond}}
	s.mu.Unlock()
	sweeper.Due(2 * time.Millisecond) // it had nothing to wait for
	<-s.empty
	// Output:
	// removed ann
	// removed bob
}
