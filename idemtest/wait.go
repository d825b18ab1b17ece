package idemtest

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var waitCases = []testCase{
	{"Wait returns what there is", waitAtOnce},
	{"Wait until settled", waitSettled},
	{"Wait until the lease lapses", waitLapse},
	{"Wait goes on over Extend", waitExtend},
	{"Wait goes on over takeover", waitTakeover},
	{"ctx and Close wake Wait", waitWoken},
	{"a thousand waiters", waitThousand},
	{"a storm of Release and claim", waitStorm},
}

type waited struct {
	r   idem.Record
	err error
}

// waitFor calls Wait in its own goroutine.
func (e *env) waitFor(ctx context.Context, key string) *pending[waited] {
	s := e.s
	return async(func() waited {
		r, err := s.Wait(ctx, key)
		return waited{r, err}
	})
}

// waits is waitFor, but returns once Wait is waiting for the lease to lapse.
func (e *env) waits(key string) *pending[waited] {
	e.t.Helper()
	n := e.clock.Pending()
	p := e.waitFor(e.ctx, key)
	e.timers(n + 1)
	return p
}

func waitAtOnce(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	_, err := e.s.Wait(e.ctx, "absent")
	require.ErrorIs(t, err, idem.ErrNotFound)
	for state := range outcomes {
		require.NoError(t, e.end(e.claim(idem.Request{Key: state.String()}).Token, state, []byte("r")))
		got := e.waitFor(e.ctx, state.String()).wait(e, "Wait")
		require.NoError(t, got.err)
		require.Equal(t, state, got.r.State)
		e.same(e.get(state.String()), got.r)
	}
	e.claim(idem.Request{Key: "lapsed"})
	e.claim(idem.Request{Key: "unsure", HoldUnknown: true})
	e.clock.Advance(time.Second)
	for _, key := range []string{"lapsed", "unsure"} {
		got := e.waitFor(e.ctx, key).wait(e, "Wait")
		require.NoError(t, got.err)
		require.Equal(t, idem.InFlight, got.r.State)
	}
	e.clock.Advance(time.Hour)
	got := e.waitFor(e.ctx, "completed").wait(e, "Wait")
	require.ErrorIs(t, got.err, idem.ErrNotFound, "expired")
	require.Zero(t, e.clock.Pending(), "no timer stays")
}

func waitSettled(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	ends := map[string]func(idem.Token) error{
		"forgotten": func(tok idem.Token) error { return e.s.Forget(e.ctx, idem.Token{Key: tok.Key}) },
		"many":      func(tok idem.Token) error { return e.s.CompleteMany(e.ctx, []idem.Completion{{Token: tok}})[0] },
	}
	for state := range outcomes {
		ends[state.String()] = func(tok idem.Token) error { return e.end(tok, state, []byte("r")) }
	}
	for name, end := range ends {
		c := e.claim(idem.Request{Key: name})
		e.claim(idem.Request{Key: name + " beside"})
		wait, beside := e.waits(name), e.waits(name+" beside")
		require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, []byte("point")), "wakes nobody for good")
		require.NoError(t, end(c.Token))
		got := wait.wait(e, "Wait")
		if name == "forgotten" {
			require.ErrorIs(t, got.err, idem.ErrNotFound)
		} else {
			require.NoError(t, got.err)
			e.same(e.get(name), got.r)
			require.NotEqual(t, idem.InFlight, got.r.State)
		}
		require.False(t, beside.isDone(), "Wait on another key returned")
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: name + " beside"}))
		require.ErrorIs(t, beside.wait(e, "Wait").err, idem.ErrNotFound)
	}
	require.Zero(t, e.clock.Pending(), "no timer stays")
}

func waitLapse(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	c := e.claim(idem.Request{Key: "k"})
	wait := e.waits("k")
	e.clock.Advance(time.Second - 1)
	require.Equal(t, 1, e.clock.Pending(), "one nanosecond is left")
	require.False(t, wait.isDone())
	e.clock.Advance(1)
	got := wait.wait(e, "Wait")
	require.NoError(t, got.err)
	require.Equal(t, idem.InFlight, got.r.State)
	require.Equal(t, c.Token.Fence, got.r.Fence)

	e.claim(idem.Request{Key: "gone", Retention: 1})
	wait = e.waits("gone")
	e.clock.Advance(time.Second + 1) // past the lease and the retention in one go
	require.ErrorIs(t, wait.wait(e, "Wait").err, idem.ErrNotFound)
}

func waitExtend(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute})
	c := e.claim(idem.Request{Key: "k"})
	wait := e.waits("k")
	for i := range 5 {
		require.NoError(t, e.s.Extend(e.ctx, c.Token, 10*time.Minute))
		e.started(uint64(i) + 2) // it has looked again, and waits for the new end
		e.clock.Advance(9 * time.Minute)
		require.False(t, wait.isDone())
	}
	e.clock.Advance(time.Minute)
	got := wait.wait(e, "Wait")
	require.NoError(t, got.err)
	require.Equal(t, idem.InFlight, got.r.State)
}

func waitTakeover(t *testing.T, e *env) {
	late := &lateClock{Clock: e.clock}
	e.open(idem.Options{Lease: time.Minute, Clock: late})
	e.claim(idem.Request{Key: "k"})
	wait := e.waits("k")
	var c idem.Claim
	for i := range 3 {
		// The lease lapses, and another caller takes over before the waiter notices.
		e.clock.Advance(time.Minute)
		c = e.claim(idem.Request{Key: "k"})
		require.Equal(t, i+2, c.Record.Attempt)
		e.started(uint64(2 + 2*i)) // it has seen the takeover, and waits on
		// Now the old lease's timer fires, out of date. The waiter looks, and waits on.
		e.within("a timer that is due", func() {
			for late.letGo() == 0 {
				runtime.Gosched()
			}
		})
		e.started(uint64(3 + 2*i))
		require.False(t, wait.isDone(), "Wait returned over a takeover")
	}
	require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("theirs")))
	got := wait.wait(e, "Wait")
	require.NoError(t, got.err)
	require.Equal(t, c.Token.Fence, got.r.Fence)
	require.Equal(t, "theirs", string(got.r.Result))
}

func waitWoken(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.claim(idem.Request{Key: "k"})
	ctx, cancel := context.WithCancel(e.ctx)
	left, stays := e.waitFor(ctx, "k"), e.waits("k")
	e.timers(2)
	cancel()
	require.ErrorIs(t, left.wait(e, "Wait").err, context.Canceled)
	require.False(t, stays.isDone())
	e.close()
	require.ErrorIs(t, stays.wait(e, "Wait").err, idem.ErrClosed)
	require.ErrorIs(t, e.waitFor(e.ctx, "k").wait(e, "Wait").err, idem.ErrClosed)
	require.Zero(t, e.clock.Pending(), "no timer stays")
}

func waitThousand(t *testing.T, e *env) {
	const n = 1000
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "k"})
	all := make([]*pending[waited], n)
	for i := range all {
		all[i] = e.waitFor(e.ctx, "k")
	}
	e.timers(n)
	require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("r")))
	for _, p := range all {
		got := p.wait(e, "Wait")
		require.NoError(t, got.err)
		require.Equal(t, "r", string(got.r.Result))
	}
	require.Zero(t, e.clock.Pending(), "no timer stays")
}

// waitStorm: a waiter returns after the first release it can have seen, however fast
// the key is claimed again.
func waitStorm(t *testing.T, e *env) {
	const waiters, storms = 8, 100
	e.open(idem.Options{})
	tok := e.claim(idem.Request{Key: "k"}).Token
	all := make([]*pending[error], waiters)
	for i := range all {
		all[i] = async(func() error {
			for fence := uint64(0); ; {
				r, err := e.s.Wait(e.ctx, "k")
				switch {
				case err != nil:
					return err
				case r.State == idem.Completed:
					return nil
				case r.State != idem.Released:
					return fmt.Errorf("a waiter got a record %v with a lease that holds", r.State)
				case r.Fence < fence:
					return fmt.Errorf("a waiter went back from fence %d to %d", fence, r.Fence)
				}
				fence = r.Fence
			}
		})
	}
	e.timers(waiters) // all are waiting, so each sees the first release
	for range storms {
		require.NoError(t, e.s.Release(e.ctx, tok, nil))
		tok = e.claim(idem.Request{Key: "k"}).Token
	}
	require.NoError(t, e.s.Complete(e.ctx, tok, nil))
	for _, p := range all {
		require.NoError(t, p.wait(e, "Wait"))
	}
	require.Zero(t, e.clock.Pending(), "no timer stays")

	// One release, claimed again at once, is enough to wake every waiter.
	tok = e.claim(idem.Request{Key: "once"}).Token
	waits := make([]*pending[waited], waiters)
	for i := range waits {
		waits[i] = e.waitFor(e.ctx, "once")
	}
	e.timers(waiters)
	require.NoError(t, e.s.Release(e.ctx, tok, nil))
	e.claim(idem.Request{Key: "once"})
	for _, p := range waits {
		got := p.wait(e, "Wait")
		require.NoError(t, got.err)
		require.Equal(t, idem.Released, got.r.State)
	}
}
