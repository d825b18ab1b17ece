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
	assert.Nil(t, idle.enter())

	var c calls
	c.init()
	one, two := c.enter(), c.enter()
	require.NotNil(t, one)
	require.NotNil(t, two)
	require.True(t, c.any())
	done := c.close()
	assert.False(t, isClosed(done))
	assert.Nil(t, c.enter(), "closed")
	one.leave()
	assert.Nil(t, c.enter(), "closed, one is still inside")
	assert.False(t, isClosed(done), "a call that was refused is not the last to leave")
	require.True(t, c.any())
	two.leave()
	require.False(t, c.any())
	assert.True(t, isClosed(done))
	assert.True(t, isClosed(c.close()), "closing again")
	assert.Nil(t, c.enter())
}

// Whatever the order, nobody is inside once close's channel is closed.
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
				for in := c.enter(); in != nil; in = c.enter() {
					inside.Add(1)
					if closed.Load() {
						t.Error("a call was let in after close had returned")
					}
					entered.Add(1)
					inside.Add(-1)
					in.leave()
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
