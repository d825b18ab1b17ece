package idem

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	var idle calls
	idle.init()
	assert.True(t, isClosed(idle.close()), "nobody is inside")
	assert.False(t, idle.enter())

	var c calls
	c.init()
	require.True(t, c.enter())
	require.True(t, c.enter())
	done := c.close()
	assert.False(t, isClosed(done))
	assert.False(t, c.enter(), "closed")
	c.leave()
	assert.False(t, c.enter(), "closed, one is still inside")
	assert.False(t, isClosed(done), "a call that was refused is not the last to leave")
	c.leave()
	assert.True(t, isClosed(done))
	assert.True(t, isClosed(c.close()), "closing again")
	assert.False(t, c.enter())
}

// C7: whatever the order, nobody is inside once close's channel is closed.
func TestCallsRace(t *testing.T) {
	t.Parallel()
	for range 20 {
		var c calls
		c.init()
		var inside, entered atomic.Int64
		var closed atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for c.enter() {
					inside.Add(1)
					if closed.Load() {
						t.Error("a call was let in after close had returned")
					}
					entered.Add(1)
					inside.Add(-1)
					c.leave()
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				for entered.Load() < 20 {
					runtime.Gosched()
				}
				<-c.close()
				closed.Store(true)
				if n := inside.Load(); n != 0 {
					t.Errorf("%d calls are inside", n)
				}
			})
		}
		wg.Wait()
	}
}
