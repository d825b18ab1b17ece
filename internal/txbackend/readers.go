package txbackend

import (
	"sync/atomic"

	"github.com/idemkv/idem/internal/stripe"
)

// Readers is a pool of iterators or read transactions, which an engine looks up records
// with. Opening and closing one costs as much as a look-up. A reader sees the database
// as it was when it was opened, so it is reused only until the next commit. A look-up
// therefore returns what was there when it began.
//
// Idle readers keep pages and files of the database alive. So each commit closes all of
// them, and readers that are in use during a commit do not return to the pool.
type Readers[R any] struct {
	open  func() (R, error)
	close func(R)
	epoch atomic.Uint64 // of the readers kept; odd: none are kept
	idle  [idleReaders]struct {
		atomic.Pointer[Reader[R]]
		_ [56]byte // to a cache line
	}
}

// idleReaders is how many are kept. More are open only while more processors look up
// records at once.
const idleReaders = 8

// Reader is a reader taken from the pool.
type Reader[R any] struct {
	R     R
	epoch uint64
}

// Init sets how a reader is opened and closed. close reports nothing: look-ups must
// report what a reader meets.
func (rs *Readers[R]) Init(open func() (R, error), close func(R)) { rs.open, rs.close = open, close }

// Get returns a reader of what is committed by now. The caller has it alone and must
// Put it back, or Drop it after an error.
func (rs *Readers[R]) Get() (*Reader[R], error) {
	epoch := rs.epoch.Load() // before opening: the reader may see more than its epoch has
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

// Put returns a reader to the pool.
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
		// Hold may have run just before, and relies on nothing being left.
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

// Hold closes the idle readers and keeps none from then on. Once it has returned, a
// reader is open only as long as its look-up takes. Calls of Hold and Renew must not
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

// Renew keeps readers opened from now on. Call it after Hold, when a commit is visible
// and before anyone is told of it.
func (rs *Readers[R]) Renew() { rs.epoch.Add(1) }

// Idle returns the number of idle readers.
func (rs *Readers[R]) Idle() (n int) {
	for i := range rs.idle {
		if rs.idle[i].Load() != nil {
			n++
		}
	}
	return n
}
