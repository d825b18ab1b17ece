package idemtest

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
	"github.com/idemkv/idem/internal/progress"
)

// start is the time at which the cases' clocks begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// env is what a case works with: a clock, a folder, and the store that is open on it.
// Methods that can fail end the test, so call them from the test's goroutine.
type env struct {
	t     *testing.T
	h     Harness
	ctx   context.Context
	clock *Clock
	dir   string
	opts  idem.Options
	// wrap, if set, wraps each engine that is opened.
	wrap func(engine.Backend) engine.Backend

	backend engine.Backend // as the harness opened it, not wrapped
	s       *idem.Store

	under sync.Map // chan struct{} of each call whose end within has not seen
}

func newEnv(t *testing.T, h Harness) *env {
	// Registered first, to run after everything else of the case is closed.
	mark := markGoroutines(t.Name())
	e := &env{t: t, h: h, clock: NewClock(start), dir: t.TempDir()}
	t.Cleanup(func() {
		e.hungEnd()
		if !t.Failed() {
			mark.verifyNone(t, h.Patience)
		}
	})
	// A call that would wait forever ends with ctx. Its case then fails with a line
	// number.
	ctx, cancel := context.WithCancel(context.Background())
	e.ctx = ctx
	stall := progress.Watch{Patience: 2 * h.Patience}.Start()
	go func() {
		select {
		case <-stall.Stalled():
			cancel()
		case <-ctx.Done():
		}
	}()
	t.Cleanup(func() { cancel(); stall.Stop() })
	return e
}

// hungEnd waits for calls that hung during the case and go on once the store is closed.
// They may still report something, and must not do so after the test.
func (e *env) hungEnd() {
	stall := e.watch()
	defer stall.Stop()
	e.under.Range(func(done, _ any) bool {
		select {
		case <-done.(chan struct{}):
			return true
		case <-stall.Stalled():
			return false
		}
	})
}

// open opens a store on the case's folder. It has no background sweep unless o asks for
// one, so a case's timers are its own.
func (e *env) open(o idem.Options) *idem.Store {
	e.t.Helper()
	return e.openWith(o, e.h.Open(e.t, e.dir))
}

// unbounded is how long a commit may take in the suite, unless a case says so: on a busy
// machine one takes any time, and the store must not break.
func unbounded(stall time.Duration) time.Duration { return cmp.Or(stall, -1) }

func (e *env) openWith(o idem.Options, b engine.Backend) *idem.Store {
	e.t.Helper()
	e.opts = o
	if o.Clock == nil {
		o.Clock = e.clock
	}
	if o.SweepInterval == 0 {
		o.SweepInterval = -1
	}
	o.Stall = unbounded(o.Stall)
	e.backend = b
	if e.wrap != nil {
		b = e.wrap(b)
	}
	s, err := idem.New(b, o)
	require.NoError(e.t, err, "idem.New")
	e.s = s
	e.t.Cleanup(func() { _ = e.closeStore(s) })
	return s
}

// close closes the store.
func (e *env) close() {
	e.t.Helper()
	require.NoError(e.t, e.closeStore(e.s), "Close")
}

// reopen closes the store and opens its folder again with the same options. A volatile
// engine then starts empty. Its clock has moved on by enough to put its fences above
// those of the life before, whatever random step is drawn.
func (e *env) reopen() *idem.Store {
	e.t.Helper()
	e.close()
	if e.h.Volatile {
		e.clock.Advance(5 * time.Second)
	}
	return e.open(e.opts)
}

// reopenDurable is reopen where the engine keeps what it holds, and nothing elsewhere.
func (e *env) reopenDurable() {
	e.t.Helper()
	if !e.h.Volatile {
		e.reopen()
	}
}

// alsoReopened checks now and, where the engine keeps what it holds, in the next life too.
func (e *env) alsoReopened(check func()) {
	e.t.Helper()
	check()
	if !e.h.Volatile {
		e.reopen()
		check()
	}
}

func (e *env) closeStore(s *idem.Store) (err error) {
	e.t.Helper()
	e.within("Close", func() { err = s.Close() })
	return err
}

// watch starts watching whether the process stalls.
func (e *env) watch() *progress.Stall { return progress.Watch{Patience: e.h.Patience}.Start() }

// within runs f and fails the test if it hangs.
func (e *env) within(what string, f func()) {
	e.t.Helper()
	done := make(chan struct{})
	returned := false
	e.under.Store(done, nil)
	go func() {
		defer close(done)
		f()
		returned = true
	}()
	e.await(what, done)
	e.under.Delete(done)
	if !returned { // f failed the test, which ended only its own goroutine
		e.t.FailNow()
	}
}

// await waits until c is closed or yields a value. It fails the test if the process
// stalls first.
func (e *env) await(what string, c <-chan struct{}) {
	e.t.Helper()
	stall := e.watch()
	defer stall.Stop()
	select {
	case <-c:
	case <-stall.Stalled():
		e.t.Fatalf("%s hangs: nobody works on it\n%s", what, progress.Stacks())
	}
}

// timers waits until n timers are pending on the clock.
func (e *env) timers(n int) {
	e.t.Helper()
	stall := e.watch()
	defer stall.Stop()
	if !e.clock.fake.BlockUntil(func(t fakeclock.Timers) bool { return t.Pending >= n }, stall.Stalled()) {
		e.t.Fatalf("%d timers are pending and nobody starts more, %d were to be", e.clock.Pending(), n)
	}
}

// started waits until n timers have been started since the clock began, whether or not
// they are still pending.
func (e *env) started(n uint64) {
	e.t.Helper()
	stall := e.watch()
	defer stall.Stop()
	if !e.clock.fake.BlockUntil(func(t fakeclock.Timers) bool { return t.Started >= n }, stall.Stalled()) {
		e.t.Fatalf("nobody starts timer number %d", n)
	}
}

// together runs f(0) … f(n-1) at once, each in its own goroutine, and returns when all
// have returned. The test fails if they hang.
func (e *env) together(n int, f func(i int)) {
	e.t.Helper()
	e.within("one of the calls", func() { inParallel(n, f) })
}

// inParallel is together without a limit on the wait.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-begin
			f(i)
		}()
	}
	close(begin)
	wg.Wait()
}

// durable skips the case if the engine keeps nothing across Close.
func (e *env) durable() {
	e.t.Helper()
	if e.h.Volatile {
		e.t.Skip("the engine is volatile: nothing outlives Close")
	}
}

// claim claims key and requires that it is granted.
func (e *env) claim(r idem.Request) idem.Claim {
	e.t.Helper()
	c, err := e.s.Claim(e.ctx, r)
	require.NoError(e.t, err, "Claim")
	require.Equal(e.t, idem.Token{Key: r.Key, Fence: c.Record.Fence}, c.Token)
	require.NotZero(e.t, c.Token.Fence)
	return c
}

// completed claims what r asks for and completes it.
func (e *env) completed(r idem.Request, result []byte) idem.Claim {
	e.t.Helper()
	c := e.claim(r)
	require.NoError(e.t, e.s.Complete(e.ctx, c.Token, result), "Complete")
	return c
}

// end ends tok's claim, so that its record is of the state given. b is the result, the
// reason or the note.
func (e *env) end(tok idem.Token, state idem.State, b []byte) error {
	switch state {
	case idem.Completed:
		return e.s.Complete(e.ctx, tok, b)
	case idem.Failed:
		return e.s.Fail(e.ctx, tok, b)
	case idem.Held:
		return e.s.Hold(e.ctx, tok, b)
	}
	return e.s.Release(e.ctx, tok, b)
}

// outcomes are the states in which a claim can end, and what a claim of the key is then
// answered.
var outcomes = map[idem.State]error{
	idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed, idem.Held: idem.ErrHeld, idem.Released: nil,
}

// refused claims and requires that the answer is want.
func (e *env) refused(want error, r idem.Request) idem.Record {
	e.t.Helper()
	c, err := e.s.Claim(e.ctx, r)
	require.ErrorIs(e.t, err, want, "Claim")
	require.Zero(e.t, c.Token, "a refused claim has no token")
	return c.Record
}

// get reads the record of key.
func (e *env) get(key string) idem.Record {
	e.t.Helper()
	r, err := e.s.Get(e.ctx, key)
	require.NoError(e.t, err, "Get")
	return r
}

func (e *env) stats() idem.Stats {
	e.t.Helper()
	st, err := e.s.Stats(e.ctx)
	require.NoError(e.t, err, "Stats")
	return st
}

// absent requires that key has no visible record.
func (e *env) absent(key string) {
	e.t.Helper()
	_, err := e.s.Get(e.ctx, key)
	require.ErrorIs(e.t, err, idem.ErrNotFound, "Get")
}

// same requires that two records are equal, comparing times as instants.
func (e *env) same(want, got idem.Record) {
	e.t.Helper()
	utc := func(r idem.Record) idem.Record {
		for _, at := range []*time.Time{&r.ClaimedAt, &r.LeaseUntil, &r.FinishedAt, &r.ExpiresAt} {
			if !at.IsZero() {
				*at = at.UTC()
			}
		}
		return r
	}
	require.Equal(e.t, utc(want), utc(got))
}

// entry returns a copy of the engine's entry of key, nil if there is none, bypassing
// the store.
func (e *env) entry(key string) *engine.Entry {
	e.t.Helper()
	entry, err := e.backend.Read(e.ctx, key)
	require.NoError(e.t, err, "Read")
	if entry == nil {
		return nil
	}
	c := *entry
	c.Checkpoint, c.Result = bytes.Clone(c.Checkpoint), bytes.Clone(c.Result)
	return &c
}

// canScan and canExpire report whether the engine has that optional interface.
func (e *env) canScan() bool {
	_, ok := e.backend.(engine.Scanner)
	return ok
}

func (e *env) canExpire() bool {
	_, ok := e.backend.(engine.Expirer)
	return ok
}

// scanner and expirer skip the case if the engine lacks that interface.
func (e *env) scanner() engine.Scanner {
	e.t.Helper()
	if !e.canScan() {
		e.t.Skip("the engine cannot list its records")
	}
	return e.backend.(engine.Scanner)
}

func (e *env) expirer() engine.Expirer {
	e.t.Helper()
	if !e.canExpire() {
		e.t.Skip("the engine keeps no expiry index")
	}
	return e.backend.(engine.Expirer)
}

// sweepAll sweeps until nothing more is removed, and returns how many records were. It
// returns zero if the engine cannot be swept.
func (e *env) sweepAll() (removed int) {
	e.t.Helper()
	for e.canExpire() {
		n, err := e.s.Sweep(e.ctx, 1000)
		require.NoError(e.t, err, "Sweep")
		if removed += n; n == 0 {
			break
		}
	}
	return removed
}

// async runs f in its own goroutine.
func async[T any](f func() T) *pending[T] {
	p := &pending[T]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.value = f()
	}()
	return p
}

// pending is a call under way.
type pending[T any] struct {
	done  chan struct{}
	value T // once done
}

// wait returns the call's value; the test fails if it hangs.
func (p *pending[T]) wait(e *env, what string) T {
	e.t.Helper()
	e.await(what, p.done)
	return p.value
}

// isDone reports whether the call has returned, without waiting.
func (p *pending[T]) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// reboot gives the case a new clock, as a reboot of the machine does: the wall clock
// goes on and elapsed time starts over. The store must be closed.
func (e *env) reboot() {
	wall, _ := e.clock.Now()
	e.clock = NewClock(wall)
}

// crash ends the life of the store like a kill, and opens what it left.
func (e *env) crash() *idem.Store {
	e.t.Helper()
	left := e.h.Crash(e.t, e.backend, e.dir)
	e.close() // the process lives on here, so free what it still holds
	e.dir = left
	return e.open(e.opts)
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o700))
}
