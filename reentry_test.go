package idem_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// Work that waits for its own key would wait for ever. It is refused at once, by the
// context that it was given.
func TestWorkDoesNotWaitForItself(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(ctx context.Context, s *idem.Store) error{
		"Do": func(ctx context.Context, s *idem.Store) error {
			_, _, err := idem.Do(ctx, s, k, notRun[int])
			return err
		},
		"DoEffect": func(ctx context.Context, s *idem.Store) error {
			_, _, err := s.DoEffect(ctx, k, neverRun)
			return err
		},
		"Wait": func(ctx context.Context, s *idem.Store) error {
			_, err := s.Wait(ctx, "k")
			return err
		},
		"Shutdown": func(ctx context.Context, s *idem.Store) error { return s.Shutdown(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
			inner := func(ctx context.Context) error {
				ctx = context.WithValue(ctx, passing{}, true) // however it was derived
				_, _, err := idem.Do(ctx, s, idem.Request{Key: "other"}, func(ctx context.Context, _ idem.Claim) (int, error) {
					require.ErrorIs(t, call(ctx, s), idem.ErrInvalid, "two levels down")
					return 1, nil
				})
				require.NoError(t, err, "another key is another operation")
				return call(ctx, s)
			}
			v, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, _ idem.Claim) (int, error) {
				require.ErrorIs(t, inner(ctx), idem.ErrInvalid)
				return 1, nil
			})
			require.NoError(t, err)
			assert.Equal(t, 1, v)
			mustClaim(t, s, idem.Request{Key: "the store is open still"})

			handler, stop := s.Heartbeat(t.Context(), mustClaim(t, s, idem.Request{Key: "handled"}))
			if name == "Shutdown" {
				require.ErrorIs(t, call(handler, s), idem.ErrInvalid)
			} else {
				_, err = s.Wait(handler, "handled")
				require.ErrorIs(t, err, idem.ErrInvalid)
			}
			stop()
		})
	}
}

// What keeps the context of work that has ended waits for nothing of it: a goroutine
// that the work left behind may wait for its key, and shut the store down.
func TestContextOfWorkThatEnded(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
	var kept context.Context
	_, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, _ idem.Claim) (int, error) {
		kept = context.WithoutCancel(ctx)
		return 1, nil
	})
	require.NoError(t, err)
	r, err := s.Wait(kept, "k")
	require.NoError(t, err)
	assert.Equal(t, idem.Completed, r.State)
	require.NoError(t, s.Shutdown(kept))
}

// Another store's work is no work of this one.
func TestWorkMayUseAnotherStore(t *testing.T) {
	t.Parallel()
	one := open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
	b := storetest.NewStub()
	two := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	_, _, err := idem.Do(b.Host.Within(t.Context()), one, k, func(ctx context.Context, _ idem.Claim) (int, error) {
		v, _, err := idem.Do(ctx, one, idem.Request{Key: "other"}, returning(1))
		require.NoError(t, err)
		assert.ErrorIs(t, everythingWith(ctx, two)["Get"], idem.ErrInvalid)
		return v, nil
	})
	require.NoError(t, err)
	_, _, err = idem.Do(t.Context(), one, k, notRun[int])
	require.NoError(t, err)
	_, _, err = idem.Do(t.Context(), one, idem.Request{Key: "outer"}, func(ctx context.Context, _ idem.Claim) (int, error) {
		_, _, err := idem.Do(ctx, two, idem.Request{Key: "outer"}, returning(1))
		require.NoError(t, two.Shutdown(ctx))
		return 1, err
	})
	require.NoError(t, err)
}

// A same-commit function that calls its store with the context it was given would wait
// for the commit that waits for it, whatever it calls, also with a context that ended.
func TestCallsFromWithinACommit(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	ctx, cancel := context.WithCancel(b.Host.Within(t.Context()))
	check := func(ctx context.Context) {
		_, _, err := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) {
			for name, err := range everythingWith(ctx, s) {
				assert.ErrorIs(t, err, idem.ErrInvalid, name)
			}
			assert.ErrorIs(t, s.Shutdown(ctx), idem.ErrInvalid)
			return nil, storetest.ErrDisk
		}))
		require.Equal(t, storetest.ErrDisk, err)
	}
	check(ctx)
	cancel()
	_, _, err := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) {
		for name := range settlers {
			assert.ErrorIs(t, settlers[name].call(ctx, s, idem.Token{Key: "k", Fence: 1}), idem.ErrInvalid, name)
		}
		return nil, nil
	}))
	require.NoError(t, err)
}

// A saved token, with nothing else, keeps its claim: by the lease that the claim has,
// however long it has been extended by now.
func TestHeartbeatOfASavedToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, b, idem.Options{SweepInterval: -1, Lease: time.Hour})
		token := mustClaim(t, s, idem.Request{Key: "k", Lease: 3 * time.Second}).Token
		for range 100 { // another process's heartbeat
			time.Sleep(2 * time.Second)
			require.NoError(t, s.Extend(t.Context(), token, 0))
		}
		time.Sleep(time.Second)
		require.NoError(t, s.Close())

		s = open(t, b.Reopen(), idem.Options{SweepInterval: -1, Lease: time.Hour})
		kept, stop := s.Heartbeat(t.Context(), idem.Claim{Token: token})
		for range 20 {
			time.Sleep(time.Second)
			synctest.Wait()
			_, err := s.Claim(t.Context(), k)
			require.Equal(t, idem.ErrInFlight, err)
			assert.LessOrEqual(t, time.Until(get(t, s, "k").LeaseUntil), 3*time.Second, "it is the claim's own lease")
		}
		require.NoError(t, kept.Err())
		stop()
		require.NoError(t, s.Complete(t.Context(), token, nil))

		kept, stop = s.Heartbeat(t.Context(), idem.Claim{Token: idem.Token{Key: "never claimed", Fence: 7}})
		<-kept.Done()
		assert.Equal(t, idem.ErrFenced, context.Cause(kept))
		stop()
	})
}

// A claim that became durable late is kept at once, when half its lease or more is over.
func TestHeartbeatOfALateGrant(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		took, until time.Duration
	}{
		"less than half is over": {14 * time.Second, 30 * time.Second},
		"half is over":           {15 * time.Second, 45 * time.Second},
		"it has lapsed":          {31 * time.Second, 61 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := storetest.NewStub()
				b.OnCommit = func() error { b.OnCommit = nil; time.Sleep(c.took); return nil }
				s := open(t, b, idem.Options{SweepInterval: -1, Lease: 30 * time.Second})
				start := time.Now()
				_, _, err := idem.Do(t.Context(), s, k, func(context.Context, idem.Claim) (int, error) {
					time.Sleep(time.Second / 100)
					synctest.Wait()
					assert.Equal(t, c.until, get(t, s, "k").LeaseUntil.Sub(start).Round(time.Second))
					return 1, nil
				})
				require.NoError(t, err)
			})
		})
	}
}
