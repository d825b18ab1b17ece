package idem

import (
	"sync"
	"sync/atomic"
)

// calls counts calls under way, so that closing can refuse new ones and wait for
// the rest. It is one atomic add to enter and one to leave.
type calls struct {
	n    atomic.Int64 // calls under way, plus closedBit once closed
	idle chan struct{}
	once sync.Once
}

const closedBit = 1 << 62

func (c *calls) init() { c.idle = make(chan struct{}) }

// enter counts a call in; false: closed, do not call and do not leave.
func (c *calls) enter() bool {
	if c.n.Add(1) < closedBit {
		return true
	}
	c.leave()
	return false
}

func (c *calls) leave() {
	if c.n.Add(-1) == closedBit {
		c.once.Do(func() { close(c.idle) })
	}
}

// any reports whether calls are under way.
func (c *calls) any() bool { return c.n.Load()&(closedBit-1) != 0 }

// close refuses new calls and returns a channel that is closed when those under
// way have left. It may be called more than once.
func (c *calls) close() <-chan struct{} {
	for {
		n := c.n.Load()
		if n >= closedBit {
			break
		}
		if c.n.CompareAndSwap(n, n+closedBit) {
			if n == 0 {
				c.once.Do(func() { close(c.idle) })
			}
			break
		}
	}
	return c.idle
}
