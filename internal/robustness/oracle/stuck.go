package oracle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
)

// Stuck is a store whose disk does not answer in the middle of a commit. How long that
// lasts is set by channels, not by the clock. Readers are answered from what was
// durable before. Callers waiting for a commit wait, unless their context ends before
// they have joined one. Close waits too. When the disk answers, everything is as if it
// always had.
type Stuck struct {
	Open  func(idem.Options) (Subject, error)
	Clock idem.Clock
	// Stick is called before the commit that gets stuck. Reached returns when it is
	// stuck. Release makes the disk answer again.
	Stick, Reached, Release func()
	// Unsure: the call that is held up may not belong to the commit, which then ends.
	Unsure bool
	// Close: the store is closed while its disk does not answer.
	Close bool
	// CacheOnly: the commit is stuck where the engine keeps its readers out too, and
	// only what the cache holds is answered.
	CacheOnly bool
	// Rehearsal: the commits are made, and none gets stuck.
	Rehearsal bool
	Watch     func(what string, f func()) error // as in Trial
}

// Run runs the trial. The commits up to and including the one that gets stuck are made
// on the caller's goroutine, one after the other, and are always the same.
func (k *Stuck) Run(ctx context.Context) error {
	if k.Watch == nil {
		k.Watch = progress.Watch{}.Run
	}
	s, err := k.Open(idem.Options{Clock: k.Clock, SweepInterval: -1, Stall: -1})
	if err != nil {
		return err
	}
	c := &stuckCase{Stuck: k, ctx: ctx, s: s}
	if err := c.prepare(); err != nil {
		return err
	}
	if k.Stick != nil {
		k.Stick()
	}
	if k.Rehearsal {
		_, err := s.Store.Claim(ctx, idem.Request{Key: "new"})
		k.Release()
		return err
	}
	under, cancel := context.WithCancel(ctx)
	defer cancel()
	looked := make(chan error, 1)
	go func() {
		err := c.reached()
		if err == nil {
			err = c.look(cancel)
		}
		looked <- err
		k.Release()
	}()
	claim, err := s.Store.Claim(under, idem.Request{Key: "new"})
	close(c.answered)
	if err := <-looked; err != nil {
		return err
	}
	if err != nil || claim.Token.Fence == 0 {
		return fmt.Errorf("the claim whose commit was stuck, its context cancelled meanwhile, got %w; it was granted", err)
	}
	return c.afterwards(claim.Token)
}

type stuckCase struct {
	*Stuck
	ctx      context.Context
	s        Subject
	open     idem.Token
	answered chan struct{} // closed when the stuck commit has an answer
	behind   chan error    // of a claim that waits for the next commit
	closed   chan error    // of Close, if it was called
}

// errNotStuck means that the trial has failed, not the store.
var errNotStuck = errors.New("the disk that should not answer did")

// reached waits until the commit is stuck.
func (c *stuckCase) reached() error {
	reached := make(chan struct{})
	go func() {
		defer close(reached)
		c.Reached()
	}()
	var answered chan struct{}
	if c.Unsure {
		answered = c.answered
	}
	var err error
	hangs := c.Watch("a disk that should not answer", func() {
		select {
		case <-reached:
		case <-answered:
			err = errNotStuck
		}
	})
	return errors.Join(err, hangs)
}

func (c *stuckCase) prepare() error {
	c.answered, c.behind, c.closed = make(chan struct{}), make(chan error, 1), make(chan error, 1)
	store := c.s.Store
	var errs []error
	for _, key := range []string{"done", "failed", "held", "open"} {
		claim, err := store.Claim(c.ctx, idem.Request{Key: key, Lease: time.Hour})
		errs = append(errs, err)
		switch key {
		case "done":
			err = store.Complete(c.ctx, claim.Token, []byte("result"))
		case "failed":
			err = store.Fail(c.ctx, claim.Token, []byte("reason"))
		case "held":
			err = store.Hold(c.ctx, claim.Token, []byte("note"))
		case "open":
			c.open = claim.Token
		}
		errs = append(errs, err)
	}
	for _, key := range []string{"done", "failed"} { // look-ups fill the cache
		_, err := store.Get(c.ctx, key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// waiting returns an error if the stuck commit was answered.
func (c *stuckCase) waiting() error {
	for range 200 { // give callers that must not go on every chance to
		runtime.Gosched()
	}
	select {
	case <-c.answered:
		return errors.New("a claim was answered before its commit was durable")
	case err := <-c.closed:
		return fmt.Errorf("a commit was under way, and Close returned: %w", err)
	default:
		return nil
	}
}

// look uses the store while the commit is stuck.
func (c *stuckCase) look(cancel func()) error {
	store, ctx := c.s.Store, c.ctx
	r := func(key string) idem.Request { return idem.Request{Key: key} }
	var wrong, hangs error
	is := func(what string, want error, do func() error) {
		if hangs != nil {
			return
		}
		var err error
		if hangs = c.Watch(what+" during a commit", func() { err = do() }); hangs != nil {
			wrong = errors.Join(wrong, hangs)
		} else if !errors.Is(err, want) {
			wrong = errors.Join(wrong, fmt.Errorf("%s during a commit gives %v, want %v", what, err, want))
		}
	}
	claim := func(key string) func() error {
		return func() error {
			got, err := store.Claim(ctx, r(key))
			if key == "done" && string(got.Record.Result) != "result" {
				return fmt.Errorf("replayed %q, %w", got.Record.Result, err)
			}
			return err
		}
	}
	get := func(key string) func() error {
		return func() error { _, err := store.Get(ctx, key); return err }
	}
	wait := func(key string) func() error {
		return func() error { _, err := store.Wait(ctx, key); return err }
	}
	// What is durable, and nothing else. No call waits for a commit.
	is("a replay", idem.ErrCompleted, claim("done"))
	is("a replayed failure", idem.ErrFailed, claim("failed"))
	is("Get", nil, get("done"))
	is("Wait", nil, wait("failed"))
	if !c.CacheOnly {
		c.lookFurther(is, claim, get, wait)
	}
	cancel()
	go func() {
		_, err := store.Claim(ctx, r("behind"))
		c.behind <- err
	}()
	wrong = errors.Join(wrong, c.waiting())
	if !c.Close || wrong != nil {
		return wrong
	}
	go func() { c.closed <- store.Close() }()
	is("a call after Close", nil, func() error {
		for !errors.Is(get("done")(), idem.ErrClosed) {
			runtime.Gosched()
		}
		return nil
	})
	is("a claim after Close", idem.ErrClosed, claim("another"))
	return errors.Join(wrong, c.waiting())
}

// lookFurther makes the calls that read the engine.
func (c *stuckCase) lookFurther(is func(string, error, func() error), claim, get, wait func(key string) func() error) {
	store, ctx := c.s.Store, c.ctx
	r := func(key string) idem.Request { return idem.Request{Key: key} }
	is("a claim of what is held", idem.ErrHeld, claim("held"))
	is("a claim of what is in flight", idem.ErrInFlight, claim("open"))
	is("Get of what is in flight", nil, get("open"))
	is("Get of the key under way", idem.ErrNotFound, get("new"))
	is("Wait for the key under way", idem.ErrNotFound, wait("new"))
	is("idem.Do of a completed key", nil, func() error {
		_, _, err := idem.Do(ctx, store, r("done"), func(context.Context, idem.Claim) ([]byte, error) {
			return nil, errors.New("it was run")
		})
		return err
	})
	is("the engine's Do of a completed key", nil, func() error {
		_, _, err := c.s.Do(ctx, r("done"), func(KV) ([]byte, error) { return nil, errors.New("it was run") })
		return err
	})
	is("ClaimMany of completed keys", idem.ErrCompleted, func() error {
		return store.ClaimMany(ctx, []idem.Request{r("done")})[0].Err
	})
	is("Records", nil, func() error {
		seen := 0
		for rec, err := range store.Records(ctx, idem.Filter{}) {
			if seen++; err != nil || rec.Key == "new" {
				return fmt.Errorf("key %q is listed, %w", rec.Key, err)
			}
		}
		if seen != 4 {
			return fmt.Errorf("%d records are listed, and there are 4", seen)
		}
		return nil
	})
	is("Stats", nil, func() error { _, err := store.Stats(ctx); return err })

	// Callers that have not joined a commit can leave; others cannot.
	is("a queued claim whose context ends", context.Canceled, c.cancelled(func(ctx context.Context) error {
		_, err := store.Claim(ctx, r("queued"))
		return err
	}))
	is("a queued checkpoint whose context ends", context.Canceled, c.cancelled(func(ctx context.Context) error {
		return store.Checkpoint(ctx, c.open, []byte("never"))
	}))
	is("Wait whose context ends", context.Canceled, c.cancelled(func(ctx context.Context) error {
		_, err := store.Wait(ctx, "open")
		return err
	}))
	is("Update whose context ends", context.Canceled, c.cancelled(func(ctx context.Context) error {
		return c.s.Update(ctx, func(KV) error { return errors.New("it was run") })
	}))
}

// cancelled returns f with a context that ends while f waits.
func (c *stuckCase) cancelled(f func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := context.WithCancel(c.ctx)
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		for range 200 {
			runtime.Gosched()
		}
		cancel()
		return <-done
	}
}

// afterwards checks that the disk's silence has changed nothing.
func (c *stuckCase) afterwards(granted idem.Token) error {
	var behind, closed error
	err := c.Watch("who queued", func() { behind = <-c.behind })
	if err == nil && !c.Close {
		go func() { c.closed <- c.s.Store.Close() }()
	}
	if err == nil {
		err = c.Watch("Close", func() { closed = <-c.closed })
	}
	if err != nil {
		return err
	}
	if closed != nil {
		return fmt.Errorf("closing: %w", closed)
	}
	if behind != nil && (!c.Close || !errors.Is(behind, idem.ErrClosed)) {
		return fmt.Errorf("a claim that queued behind it got %w", behind)
	}
	s, err := c.Open(idem.Options{Clock: c.Clock, SweepInterval: -1, Stall: -1})
	if err != nil {
		return err
	}
	var wrong []error
	for key, there := range map[string]bool{"new": true, "behind": behind == nil, "queued": false, "another": false} {
		r, err := s.Store.Get(c.ctx, key)
		if there && (err != nil || r.State != idem.InFlight) || !there && !errors.Is(err, idem.ErrNotFound) {
			wrong = append(wrong, fmt.Errorf("afterwards key %q is %v, %w; there: %v", key, r.State, err, there))
		}
		if key == "new" && r.Token() != granted {
			wrong = append(wrong, fmt.Errorf("afterwards key %q has fence %d, and %d was granted", key, r.Fence, granted.Fence))
		}
	}
	if r, err := s.Store.Get(c.ctx, "open"); err != nil || r.State != idem.InFlight {
		wrong = append(wrong, fmt.Errorf("afterwards the completion that was cancelled has taken effect: %v, %w", r.State, err))
	}
	return errors.Join(append(wrong, s.Store.Close())...)
}
