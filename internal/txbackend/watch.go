package txbackend

import (
	"sync/atomic"
	"time"
)

// stallTicks is how many ticks must find a commit under way before it counts as
// stalled. It counts ticks and not time: while a process was stopped or a machine
// asleep, at most one tick has passed.
const stallTicks = 30

// watch finds a commit that does not return. Its timer runs while any commits are under
// way, and stops at the first tick that finds none. A commit costs it two additions.
//
// It does not use the store's clock. Whether a disk is stuck is a matter of real time,
// and a test that moves its own clock by hours does not mean a stuck disk.
type watch struct {
	every   time.Duration
	stalled func()
	timer   *time.Timer

	seq atomic.Uint64 // odd while a commit is under way
	on  atomic.Bool   // the timer is running

	// Used by the timer only:
	last  uint64 // the commit that was under way
	ticks int    // how many ticks have seen it
}

// newWatch returns a watch that calls stalled when one commit takes longer than about
// stall.
func newWatch(stall time.Duration, stalled func()) *watch {
	w := &watch{every: max(stall/stallTicks, 1), stalled: stalled}
	w.on.Store(true) // first: the tick that finds no commit resets it
	w.timer = time.AfterFunc(w.every, w.tick)
	return w
}

// begin and end enclose a commit. A nil watch ignores them.
func (w *watch) begin() {
	if w == nil {
		return
	}
	w.seq.Add(1)
	w.arm()
}

func (w *watch) end() {
	if w != nil {
		w.seq.Add(1)
	}
}

// stop must be called after the last end.
func (w *watch) stop() {
	if w != nil {
		w.timer.Stop()
	}
}

func (w *watch) arm() {
	if !w.on.Load() && w.on.CompareAndSwap(false, true) {
		w.timer.Reset(w.every)
	}
}

func (w *watch) tick() {
	seq := w.seq.Load()
	if seq%2 == 0 {
		w.on.Store(false)
		if w.seq.Load()%2 == 1 { // one began just now, and may have read on as true
			w.arm()
		}
		return
	}
	if seq != w.last {
		w.last, w.ticks = seq, 0
	}
	if w.ticks++; w.ticks >= stallTicks {
		w.stalled()
		return
	}
	w.timer.Reset(w.every)
}
