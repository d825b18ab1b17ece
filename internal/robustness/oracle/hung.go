package oracle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
)

// Hung is a store whose disk stops answering for good, in the middle of traffic. Every
// caller must return: those in the commit, those waiting for the next one or for a key,
// and those closing the store. The store answers nothing afterwards, and stays locked
// for as long as the write is stuck.
type Hung struct {
	Trial // of one life, whose traffic is Load
	// Stall is the store's Options.Stall.
	Stall time.Duration
	// Early: the store is closed once its disk is stuck, before anyone has been told so.
	Early bool
	// Reached returns when Stick has stopped a commit; Release undoes it.
	Stick, Reached, Release func()
	// Elsewhere returns an error if another process can open the store.
	Elsewhere func() error
}

// Run runs the trial. What is left must be judged afterwards, as after a Trial.
func (h *Hung) Run(ctx context.Context) (err error) {
	o, ended, err := h.begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil { // traffic that went on would be blamed on another test
			h.Release()
			err = errors.Join(err, h.abandon(o, ended))
		}
	}()
	h.Stick()
	h.Reached()
	var closed <-chan error
	if h.Early {
		closed = o.closes()
	}
	var last error
	if err := h.Watch("the traffic", func() { last = <-ended }); err != nil {
		return err
	}
	if !h.Early {
		if err := o.broke(last); err != nil {
			return err
		}
		closed = o.closes()
	}
	for range closers {
		var err error
		if hangs := h.Watch("closing", func() { err = <-closed }); hangs != nil {
			return hangs
		}
		if !errors.Is(err, idem.ErrBroken) {
			return fmt.Errorf("closing a store whose disk is stuck gives %w; want ErrBroken", err)
		}
	}
	if h.Early {
		if err := h.Watch("Wait", func() { <-o.waiter }); err != nil {
			return err
		}
	}
	if err := o.everything(idem.ErrClosed); err != nil {
		return err
	}
	again, err := h.Open(idem.Options{Clock: h.Clock})
	if again.Store != nil {
		again.Store.Close()
	}
	if !errors.Is(err, idem.ErrLocked) {
		return fmt.Errorf("a write is stuck, and opening the store again gives %w; want ErrLocked", err)
	}
	if err := h.Elsewhere(); err != nil {
		return fmt.Errorf("a write is stuck: %w", err)
	}
	h.Release()
	if !h.Reopens {
		return nil
	}
	return h.reopen()
}

// begin opens the store and begins its traffic. ended gets the answer that ended the
// traffic, and is closed.
func (h *Hung) begin(ctx context.Context) (o *opening, ended <-chan error, err error) {
	if h.Watch == nil {
		h.Watch = progress.Watch{}.Run
	}
	h.Journal.Begin(Life{N: 1})
	s, err := h.Open(idem.Options{Clock: h.Clock, Stall: h.Stall, MaxResult: h.Load.MaxBytes, SweepInterval: time.Millisecond, SweepSlice: 8})
	if err != nil {
		return nil, nil, err
	}
	audit, err := h.Journal.Audit(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	l := &load{s: s, j: h.Journal, tokens: map[string][]uint64{}}
	l.id.Store(idsPerLife)
	k := &script{worker: &worker{load: l}, ctx: ctx}
	o = &opening{Trial: &h.Trial, ctx: ctx, n: 1, s: s, open: k.claim(&Op{Key: "waited for 1"})}
	o.waiter = o.waits(l)
	w := *h.Load
	w.Life, w.Ops, w.FirstID = 1, 0, l.id.Load()
	done := make(chan error, 1)
	go func() {
		done <- w.Do(ctx, s, h.Journal, audit.Records)
		close(done)
	}()
	return o, done, nil
}

// abandon ends the traffic of a failed trial.
func (h *Hung) abandon(o *opening, ended <-chan error) error {
	return h.Watch("closing after a trial that has failed", func() {
		o.s.Store.Close() // the trial has its error
		<-ended
	})
}

// closers is how many goroutines close the store at once.
const closers = 3

func (o *opening) closes() <-chan error {
	closed := make(chan error, closers)
	for _, f := range [closers]func() error{
		o.s.Store.Close, o.s.Store.Close, func() error { return o.s.Store.Shutdown(o.ctx) },
	} {
		go func() { closed <- f() }()
	}
	return closed
}

// reopen opens the store as soon as the stuck write has returned.
func (h *Hung) reopen() error {
	for tries := 0; ; tries++ {
		s, err := h.Open(idem.Options{Clock: h.Clock, SweepInterval: -1})
		if err == nil {
			return s.Store.Close()
		}
		if !errors.Is(err, idem.ErrLocked) || tries == 1000 {
			return fmt.Errorf("opening the store after the write has returned: %w", err)
		}
	}
}

// Nap uses a store while nap stops the process for longer than Stall. A stopped process
// must not count as a stuck disk.
func (h *Hung) Nap(ctx context.Context, nap func() error) error {
	o, ended, err := h.begin(ctx)
	if err != nil {
		return err
	}
	if err := nap(); err != nil {
		return err
	}
	if err := o.s.Store.Close(); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	if err := <-ended; !errors.Is(err, idem.ErrClosed) || errors.Is(err, idem.ErrBroken) {
		return fmt.Errorf("the process was stopped for a while, and the store answers %w", err)
	}
	<-o.waiter
	return nil
}
