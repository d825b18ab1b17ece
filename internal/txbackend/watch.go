package txbackend

import (
	"sync/atomic"
	"time"
)

// stallTicks is how often a commit is seen under way before it counts as stalled.
// Ticks are counted and not time: in a process that was stopped, or on a machine that
// was asleep, at most one has passed.
const stallTicks = 30

// watch finds the commit that does not return. Its timer runs while commits are under
// way, however many, and ends with the first tick that finds none. A commit costs it
// two additions.
//
// The timer is not of the store's clock. Whether a disk is stuck is a matter of real
// time, and a test that moves a clock of its own by hours means no stuck disk.
type watch struct {
	every   time.Duration
	stalled func()
	timer   *time.Timer

	seq atomic.Uint64 // odd while a commit is under way
	on  atomic.Bool   // the timer runs

	// The timer's:
	last  uint64 // the commit that was under way
	ticks int    // that saw it
}

// newWatch returns a watch that calls stalled when one commit takes longer than about
// stall.
func newWatch(stall time.Duration, stalled func()) *watch {
	w := &watch{every: max(stall/stallTicks, 1), stalled: stalled}
	w.on.Store(true) // first: the tick that finds no commit takes it back
	w.timer = time.AfterFunc(w.every, w.tick)
	return w
}

// begin and end stand around a commit. A nil watch sees none.
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

// stop follows the last end.
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
		if w.seq.Load()%2 == 1 { // it began just now, and may have seen on
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
