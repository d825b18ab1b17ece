package txbackend

import (
	"sync/atomic"

	"github.com/idemkv/idem/internal/stripe"
)

// Readers keeps what an engine looks records up with, an iterator or a read
// transaction, from one look-up to the next: to open and close one costs as much as a
// look-up. One sees the database as it was when it was opened, so that it is used
// again only as long as nothing was committed since. What a look-up returns is then
// what was there when the look-up began.
//
// What is kept holds pages and files of the database. So everything idle is closed at
// the next commit, and none is kept that was in use then.
type Readers[R any] struct {
	open  func() (R, error)
	close func(R)
	epoch atomic.Uint64 // of what is kept; odd: nothing is kept
	idle  [idleReaders]struct {
		atomic.Pointer[Reader[R]]
		_ [56]byte // to a cache line
	}
}

// idleReaders is how many are kept: more are open only where more processors look
// records up at once.
const idleReaders = 8

// Reader is one that was got and not put back yet.
type Reader[R any] struct {
	R     R
	epoch uint64
}

// Init says how a reader is opened and closed. Closing tells nothing: what a reader
// meets, its look-ups must tell.
func (rs *Readers[R]) Init(open func() (R, error), close func(R)) { rs.open, rs.close = open, close }

// Get returns a reader of what is committed by now, for the caller alone until it is
// put back, or dropped after an error.
func (rs *Readers[R]) Get() (*Reader[R], error) {
	epoch := rs.epoch.Load() // before it is opened: it may see more than its epoch has
	first := stripe.Index()
	for i := range uintptr(idleReaders) {
		slot := &rs.idle[(first+i)%idleReaders]
		if slot.Load() == nil {
			continue
		}
		if r := slot.Swap(nil); r != nil {
			if r.epoch == epoch {
				return r, nil
			}
			rs.close(r.R)
		}
	}
	r, err := rs.open()
	if err != nil {
		return nil, err
	}
	return &Reader[R]{R: r, epoch: epoch}, nil
}

// Put takes a reader back.
func (rs *Readers[R]) Put(r *Reader[R]) {
	first := stripe.Index()
	for i := range uintptr(idleReaders) {
		if !rs.keeps(r) {
			break
		}
		slot := &rs.idle[(first+i)%idleReaders]
		if slot.Load() != nil || !slot.CompareAndSwap(nil, r) {
			continue
		}
		// Hold may have been here just before, and counts on nothing being left.
		if !rs.keeps(r) && slot.CompareAndSwap(r, nil) {
			break
		}
		return
	}
	rs.close(r.R)
}

func (rs *Readers[R]) keeps(r *Reader[R]) bool { return r.epoch%2 == 0 && r.epoch == rs.epoch.Load() }

// Drop closes a reader instead of putting it back.
func (rs *Readers[R]) Drop(r *Reader[R]) { rs.close(r.R) }

// Hold closes what is idle and keeps nothing from then on: when it has returned,
// readers are open only as long as a look-up takes. Calls of Hold and Renew do not
// overlap.
func (rs *Readers[R]) Hold() {
	if rs.epoch.Load()%2 == 0 {
		rs.epoch.Add(1)
	}
	for i := range rs.idle {
		if r := rs.idle[i].Swap(nil); r != nil {
			rs.close(r.R)
		}
	}
}

// Renew keeps readers that are opened from now on. It is called when a commit can be
// seen, before anybody is told of it, after Hold.
func (rs *Readers[R]) Renew() { rs.epoch.Add(1) }

// Idle counts what is kept.
func (rs *Readers[R]) Idle() (n int) {
	for i := range rs.idle {
		if rs.idle[i].Load() != nil {
			n++
		}
	}
	return n
}
