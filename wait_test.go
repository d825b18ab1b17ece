package idem_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

type waited struct {
	rec idem.Record
	err error
}

// waitAll starts n calls of Wait in the current bubble, and returns when they wait.
func waitAll(t *testing.T, s *idem.Store, key string, n int) <-chan waited {
	t.Helper()
	out := make(chan waited, n)
	for range n {
		go func() {
			rec, err := s.Wait(context.Background(), key)
			out <- waited{rec, err}
		}()
	}
	synctest.Wait()
	if len(out) > 0 {
		w := <-out
		t.Fatalf("Wait returned at once: %v %v", w.rec, w.err)
	}
	return out
}

// waitTest runs f in a bubble with a store whose key "k" is claimed for a minute.
func waitTest(t *testing.T, f func(t *testing.T, s *idem.Store, c idem.Claim)) {
	bubble(t, func(t *testing.T) {
		s := open(t, memory.New(memory.Options{}), idem.Options{Lease: time.Minute, SweepInterval: -1})
		f(t, s, mustClaim(t, s, idem.Request{Key: "k"}))
	})
}

// The record changes between the first look and the wait. Nobody tells of it
// again, so it must have been heard.
func TestWaitMissesNothingBeforeItWaits(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(s *idem.Store, token idem.Token) error{
		"completed": func(s *idem.Store, token idem.Token) error {
			return s.Complete(context.Background(), token, []byte("r"))
		},
		"forgotten": func(s *idem.Store, token idem.Token) error {
			return s.Forget(context.Background(), idem.Token{Key: token.Key})
		},
		"released and claimed again": func(s *idem.Store, token idem.Token) error {
			if err := s.Release(context.Background(), token, nil); err != nil {
				return err
			}
			_, err := s.Claim(context.Background(), idem.Request{Key: token.Key})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newStub()
				s := open(t, b, idem.Options{})
				c := mustClaim(t, s, idem.Request{Key: "k"})
				b.afterGet = func(string) { // what Wait has read is in flight
					b.afterGet = nil
					assert.NoError(t, settle(s, c.Token))
				}
				start := time.Now()
				rec, err := s.Wait(t.Context(), "k")
				assert.Zero(t, time.Since(start))
				switch name {
				case "completed":
					require.NoError(t, err)
					assert.Equal(t, "r", string(rec.Result))
				case "forgotten":
					require.Equal(t, idem.ErrNotFound, err)
				default:
					require.NoError(t, err)
					assert.Equal(t, idem.Released, rec.State)
				}
			})
		})
	}
}

// A release that is claimed again before any waiter runs is still seen by all.
func TestWaitSeesAReleaseThatIsClaimedAgain(t *testing.T) {
	waitTest(t, func(t *testing.T, s *idem.Store, c idem.Claim) {
		const n = 1000
		woken := waitAll(t, s, "k", n)
		require.NoError(t, s.Release(t.Context(), c.Token, nil))
		again := mustClaim(t, s, idem.Request{Key: "k"})
		for range n {
			w := <-woken
			require.NoError(t, w.err)
			require.Equal(t, idem.Released, w.rec.State)
			require.Equal(t, c.Token, w.rec.Token())
		}
		require.NoError(t, s.Complete(t.Context(), again.Token, nil))
	})
}

// A storm of Release and re-claim over a thousand waiters, who all wait on
// until the operation is completed. The bubble ends only when all have returned.
func TestWaitInAStormOfReleases(t *testing.T) {
	waitTest(t, func(t *testing.T, s *idem.Store, c idem.Claim) {
		const n, storms = 1000, 10
		ctx := t.Context()
		results := make(chan string, n)
		for range n {
			go func() {
				for {
					rec, err := s.Wait(ctx, "k")
					if err != nil {
						results <- err.Error()
						return
					}
					if rec.State == idem.Completed {
						results <- string(rec.Result)
						return
					}
				}
			}()
		}
		for range storms {
			time.Sleep(time.Second)
			require.NoError(t, s.Release(ctx, c.Token, nil))
			c = mustClaim(t, s, idem.Request{Key: "k"})
		}
		require.NoError(t, s.Complete(ctx, c.Token, []byte("done")))
		for range n {
			require.Equal(t, "done", <-results)
		}
	})
}

// To the nanosecond, over an extension and a takeover.
func TestWaitReturnsWhenTheLeaseLapses(t *testing.T) {
	waitTest(t, func(t *testing.T, s *idem.Store, c idem.Claim) {
		start := time.Now()
		woken := waitAll(t, s, "k", 2)
		time.Sleep(30 * time.Second)
		require.NoError(t, s.Extend(t.Context(), c.Token, time.Minute))
		w := <-woken
		require.NoError(t, w.err)
		assert.Equal(t, 90*time.Second, time.Since(start))
		assert.Equal(t, idem.InFlight, w.rec.State)
		<-woken

		mustClaim(t, s, idem.Request{Key: "k", Lease: time.Hour})
		start = time.Now()
		<-waitAll(t, s, "k", 1)
		assert.Equal(t, time.Hour, time.Since(start))
	})
}

func TestWaitGoesOnOverATakeover(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newStub()
		s := open(t, b, idem.Options{Lease: time.Minute})
		var lapsed atomic.Bool
		taken := make(chan idem.Claim, 1)
		b.onRead = func(string) error { // the lapse has woken Wait, which looks again
			if lapsed.CompareAndSwap(true, false) {
				taken <- mustClaim(t, s, idem.Request{Key: "k", Lease: time.Hour})
			}
			return nil
		}
		mustClaim(t, s, idem.Request{Key: "k"})
		woken := waitAll(t, s, "k", 1)
		lapsed.Store(true)
		second := <-taken
		synctest.Wait()
		require.Empty(t, woken, "it was taken over")
		require.NoError(t, s.Complete(t.Context(), second.Token, nil))
		assert.Equal(t, idem.Completed, (<-woken).rec.State)
	})
}

func TestWaitReturnsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, memory.New(memory.Options{}), idem.Options{})
		ctx := t.Context()
		start := time.Now()
		_, err := s.Wait(ctx, "absent")
		require.Equal(t, idem.ErrNotFound, err)
		_, err = s.Wait(ctx, "")
		require.ErrorIs(t, err, idem.ErrInvalid)
		_, err = s.Wait(ctx, strings.Repeat("k", idem.MaxKey+1))
		require.ErrorIs(t, err, idem.ErrInvalid)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err = s.Wait(ended, "absent")
		require.Equal(t, context.Canceled, err)

		for state, settle := range map[idem.State]func(idem.Token) error{
			idem.Completed: func(t idem.Token) error { return s.Complete(ctx, t, nil) },
			idem.Failed:    func(t idem.Token) error { return s.Fail(ctx, t, nil) },
			idem.Held:      func(t idem.Token) error { return s.Hold(ctx, t, nil) },
			idem.Released:  func(t idem.Token) error { return s.Release(ctx, t, nil) },
		} {
			c := mustClaim(t, s, idem.Request{Key: state.String()})
			require.NoError(t, settle(c.Token))
			rec, err := s.Wait(ctx, state.String())
			require.NoError(t, err)
			assert.Equal(t, state, rec.State)
		}
		assert.Zero(t, time.Since(start))
	})
}

// A claim of a process that is gone is not waited for.
func TestWaitWithLapseOnOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newStub()
		s := open(t, b, idem.Options{Lease: time.Hour})
		mustClaim(t, s, idem.Request{Key: "k"})
		require.NoError(t, s.Close())
		s = open(t, b.reopen(), idem.Options{LapseOnOpen: true})
		start := time.Now()
		rec, err := s.Wait(t.Context(), "k")
		require.NoError(t, err)
		assert.Equal(t, idem.InFlight, rec.State)
		assert.Zero(t, time.Since(start))
	})
}

func TestWaitHonoursItsContext(t *testing.T) {
	waitTest(t, func(t *testing.T, s *idem.Store, c idem.Claim) {
		other := waitAll(t, s, "k", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Wait(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, time.Second, time.Since(start))
		require.Empty(t, other, "the other waits on")
		require.NoError(t, s.Fail(t.Context(), c.Token, []byte("why")))
		assert.Equal(t, idem.Failed, (<-other).rec.State)
	})
}

// What cannot be read is not waited for.
func TestWaitOnARecordThatGoesBad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newStub()
		s := open(t, b, idem.Options{Lease: time.Minute})
		mustClaim(t, s, idem.Request{Key: "k"})
		woken := waitAll(t, s, "k", 1)
		b.damage("k")
		require.ErrorIs(t, (<-woken).err, idem.ErrCorrupt, "it looks again when the lease lapses")
	})
}

// A record whose retention is over before its commit is durable was never
// there to be seen.
func TestWaitForARecordThatExpiresInItsCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newStub()
		s := open(t, b, idem.Options{Lease: time.Minute, SweepInterval: -1})
		c := mustClaim(t, s, idem.Request{Key: "k", Retention: time.Second})
		b.onCommit = func() error { time.Sleep(time.Second); return nil }
		woken := waitAll(t, s, "k", 1)
		require.NoError(t, s.Complete(t.Context(), c.Token, []byte("r")))
		w := <-woken
		require.Equal(t, idem.ErrNotFound, w.err, "%v", w.rec)
	})
}

// hookedClock calls a function once before the next timer is set.
type hookedClock struct {
	idem.Clock
	hook func()
}

func (c *hookedClock) AfterFunc(d time.Duration, f func()) func() bool {
	if hook := c.hook; hook != nil {
		c.hook = nil
		hook()
	}
	return c.Clock.AfterFunc(d, f)
}

// Who has begun to wait is told how the operation ended, also where the store is closed
// right after: the record was there first.
func TestWaitHearsWhatWasRecordedBeforeClose(t *testing.T) {
	t.Parallel()
	for range 20 { // both channels of the waiter are ready, and it takes either
		clock := &hookedClock{Clock: idem.SystemClock()}
		s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
		c := mustClaim(t, s, idem.Request{Key: "k"})
		clock.hook = func() {
			assert.NoError(t, s.Complete(t.Context(), c.Token, []byte("done")))
			assert.NoError(t, s.Close())
		}
		r, err := s.Wait(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "done", string(r.Result))
	}
}
