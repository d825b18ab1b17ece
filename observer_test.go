package idem_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
)

// What an Observer may do: panic, call the store back, and end it.

// life does a little of everything, whatever it is answered.
func life(s *idem.Store, b *storetest.Stub, clock *idemtest.Clock) {
	ctx := context.Background()
	c, _ := s.Claim(ctx, k)
	_, _ = s.Claim(ctx, k)
	_, _ = s.Claim(ctx, idem.Request{Key: "late", IssuedAt: time.Unix(1, 0)})
	undone, _ := s.Claim(ctx, idem.Request{Key: "undone"})
	_ = s.Unclaim(ctx, undone.Token)
	_ = s.Extend(ctx, c.Token, 0)
	_ = s.Checkpoint(ctx, c.Token, nil)
	_ = s.Release(ctx, c.Token, nil)
	_ = s.Complete(ctx, idem.Token{Key: "k", Fence: 1}, nil)
	c, _ = s.Claim(ctx, k)
	_ = s.Complete(ctx, c.Token, nil)
	_, _ = s.Claim(ctx, k)
	_ = s.Forget(ctx, idem.Token{Key: "k"})
	for _, r := range s.ClaimMany(ctx, []idem.Request{{Key: "a", Fingerprint: printA}, {Key: "b"}, {Key: "c"}}) {
		_ = s.Fail(ctx, r.Token, nil)
	}
	_, _ = s.Claim(ctx, idem.Request{Key: "a", Fingerprint: printB})
	_, _ = s.Claim(ctx, idem.Request{Key: "a"})
	c, _ = s.Claim(ctx, idem.Request{Key: "held"})
	_ = s.Hold(ctx, c.Token, nil)
	_, _ = s.Claim(ctx, idem.Request{Key: "held"})
	_, _ = s.Claim(ctx, idem.Request{Key: "lapsed"})
	clock.Advance(time.Minute)
	_, _ = s.Claim(ctx, idem.Request{Key: "lapsed"})
	clock.Advance(time.Minute)
	_, _ = s.Claim(ctx, idem.Request{Key: "lapsed"})
	b.Full.Store(true)
	_, _ = s.Claim(ctx, idem.Request{Key: "full"})
	clock.Advance(100 * time.Hour)
	_, _ = s.Sweep(ctx, 10)
	b.Blind.Store(true)
	_, _ = s.Sweep(ctx, 10)
	b.Breaking.Store(true)
	_ = s.Release(ctx, c.Token, nil)
	_, _ = s.Get(ctx, "k")
}

func observed(t *testing.T, observer func(context.Context, idem.Event)) (*idem.Store, *storetest.Stub, *idemtest.Clock) {
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{
		Clock: clock, Lease: time.Minute, MaxAttempts: 2, SweepInterval: -1, Observer: observer,
	})
	return s, b, clock
}

// An Observer's panic is nobody's.
func TestObserverThatPanics(t *testing.T) {
	t.Parallel()
	var told atomic.Int64
	s, b, clock := observed(t, func(context.Context, idem.Event) {
		told.Add(1)
		panic("observer")
	})
	life(s, b, clock)
	assert.Greater(t, told.Load(), int64(30))
	require.NoError(t, s.Close())
}

// An Observer may call the store back, under no lock of ours, at every event there
// is; closing it too.
func TestObserverThatCallsBack(t *testing.T) {
	t.Parallel()
	all := map[idem.EventKind]bool{}
	s, b, clock := observed(t, func(_ context.Context, e idem.Event) { all[e.Kind] = true })
	life(s, b, clock)
	for kind := idem.ClaimGranted; kind <= idem.StoreBroken; kind++ {
		require.True(t, all[kind], "%s was not sent", kind)
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			var s *idem.Store
			var calling atomic.Bool
			closed := make(chan struct{})
			s, b, clock := observed(t, func(_ context.Context, e idem.Event) {
				if e.Kind == kind && calling.CompareAndSwap(false, true) {
					_, _ = s.Get(context.Background(), "k")
					_, _ = s.Claim(context.Background(), k)
					_, _ = s.Sweep(context.Background(), 1)
					_, _ = s.Stats(context.Background())
					assert.NoError(t, s.Close())
					close(closed)
				}
			})
			life(s, b, clock)
			require.True(t, calling.Load())
			<-closed // a store that is closing waits for no observer
			_, err := s.Get(t.Context(), "k")
			require.Equal(t, idem.ErrClosed, err)
		})
	}
}

// The background sweep's events too: Close waits for the sweeper, which waits for
// the observer, which closes.
func TestObserverThatClosesFromTheBackground(t *testing.T) {
	for _, kind := range []idem.EventKind{idem.SweepDone, idem.SweepFailed, idem.CommitDone, idem.StoreBroken} {
		t.Run(kind.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := storetest.NewStub()
				var s *idem.Store
				var armed atomic.Bool
				closed := make(chan error, 1)
				s, err := idem.New(storetest.Rich{Stub: b}, idem.Options{
					Lease: time.Minute, Retention: time.Minute, SweepInterval: time.Second,
					Observer: func(_ context.Context, e idem.Event) {
						if e.Kind == kind && armed.CompareAndSwap(true, false) {
							closed <- s.Close()
						}
					},
				})
				require.NoError(t, err)
				c := mustClaim(t, s, k)
				require.NoError(t, s.Complete(t.Context(), c.Token, nil))
				synctest.Wait()
				armed.Store(true)
				switch kind {
				case idem.SweepFailed:
					b.Blind.Store(true)
				case idem.StoreBroken:
					b.Breaking.Store(true)
				}
				require.NoError(t, <-closed, "after %s", kind)
			})
		})
	}
}

// Shutdown waits for claims that may yet be granted. The commit that would grant one
// does not wait for the observer that shuts down.
func TestObserverThatShutsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s *idem.Store
		down := make(chan error, 1)
		s, err := idem.New(storetest.NewStub(), idem.Options{Lease: time.Minute, Observer: func(_ context.Context, e idem.Event) {
			if e.Kind == idem.CommitDone {
				down <- s.Shutdown(context.Background())
			}
		}})
		require.NoError(t, err)
		c := mustClaim(t, s, k)
		synctest.Wait()
		require.Empty(t, down, "the claim is open")
		require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		require.NoError(t, <-down)
		synctest.Wait()
	})
}

// tenant is a value of the caller's context.
type tenant struct{}

// An Observer gets the values of the caller's context, for traces and tenants, and never
// its end. What nobody called for comes with the background's.
func TestObserverGetsTheCallersContext(t *testing.T) {
	t.Parallel()
	type told struct {
		kind   idem.EventKind
		tenant any
	}
	var all []told
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1, Observer: func(ctx context.Context, e idem.Event) {
		require.NoError(t, ctx.Err())
		assert.Nil(t, ctx.Done())
		_, ends := ctx.Deadline()
		assert.False(t, ends)
		all = append(all, told{e.Kind, ctx.Value(tenant{})})
	}})
	take := func() []told { was := all; all = nil; return was }
	as := func(name string) context.Context { return context.WithValue(t.Context(), tenant{}, name) }

	claim, err := s.Claim(as("a"), k)
	require.NoError(t, err)
	assert.Equal(t, []told{{idem.CacheMiss, "a"}, {idem.CommitDone, nil}, {idem.ClaimGranted, "a"}}, take())
	_, err = s.Claim(as("b"), k)
	require.Equal(t, idem.ErrInFlight, err)
	assert.Equal(t, []told{{idem.CacheMiss, "b"}, {idem.ClaimInFlight, "b"}}, take())
	ctx, cancel := context.WithTimeout(as("c"), 0)
	defer cancel()
	<-ctx.Done()
	require.NoError(t, s.Complete(ctx, claim.Token, nil))
	assert.Equal(t, []told{{idem.CommitDone, nil}, {idem.OperationCompleted, "c"}}, take(), "the caller has left")
	for _, r := range s.ClaimMany(as("d"), []idem.Request{{Key: "x"}, {Key: "y", IssuedAt: time.Unix(1, 0)}}) {
		_ = r
	}
	assert.Equal(t, []told{
		{idem.CacheMiss, "d"}, {idem.CacheMiss, "d"}, {idem.ClaimTooLate, "d"}, {idem.CommitDone, nil}, {idem.ClaimGranted, "d"},
	}, take())
	_, _, err = idem.Do(as("e"), s, idem.Request{Key: "do"}, returning(1))
	require.NoError(t, err)
	for _, e := range take() {
		if e.kind != idem.CommitDone {
			assert.Equal(t, "e", e.tenant, e.kind)
		}
	}
	_, _, err = s.DoEffect(as("f"), idem.Request{Key: "effect"}, storetest.Effect(func() ([]byte, error) { return nil, nil }))
	require.NoError(t, err)
	assert.Equal(t, []told{{idem.CacheMiss, "f"}, {idem.CommitDone, nil}, {idem.ClaimGranted, "f"}, {idem.OperationCompleted, "f"}}, take())
	b.Breaking.Store(true)
	require.ErrorIs(t, s.Forget(as("g"), idem.Token{Key: "k"}), idem.ErrBroken)
	assert.Equal(t, []told{{idem.StoreBroken, nil}}, take())
}
