package idem

import (
	"sync/atomic"

	"github.com/idemkv/idem/internal/stripe"
)

// calls counts calls under way. Closing can then refuse new ones and wait for the rest.
// A call costs two atomic adds on one of several counters. With a single counter,
// look-ups on two processors that each read a record from the engine spent a tenth of
// their time passing its cache line back and forth.
type calls struct {
	counts [callCounts]callCount
	busy   atomic.Int32 // counters that are not both closed and idle yet
	idle   chan struct{}
}

const callCounts = 8

// callCount is one of the counters. It is about a cache line long, so neighbours share
// little.
type callCount struct {
	n     atomic.Int64 // calls under way, plus closedBit once closed
	ended atomic.Bool  // it was idle and closed
	all   *calls
	_     [40]byte
}

const closedBit = 1 << 62

func (c *calls) init() {
	c.idle = make(chan struct{})
	c.busy.Store(callCounts)
	for i := range c.counts {
		c.counts[i].all = c
	}
}

// enter counts a call in. It returns nil if closed: do not call. Otherwise call leave
// on the result when the call ends.
func (c *calls) enter() *callCount {
	n := &c.counts[stripe.Index()%callCounts]
	if n.n.Add(1) < closedBit {
		return n
	}
	n.leave()
	return nil
}

func (n *callCount) leave() {
	if n.n.Add(-1) == closedBit {
		n.end()
	}
}

// end runs when the count is closed and idle. That can happen more than once, because
// refused calls come and go too.
func (n *callCount) end() {
	if !n.ended.Swap(true) && n.all.busy.Add(-1) == 0 {
		close(n.all.idle)
	}
}

// any reports whether calls are under way.
func (c *calls) any() bool {
	for i := range c.counts {
		if c.counts[i].n.Load()&(closedBit-1) != 0 {
			return true
		}
	}
	return false
}

// close refuses new calls and returns a channel that is closed when those under way
// have left. It may be called more than once.
func (c *calls) close() <-chan struct{} {
	for i := range c.counts {
		n := &c.counts[i]
		for was := n.n.Load(); was < closedBit; was = n.n.Load() {
			if n.n.CompareAndSwap(was, was+closedBit) {
				if was == 0 {
					n.end()
				}
				break
			}
		}
	}
	return c.idle
}
