package pebble

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// compactions is a database that wants compactions, as Pebble does: what is refused
// waits until it is granted, and is asked for no more.
type compactions struct {
	mu      sync.Mutex
	allowed int
	waiting int
	handles []pebble.CompactionGrantHandle // of those that run
	// asked is called when the scheduler has been told that nothing waits, where Pebble
	// has let go of its lock and the scheduler does not know the answer yet.
	asked func()
}

func (c *compactions) GetAllowedWithoutPermission() int { return c.allowed }

func (c *compactions) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	c.mu.Lock()
	waiting, asked := c.waiting > 0, c.asked
	c.mu.Unlock()
	if !waiting && asked != nil {
		asked()
	}
	return waiting, pebble.WaitingCompaction{}
}

func (c *compactions) Schedule(h pebble.CompactionGrantHandle) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == 0 {
		return false
	}
	c.waiting--
	c.handles = append(c.handles, h)
	return true
}

// want is what Pebble does when it finds that it should compact.
func (c *compactions) want(s *scheduler) {
	ok, h := s.TrySchedule()
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.handles = append(c.handles, h)
	} else {
		c.waiting++
	}
}

func (c *compactions) end() {
	c.mu.Lock()
	h := c.handles[0]
	c.handles = c.handles[1:]
	c.mu.Unlock()
	h.Done()
}

func (c *compactions) counts() (running, waiting int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.handles), c.waiting
}

func scheduling(t *testing.T, allowed int, test func(t *testing.T, s *scheduler, c *compactions)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := &scheduler{}, &compactions{allowed: allowed}
		s.Register(2, c)
		test(t, s, c)
		s.Unregister()
	})
}

// As many run as are allowed, and the end of one lets the next one begin.
func TestSchedulerKeepsToWhatIsAllowed(t *testing.T) {
	scheduling(t, 2, func(t *testing.T, s *scheduler, c *compactions) {
		ended := 0
		s.done = func() { ended++ }
		for range 5 {
			c.want(s)
		}
		for _, want := range [][2]int{{2, 3}, {2, 2}, {2, 1}, {2, 0}, {1, 0}} {
			synctest.Wait()
			running, waiting := c.counts()
			require.Equal(t, want, [2]int{running, waiting})
			c.end()
		}
		synctest.Wait()
		running, _ := c.counts()
		require.Zero(t, running)
		require.Equal(t, 5, ended)
	})
}

// A flush can raise what is allowed, and Pebble says so.
func TestSchedulerHearsOfMoreRoom(t *testing.T) {
	scheduling(t, 1, func(t *testing.T, s *scheduler, c *compactions) {
		c.want(s)
		c.want(s)
		c.allowed = 2
		s.UpdateGetAllowedWithoutPermission()
		synctest.Wait()
		running, waiting := c.counts()
		require.Equal(t, [2]int{2, 0}, [2]int{running, waiting})
	})
}

// What comes to wait just when the scheduler has seen that nothing does, is not left
// waiting with nothing running.
func TestSchedulerForgetsNobody(t *testing.T) {
	scheduling(t, 1, func(t *testing.T, s *scheduler, c *compactions) {
		c.want(s)
		c.asked = func() {
			c.mu.Lock()
			c.asked = nil
			c.mu.Unlock()
			c.want(s)
		}
		c.end()
		synctest.Wait()
		running, waiting := c.counts()
		require.Equal(t, [2]int{1, 0}, [2]int{running, waiting})
	})
}

// Once Unregister has returned nothing is granted, and nobody is asked any more.
func TestSchedulerEnds(t *testing.T) {
	scheduling(t, 1, func(t *testing.T, s *scheduler, c *compactions) {
		c.want(s)
		c.want(s)
		asking, asked := make(chan struct{}), make(chan struct{})
		c.asked = func() { close(asking); <-asked }
		c.mu.Lock()
		c.waiting = 0 // it was found needless meanwhile
		c.mu.Unlock()
		c.end()
		<-asking
		ended := false
		go func() { s.Unregister(); ended = true }()
		synctest.Wait()
		require.False(t, ended, "grant is still at it")
		close(asked)
		synctest.Wait()
		require.True(t, ended)
		c.asked = func() { t.Error("asked after the end") }
		s.UpdateGetAllowedWithoutPermission()
		c.want(s)
		synctest.Wait()
		running, waiting := c.counts()
		require.Equal(t, [2]int{0, 1}, [2]int{running, waiting})
	})
}
