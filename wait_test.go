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
				b := storetest.NewStub()
				s := open(t, b, idem.Options{})
				c := mustClaim(t, s, idem.Request{Key: "k"})
				b.AfterGet = func(string) { // what Wait has read is in flight
					b.AfterGet = nil
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

// A claim of a process that is gone is not waited for.
func TestWaitWithLapseOnOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, b, idem.Options{Lease: time.Hour})
		mustClaim(t, s, idem.Request{Key: "k"})
		require.NoError(t, s.Close())
		s = open(t, b.Reopen(), idem.Options{LapseOnOpen: true})
		start := time.Now()
		rec, err := s.Wait(t.Context(), "k")
		require.NoError(t, err)
		assert.Equal(t, idem.InFlight, rec.State)
		assert.Zero(t, time.Since(start))
	})
}

// What cannot be read is not waited for.
func TestWaitOnARecordThatGoesBad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, b, idem.Options{Lease: time.Minute})
		mustClaim(t, s, idem.Request{Key: "k"})
		woken := waitAll(t, s, "k", 1)
		b.Damage("k")
		require.ErrorIs(t, (<-woken).err, idem.ErrCorrupt, "it looks again when the lease lapses")
	})
}

// A record whose retention is over before its commit is durable was never
// there to be seen.
func TestWaitForARecordThatExpiresInItsCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, b, idem.Options{Lease: time.Minute, SweepInterval: -1})
		c := mustClaim(t, s, idem.Request{Key: "k", Retention: time.Second})
		b.OnCommit = func() error { time.Sleep(time.Second); return nil }
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
