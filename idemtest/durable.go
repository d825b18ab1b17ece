package idemtest

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var durableCases = []testCase{
	{"a claim under way is not seen", stalledClaim},
	{"a completion under way is not seen", stalledComplete},
	{"a removal under way is not seen", stalledForget},
	{"a takeover under way is not seen", stalledTakeover},
	{"observers hear of what is durable", stalledEvents},
	{"cancelled while queued", cancelledQueued},
	{"cancelled after joining a commit", cancelledJoined},
	{"killed between operations", killedBetween},
	{"killed in mid-commit", killedInCommit},
	{"what a duplicate was told holds after a kill", toldBeforeKill},
	{"Close waits for a commit under way", closeDuringCommit},
}

// stall makes the engine's commits stop before they are durable. It skips the case if
// that is impossible.
func (e *env) stall() (reached <-chan struct{}, release func()) {
	e.t.Helper()
	e.stallable()
	reached, release = e.h.Stall(e.t, e.backend)
	e.t.Cleanup(release)
	return reached, release
}

func (e *env) stallable() {
	e.t.Helper()
	if e.h.Stall == nil {
		e.t.Skip("Harness.Stall is nil: the engine is not durable")
	}
}

func (e *env) crashable() {
	e.t.Helper()
	if e.h.Crash == nil {
		e.t.Skip("Harness.Crash is nil: no crash can be staged")
	}
}

// settle gives goroutines that must stay blocked every chance to go on.
func settle() {
	for range 200 {
		runtime.Gosched()
	}
}

func stalledClaim(t *testing.T, e *env) {
	e.stallable()
	e.open(idem.Options{})
	e.completed(idem.Request{Key: "beside"}, []byte("r"))
	reached, release := e.stall()
	first := async(func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "k"}); return err })
	e.await("the commit", reached)

	// Reading does not wait for a commit, and shows nothing that is not durable.
	e.within("reading during a commit", func() {
		e.absent("k")
		_, err := e.s.Wait(e.ctx, "k")
		require.ErrorIs(t, err, idem.ErrNotFound, "Wait")
		r, err := e.s.Get(e.ctx, "beside")
		require.NoError(t, err)
		require.Equal(t, "r", string(r.Result))
		e.refused(idem.ErrCompleted, idem.Request{Key: "beside"}) // which waits for no commit either
		if e.canScan() {
			for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
				require.NoError(t, err)
				require.Equal(t, "beside", r.Key, "Records")
			}
		}
	})
	// A duplicate must not learn of a claim that a crash can undo.
	second := async(func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "k"}); return err })
	settle()
	require.False(t, first.isDone(), "granted before it is durable")
	require.False(t, second.isDone(), "a duplicate was answered from what is not durable")
	release()
	granted := 0
	for _, err := range []error{first.wait(e, "Claim"), second.wait(e, "the duplicate Claim")} {
		if err == nil {
			granted++
		} else {
			require.ErrorIs(t, err, idem.ErrInFlight)
		}
	}
	require.Equal(t, 1, granted)
	require.Equal(t, idem.InFlight, e.get("k").State)
}

func stalledComplete(t *testing.T, e *env) {
	e.stallable()
	for state := range outcomes {
		for _, cacheBytes := range []int64{0, -1} {
			e.dir = t.TempDir()
			e.open(idem.Options{CacheBytes: cacheBytes})
			tok := e.claim(idem.Request{Key: "k"}).Token
			before := e.get("k")
			wait := e.waits("k")
			reached, release := e.stall()
			settling := async(func() error { return e.end(tok, state, []byte("r")) })
			e.await("the commit", reached)
			e.within("reading during a commit", func() {
				for range 2 {
					r, err := e.s.Get(e.ctx, "k")
					require.NoError(t, err)
					e.same(before, r)
					c, err := e.s.Claim(e.ctx, idem.Request{Key: "k"})
					require.ErrorIs(t, err, idem.ErrInFlight, "a duplicate is told %v", state)
					e.same(before, c.Record)
				}
				if e.canScan() {
					for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
						require.NoError(t, err)
						e.same(before, r)
					}
					st := e.stats()
					require.Equal(t, 1, st.InFlight)
				}
			})
			settle()
			require.False(t, wait.isDone(), "Wait was told %v before it is durable", state)
			require.False(t, settling.isDone(), "the caller was told %v before it is durable", state)
			release()
			require.NoError(t, settling.wait(e, "the token operation"))
			got := wait.wait(e, "Wait")
			require.NoError(t, got.err)
			require.Equal(t, state, got.r.State)
			e.same(got.r, e.get("k"))
			e.close()
		}
	}
}

func stalledForget(t *testing.T, e *env) {
	e.stallable()
	e.open(idem.Options{Retention: time.Hour})
	e.completed(idem.Request{Key: "k"}, []byte("r"))
	e.refused(idem.ErrCompleted, idem.Request{Key: "k"}) // into the cache
	reached, release := e.stall()
	forget := async(func() error { return e.s.Forget(e.ctx, idem.Token{Key: "k"}) })
	e.await("the commit", reached)
	e.within("reading during a commit", func() {
		for range 3 {
			require.Equal(t, "r", string(e.get("k").Result))
			c, err := e.s.Claim(e.ctx, idem.Request{Key: "k"})
			require.ErrorIs(t, err, idem.ErrCompleted)
			require.Equal(t, "r", string(c.Record.Result))
		}
		if e.canScan() {
			require.Len(t, e.records(idem.Filter{}), 1)
		}
	})
	require.False(t, forget.isDone())
	release()
	require.NoError(t, forget.wait(e, "Forget"))
	e.absent("k")
	require.Equal(t, 1, e.claim(idem.Request{Key: "k"}).Record.Attempt)
}

func stalledTakeover(t *testing.T, e *env) {
	e.stallable()
	e.open(idem.Options{Lease: time.Second})
	old := e.claim(idem.Request{Key: "k"})
	e.clock.Advance(time.Second)
	reached, release := e.stall()
	takeover := async(func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "k"}); return err })
	e.await("the commit", reached)
	require.Equal(t, old.Token.Fence, e.get("k").Fence)
	late := async(func() error { return e.s.Complete(e.ctx, old.Token, []byte("late")) })
	settle()
	require.False(t, takeover.isDone())
	require.False(t, late.isDone(), "the old holder was answered from what is not durable")
	release()
	require.NoError(t, takeover.wait(e, "Claim"))
	require.ErrorIs(t, late.wait(e, "Complete"), idem.ErrFenced)
	require.Equal(t, 2, e.get("k").Attempt)
}

func stalledEvents(t *testing.T, e *env) {
	e.stallable()
	var mu sync.Mutex
	var told []idem.EventKind
	kinds := func() []idem.EventKind {
		mu.Lock()
		defer mu.Unlock()
		var got []idem.EventKind
		for _, k := range told {
			if k != idem.CacheHit && k != idem.CacheMiss {
				got = append(got, k)
			}
		}
		told = nil
		return got
	}
	e.open(idem.Options{Observer: func(_ context.Context, ev idem.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, ev.Kind)
	}})
	tok := e.claim(idem.Request{Key: "k"}).Token
	require.Contains(t, kinds(), idem.ClaimGranted)
	reached, release := e.stall()
	complete := async(func() error { return e.s.Complete(e.ctx, tok, nil) })
	e.await("the commit", reached)
	settle()
	require.Empty(t, kinds(), "told before it is durable")
	release()
	require.NoError(t, complete.wait(e, "Complete"))
	require.Contains(t, kinds(), idem.OperationCompleted)
}

// watchedCtx reports when someone begins to wait for its end.
type watchedCtx struct {
	context.Context
	once    sync.Once
	watched chan struct{}
}

func (c *watchedCtx) Done() <-chan struct{} {
	c.once.Do(func() { close(c.watched) })
	return c.Context.Done()
}

func cancelledQueued(t *testing.T, e *env) {
	e.stallable()
	e.open(idem.Options{})
	own := e.claim(idem.Request{Key: "own"}).Token
	before := e.entry("own")
	reached, release := e.stall()
	first := async(func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "first"}); return err })
	e.await("the commit", reached)

	queued := map[string]func(ctx context.Context) error{
		"Claim":      func(ctx context.Context) error { _, err := e.s.Claim(ctx, idem.Request{Key: "queued"}); return err },
		"duplicate":  func(ctx context.Context) error { _, err := e.s.Claim(ctx, idem.Request{Key: "first"}); return err },
		"Checkpoint": func(ctx context.Context) error { return e.s.Checkpoint(ctx, own, []byte("p")) },
		"Forget":     func(ctx context.Context) error { return e.s.Forget(ctx, idem.Token{Key: "own"}) },
		"ClaimMany": func(ctx context.Context) error {
			got := e.s.ClaimMany(ctx, []idem.Request{{Key: "queued 1"}, {Key: "queued 2"}})
			if got[0].Err != got[1].Err {
				return fmt.Errorf("one batch, two answers: %w and %w", got[0].Err, got[1].Err)
			}
			return got[0].Err
		},
	}
	for name, op := range queued {
		inner, cancel := context.WithCancel(e.ctx)
		ctx := &watchedCtx{Context: inner, watched: make(chan struct{})}
		call := async(func() error { return op(ctx) })
		e.await("a queued "+name+" to heed its ctx", ctx.watched)
		require.False(t, call.isDone())
		cancel()
		require.ErrorIs(t, call.wait(e, "a cancelled "+name+" behind a commit that stalls"), context.Canceled, name)
	}
	release()
	require.NoError(t, first.wait(e, "the first Claim"))
	last := e.claim(idem.Request{Key: "last"}) // comes after all that was queued
	check := func() {
		t.Helper()
		require.Equal(t, before, e.entry("own"), "changed by what was cancelled")
		for _, key := range []string{"queued", "queued 1", "queued 2"} {
			e.absent(key)
		}
		require.Equal(t, last.Token.Fence, e.get("last").Fence)
	}
	check()
	e.reopen()
	check()
}

func cancelledJoined(t *testing.T, e *env) {
	e.stallable()
	e.open(idem.Options{})
	for i := range 5 {
		key := fmt.Sprint("k", i)
		ops := []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := e.s.Claim(ctx, idem.Request{Key: key}); return err },
			func(ctx context.Context) error { return e.s.Complete(ctx, e.get(key).Token(), []byte("r")) },
			func(ctx context.Context) error { return e.s.Forget(ctx, idem.Token{Key: key}) },
		}
		for n, op := range ops {
			ctx, cancel := context.WithCancel(e.ctx)
			reached, release := e.stall()
			call := async(func() error { return op(ctx) })
			e.await("the commit", reached)
			cancel()
			settle()
			release()
			require.NoError(t, call.wait(e, "a cancelled call"), "it was done, so its caller is not told otherwise")
			switch n {
			case 0:
				require.Equal(t, idem.InFlight, e.get(key).State)
			case 1:
				require.Equal(t, idem.Completed, e.get(key).State)
			case 2:
				e.absent(key)
			}
		}
	}
}

// killedBetween: after a kill, every operation that returned is there.
func killedBetween(t *testing.T, e *env) {
	e.crashable()
	e.open(idem.Options{Lease: time.Minute, Retention: time.Hour})
	var tok idem.Token
	steps := []struct {
		name string
		do   func() error
	}{
		{"Claim", func() error {
			c, err := e.s.Claim(e.ctx, idem.Request{Key: "k", Fingerprint: printA})
			tok = c.Token
			return err
		}},
		{"Extend", func() error { return e.s.Extend(e.ctx, tok, time.Hour) }},
		{"Checkpoint", func() error { return e.s.Checkpoint(e.ctx, tok, []byte("point")) }},
		{"Release", func() error { return e.s.Release(e.ctx, tok, nil) }},
		{"claim again", func() error {
			c, err := e.s.Claim(e.ctx, idem.Request{Key: "k", Fingerprint: printA})
			tok = c.Token
			return err
		}},
		{"Hold", func() error { return e.s.Hold(e.ctx, tok, []byte("note")) }},
		{"Complete", func() error { return e.s.Complete(e.ctx, tok, []byte("result")) }},
		{"Forget", func() error { return e.s.Forget(e.ctx, idem.Token{Key: "k"}) }},
		{"ClaimMany", func() error {
			got := e.s.ClaimMany(e.ctx, []idem.Request{{Key: "k"}, {Key: "k2"}})
			tok = got[1].Token
			return got[1].Err
		}},
		{"Fail", func() error { return e.s.Fail(e.ctx, tok, []byte("why")) }},
	}
	for _, step := range steps {
		require.NoError(t, step.do(), step.name)
		want := [2]*engine.Entry{e.entry("k"), e.entry("k2")}
		e.crash()
		require.Equal(t, want, [2]*engine.Entry{e.entry("k"), e.entry("k2")}, "after %s and a kill", step.name)
		e.clock.Advance(time.Second)
	}
	if e.canExpire() {
		e.clock.Advance(10 * time.Hour)
		require.Equal(t, 2, e.sweepAll(), "the expiry index is there too")
		e.crash()
		require.Nil(t, e.entry("k"))
	}
}

// killedInCommit: an operation or batch that had not returned is there entirely or not
// at all. Everything that had returned is there.
func killedInCommit(t *testing.T, e *env) {
	e.crashable()
	e.stallable()
	e.open(idem.Options{})
	for round := range 3 {
		key := func(i int) string { return fmt.Sprint(round, " ", i) }
		e.completed(idem.Request{Key: key(0)}, []byte("r"))
		open := e.claim(idem.Request{Key: key(1)})
		var rs []idem.Request
		for i := range 20 {
			rs = append(rs, idem.Request{Key: key(2 + i)})
		}
		reached, release := e.h.Stall(t, e.backend)
		many := async(func() []idem.ClaimResult { return e.s.ClaimMany(e.ctx, rs) })
		e.await("the commit", reached)
		complete := async(func() error { return e.s.Complete(e.ctx, open.Token, []byte("late")) })
		left := e.h.Crash(t, e.backend, e.dir)
		release()
		many.wait(e, "ClaimMany")
		require.NoError(t, complete.wait(e, "Complete"))
		e.close()
		e.dir = left
		e.open(idem.Options{})

		require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: key(0)}).Result))
		require.Equal(t, open.Token.Fence, e.get(key(1)).Fence)
		there := 0
		for _, r := range rs {
			if e.entry(r.Key) != nil {
				there++
			}
		}
		require.Contains(t, []int{0, len(rs)}, there, "a commit is there whole or not at all")
		highest := open.Token.Fence
		for _, g := range many.value {
			if there > 0 {
				highest = g.Token.Fence
			}
		}
		require.Greater(t, e.claim(idem.Request{Key: key(100)}).Token.Fence, highest)
	}
}

// toldBeforeKill: duplicates get answers while a commit is under way. If the process is
// killed at that moment, the answers are still true.
func toldBeforeKill(t *testing.T, e *env) {
	e.crashable()
	e.stallable()
	e.open(idem.Options{Lease: time.Second})
	e.completed(idem.Request{Key: "forgotten"}, []byte("r"))
	open := e.claim(idem.Request{Key: "open"})

	reached, release := e.h.Stall(t, e.backend)
	complete := async(func() error { return e.s.Complete(e.ctx, open.Token, []byte("r")) })
	e.await("the commit", reached)
	told := e.refused(idem.ErrInFlight, idem.Request{Key: "open"})
	left := e.h.Crash(t, e.backend, e.dir)
	release()
	require.NoError(t, complete.wait(e, "Complete"))
	e.close()
	e.dir = left
	e.open(e.opts)
	// One claim was told "in flight". No other may have been granted since.
	r := e.get("open")
	require.Equal(t, told.Fence, r.Fence)
	_, err := e.s.Claim(e.ctx, idem.Request{Key: "open"})
	require.Error(t, err)

	// A claim was told "completed". It is, after every kill.
	e.refused(idem.ErrCompleted, idem.Request{Key: "forgotten"})
	e.crash()
	require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: "forgotten"}).Result))
}

func closeDuringCommit(t *testing.T, e *env) {
	e.stallable()
	s := e.open(idem.Options{})
	reached, release := e.stall()
	claim := async(func() error { _, err := s.Claim(e.ctx, idem.Request{Key: "k"}); return err })
	e.await("the commit", reached)
	queued := async(func() error { _, err := s.Claim(e.ctx, idem.Request{Key: "queued"}); return err })
	closing := async(s.Close)
	settle()
	require.False(t, closing.isDone(), "Close returned while a commit is under way")
	release()
	require.NoError(t, claim.wait(e, "Claim"), "a call under way ends with its answer")
	require.NoError(t, closing.wait(e, "Close"))
	queuedErr := queued.wait(e, "the queued Claim")
	e.open(idem.Options{})
	e.get("k")
	if queuedErr == nil {
		e.get("queued")
	} else {
		require.ErrorIs(t, queuedErr, idem.ErrClosed)
		e.absent("queued")
	}
}
