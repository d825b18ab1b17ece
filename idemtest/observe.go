package idemtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var observeCases = []testCase{
	{"what observers are told", observerTold},
	{"observers run under no lock", observerReenters},
	{"an observer's panic is caught", observerPanics},
}

// told collects the events that are the same for every engine.
type told struct {
	mu     sync.Mutex
	events []idem.Event
}

func (o *told) observe(_ context.Context, ev idem.Event) {
	switch ev.Kind {
	case idem.CommitDone, idem.CacheHit, idem.CacheMiss:
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, ev)
}

func (o *told) take() []idem.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.events
	o.events = nil
	return taken
}

func observerTold(t *testing.T, e *env) {
	var o told
	e.open(idem.Options{Observer: o.observe, Lease: time.Second, Retention: time.Hour, MaxAttempts: 2})
	expect := func(key string, kind idem.EventKind, fence uint64, attempt int) idem.Event {
		t.Helper()
		got := o.take()
		require.Len(t, got, 1, "%v", kind)
		ev := got[0]
		require.Equal(t, kind, ev.Kind, "%v", ev.Kind)
		require.Equal(t, e.s.KeyHash(key), ev.KeyHash)
		require.Equal(t, fence, ev.Fence, "%v", kind)
		require.Equal(t, attempt, ev.Attempt, "%v", kind)
		return ev
	}
	c := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	f := c.Token.Fence
	expect("k", idem.ClaimGranted, f, 1)
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	expect("k", idem.ClaimInFlight, f, 1)
	e.refused(idem.ErrMismatch, idem.Request{Key: "k", Fingerprint: printB})
	expect("k", idem.ClaimMismatch, 0, 0) // discloses nothing here either
	e.clock.Advance(time.Second)
	next := e.claim(idem.Request{Key: "k"})
	n := next.Token.Fence
	expect("k", idem.ClaimTakeover, n, 2)
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, nil), idem.ErrFenced)
	expect("k", idem.TokenRefused, f, 0)
	require.NoError(t, e.s.Extend(e.ctx, next.Token, time.Minute))
	expect("k", idem.LeaseExtended, n, 2)
	require.NoError(t, e.s.Checkpoint(e.ctx, next.Token, []byte("p")))
	expect("k", idem.CheckpointSaved, n, 2)
	e.clock.Advance(5 * time.Second)
	require.NoError(t, e.s.Complete(e.ctx, next.Token, nil))
	require.Equal(t, 5*time.Second, expect("k", idem.OperationCompleted, n, 2).Duration)
	e.refused(idem.ErrCompleted, idem.Request{Key: "k"})
	expect("k", idem.ClaimReplayed, n, 2)

	for state, kinds := range map[idem.State]struct{ settled, claim idem.EventKind }{
		idem.Failed:   {idem.OperationFailed, idem.ClaimFailed},
		idem.Held:     {idem.OperationHeld, idem.ClaimHeld},
		idem.Released: {idem.OperationReleased, idem.ClaimGranted},
	} {
		key := state.String()
		tok := e.claim(idem.Request{Key: key}).Token
		expect(key, idem.ClaimGranted, tok.Fence, 1)
		require.NoError(t, e.end(tok, state, nil))
		expect(key, kinds.settled, tok.Fence, 1)
		if state != idem.Released {
			e.refused(outcomes[state], idem.Request{Key: key})
			expect(key, kinds.claim, tok.Fence, 1)
			continue
		}
		again := e.claim(idem.Request{Key: key})
		expect(key, kinds.claim, again.Token.Fence, 2)
		require.NoError(t, e.s.Release(e.ctx, again.Token, nil))
		o.take()
		e.refused(idem.ErrExhausted, idem.Request{Key: key})
		expect(key, idem.ClaimExhausted, again.Token.Fence, 2)
	}
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "held"}))
	expect("held", idem.RecordForgotten, 0, 0)
	e.s.ClaimMany(e.ctx, []idem.Request{{Key: "m1"}, {Key: "m2"}, {Key: "m1"}})
	kinds := []idem.EventKind{}
	for _, ev := range o.take() {
		kinds = append(kinds, ev.Kind)
	}
	require.Equal(t, []idem.EventKind{idem.ClaimGranted, idem.ClaimGranted, idem.ClaimInFlight}, kinds)
	_, _ = e.s.Get(e.ctx, "k")
	require.Empty(t, o.take(), "reading is no event")
	if e.canExpire() {
		e.clock.Advance(1000 * time.Hour)
		removed := e.sweepAll()
		require.Positive(t, removed)
		count := 0
		for _, ev := range o.take() {
			require.Equal(t, idem.SweepDone, ev.Kind)
			count += ev.Count
		}
		require.Equal(t, removed, count)
	}
}

// observerReenters: an observer may use the store, at any event.
func observerReenters(t *testing.T, e *env) {
	var s *idem.Store
	var mu sync.Mutex
	var failed error
	e.within("an observer that uses the store", func() {
		o := idem.Options{Lease: time.Second, Retention: time.Hour}
		o.Observer = func(_ context.Context, ev idem.Event) {
			var err error
			switch ev.Kind {
			case idem.CacheHit, idem.CacheMiss: // Get would recurse forever
				return
			case idem.ClaimGranted, idem.OperationCompleted:
				if ev.KeyHash == s.KeyHash("from the observer") {
					return
				}
				var c idem.Claim
				if c, err = s.Claim(e.ctx, idem.Request{Key: "from the observer"}); err == nil {
					err = s.Release(e.ctx, c.Token, nil)
				}
				if err == idem.ErrInFlight {
					err = nil
				}
			}
			if err == nil {
				_, err = s.Get(e.ctx, "k")
			}
			if err != nil && err != idem.ErrNotFound {
				mu.Lock()
				defer mu.Unlock()
				failed = fmt.Errorf("%v: %w", ev.Kind, err)
			}
		}
		s = e.open(o)
		tok := e.claim(idem.Request{Key: "k"}).Token
		e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
		require.NoError(t, s.Complete(e.ctx, tok, nil))
		e.claim(idem.Request{Key: "lapses"})
		e.clock.Advance(time.Second)
		e.claim(idem.Request{Key: "lapses"})
		e.s.ClaimMany(e.ctx, []idem.Request{{Key: "a"}, {Key: "b"}})
		require.NoError(t, s.Forget(e.ctx, idem.Token{Key: "a"}))
		e.clock.Advance(3 * time.Hour)
		e.sweepAll()
	})
	mu.Lock()
	defer mu.Unlock()
	require.NoError(t, failed)
}

func observerPanics(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour, Observer: func(context.Context, idem.Event) { panic("the observer's own fault") }})
	tok := e.claim(idem.Request{Key: "k"}).Token
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	require.NoError(t, e.s.Complete(e.ctx, tok, []byte("r")))
	require.ErrorIs(t, e.s.Complete(e.ctx, tok, nil), idem.ErrCompleted)
	require.Equal(t, "r", string(e.refused(idem.ErrCompleted, idem.Request{Key: "k"}).Result))
	e.clock.Advance(time.Hour)
	e.sweepAll()
	e.absent("k")
}
