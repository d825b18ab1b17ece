package idem_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// pile makes one record of each kind, and returns the keys of those that somebody has to
// settle.
func pile(t *testing.T, s *idem.Store, clock interface{ Advance(time.Duration) }) []string {
	t.Helper()
	ctx := t.Context()
	claim := func(key string, r idem.Request) idem.Token {
		r.Key = key
		return mustClaim(t, s, r).Token
	}
	claim("lapsed", idem.Request{Lease: time.Second})
	claim("lapsed, unknown", idem.Request{Lease: time.Second, HoldUnknown: true})
	clock.Advance(time.Second)
	claim("in flight", idem.Request{})
	claim("in flight, unknown", idem.Request{HoldUnknown: true})
	require.NoError(t, s.Hold(ctx, claim("held", idem.Request{}), []byte("the bank did not answer")))
	require.NoError(t, s.Release(ctx, claim("released", idem.Request{}), nil))
	require.NoError(t, s.Complete(ctx, claim("completed", idem.Request{}), nil))
	require.NoError(t, s.Fail(ctx, claim("failed", idem.Request{}), nil))
	return []string{"held", "lapsed", "lapsed, unknown"}
}

// ticking moves the clock whenever somebody waits for it, until the test ends.
func ticking(t *testing.T, clock interface {
	Advance(time.Duration)
	Pending() int
},
) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				if clock.Pending() > 0 {
					clock.Advance(10 * time.Millisecond)
				}
				runtime.Gosched()
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

// fn is called once for each record that somebody has to settle, and can settle it.
func TestResolveVisitsWhatIsHeldOrLapsed(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
	want := pile(t, s, clock)
	defer ticking(t, clock)()
	seen := map[string]idem.Record{}
	require.NoError(t, idem.Resolve(t.Context(), s, func(ctx context.Context, rec idem.Record) error {
		require.NotContains(t, seen, rec.Key)
		seen[rec.Key] = rec
		return s.Complete(ctx, rec.Token(), []byte("it was done"))
	}))
	require.Equal(t, want, slices.Sorted(maps.Keys(seen)))
	require.Equal(t, "the bank did not answer", string(seen["held"].Result))
	require.False(t, seen["held"].Lapsed)
	require.True(t, seen["lapsed"].Lapsed)
	for _, key := range want {
		rec, err := s.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, idem.Completed, rec.State)
		require.False(t, rec.Lapsed)
	}
	require.NoError(t, idem.Resolve(t.Context(), s, func(context.Context, idem.Record) error {
		t.Error("there is nothing left")
		return nil
	}))
}

// What fn cannot settle is told in the end, by key hash, and stops nothing. Neither does
// a record that cannot be read.
func TestResolveGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1})
	want := pile(t, s, clock)
	b.Damage("failed")
	defer ticking(t, clock)()
	errBank, errOther := errors.New("the bank is closed"), errors.New("no account")
	var seen []string
	err := idem.Resolve(t.Context(), s, func(_ context.Context, rec idem.Record) error {
		seen = append(seen, rec.Key)
		switch rec.Key {
		case "held":
			return errors.Join(errBank, errors.New("and so is the branch"))
		case "lapsed":
			return errOther
		}
		return nil
	})
	require.ElementsMatch(t, want, seen)
	for _, target := range []error{errBank, errOther, idem.ErrCorrupt} {
		require.ErrorIs(t, err, target)
	}
	for _, key := range []string{"held", "lapsed", "failed"} {
		require.ErrorContains(t, err, "key "+s.KeyHash(key)+": ")
	}
	require.ErrorContains(t, err, "3 records are not resolved")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "lapsed")
}

// Somebody else may be faster, before fn is asked or while it asks. That is no error.
func TestResolveLosesToOthers(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(ctx context.Context, s *idem.Store, rec idem.Record) error{
		"completed": func(ctx context.Context, s *idem.Store, rec idem.Record) error {
			return s.Complete(ctx, rec.Token(), []byte("by hand"))
		},
		"failed": func(ctx context.Context, s *idem.Store, rec idem.Record) error {
			return s.Fail(ctx, rec.Token(), nil)
		},
		"released": func(ctx context.Context, s *idem.Store, rec idem.Record) error {
			return s.Release(ctx, rec.Token(), nil)
		},
		"forgotten": func(ctx context.Context, s *idem.Store, rec idem.Record) error {
			return s.Forget(ctx, rec.Token())
		},
		"taken over": func(ctx context.Context, s *idem.Store, rec idem.Record) error {
			if rec.State == idem.Held {
				return s.Forget(ctx, rec.Token())
			}
			_, err := s.Claim(ctx, idem.Request{Key: rec.Key})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
			for i := range 10 {
				c := mustClaim(t, s, idem.Request{Key: fmt.Sprint("k", i), Lease: time.Second})
				if i%2 == 0 {
					require.NoError(t, s.Hold(t.Context(), c.Token, nil))
				}
			}
			clock.Advance(time.Second)
			defer ticking(t, clock)()
			calls := 0
			require.NoError(t, idem.Resolve(t.Context(), s, func(ctx context.Context, rec idem.Record) error {
				calls++
				for i := range 10 { // all of them, this one too
					key := fmt.Sprint("k", i)
					other, err := s.Get(ctx, key)
					if err == nil && (other.State == idem.Held || other.Lapsed) && (i < 5 || key == rec.Key) {
						require.NoError(t, settle(ctx, s, other))
					}
				}
				return fmt.Errorf("settling: %w", s.Complete(ctx, rec.Token(), []byte("by the resolver")))
			}))
			require.LessOrEqual(t, calls, 6)
		})
	}
}

// An error that only sounds like that, of a record that is as it was, is an error.
func TestResolveBelievesTheRecord(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(t, s.Hold(t.Context(), mustClaim(t, s, k).Token, nil))
	err := idem.Resolve(t.Context(), s, func(context.Context, idem.Record) error { return idem.ErrFenced })
	require.ErrorIs(t, err, idem.ErrFenced)
	require.ErrorContains(t, err, "1 record is not resolved: key "+s.KeyHash(k.Key))
}

// The walk takes its time, and ends with ctx and with the store.
func TestResolvePaceAndEnd(t *testing.T) {
	for name, end := range map[string]struct {
		how  func(cancel func(), s *idem.Store)
		want error
	}{
		"ctx":   {func(cancel func(), _ *idem.Store) { cancel() }, context.Canceled},
		"Close": {func(_ func(), s *idem.Store) { _ = s.Close() }, idem.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s := open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
				for i := range 10 {
					require.NoError(t, s.Hold(ctx, mustClaim(t, s, idem.Request{Key: fmt.Sprint(i)}).Token, nil))
				}
				began := time.Now()
				failed := errors.New("no answer")
				var at []time.Duration
				err := idem.Resolve(ctx, s, func(context.Context, idem.Record) error {
					if at = append(at, time.Since(began)); len(at) == 4 {
						<-time.After(50 * time.Millisecond)
					}
					return failed
				})
				require.ErrorIs(t, err, failed)
				ms := time.Millisecond
				require.Equal(t, []time.Duration{0, 10 * ms, 20 * ms, 30 * ms, 80 * ms, 90 * ms, 100 * ms, 110 * ms, 120 * ms, 130 * ms}, at)

				ended := make(chan error, 1)
				calls := 0
				go func() {
					ended <- idem.Resolve(ctx, s, func(context.Context, idem.Record) error { calls++; return failed })
				}()
				synctest.Wait()
				require.Equal(t, 1, calls)
				end.how(cancel, s)
				err = <-ended
				require.ErrorIs(t, err, end.want)
				require.ErrorIs(t, err, failed, "what was before is told too")
				require.NotContains(t, err.Error(), "\n")
				require.Equal(t, 1, calls)
			})
		})
	}
}

// However many fail, what is kept of it is bounded.
func TestResolveBoundsItsErrors(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
	const n = 150
	for i := range n {
		require.NoError(t, s.Hold(t.Context(), mustClaim(t, s, idem.Request{Key: fmt.Sprint(i)}).Token, nil))
	}
	defer ticking(t, clock)()
	err := idem.Resolve(t.Context(), s, func(context.Context, idem.Record) error { return storetest.ErrDisk })
	require.ErrorIs(t, err, storetest.ErrDisk)
	require.ErrorContains(t, err, "150 records are not resolved")
	require.ErrorContains(t, err, "; and 145 more")
	many, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	assert.Len(t, many.Unwrap(), 100)
	require.ErrorIs(t, idem.Resolve(t.Context(), open(t, storetest.NewStub(), idem.Options{}), nil), idem.ErrInvalid, "an engine that cannot list")
}
