package idem_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// doTest runs f in a bubble, where time passes only when everybody waits for it.
func doTest(t *testing.T, o idem.Options, f func(t *testing.T, s *idem.Store)) {
	bubble(t, func(t *testing.T) {
		if o.Lease == 0 {
			o.Lease = time.Minute
		}
		f(t, open(t, memory.New(memory.Options{}), o))
	})
}

// notRun is an fn that must not be.
func notRun[T any](context.Context, idem.Claim) (T, error) { panic("fn was run") }

func returning[T any](v T) func(context.Context, idem.Claim) (T, error) {
	return func(context.Context, idem.Claim) (T, error) { return v, nil }
}

func get(t testing.TB, s *idem.Store, key string) idem.Record {
	t.Helper()
	r, err := s.Get(context.Background(), key)
	require.NoError(t, err)
	return r
}

var k = idem.Request{Key: "k"}

// One run for all, one value for all.
func TestDoRunsOnce(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		const n = 200
		var runs, fresh atomic.Int64
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				v, replayed, err := idem.Do(t.Context(), s, k, func(context.Context, idem.Claim) (string, error) {
					runs.Add(1)
					time.Sleep(time.Second)
					return "charged", nil
				})
				assert.NoError(t, err)
				assert.Equal(t, "charged", v)
				if !replayed {
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, int64(1), runs.Load())
		assert.Equal(t, int64(1), fresh.Load())
		v, replayed, err := idem.Do(t.Context(), s, k, notRun[string])
		require.NoError(t, err)
		assert.True(t, replayed)
		assert.Equal(t, "charged", v)
	})
}

// The same with goroutines that really run at once.
func TestDoRunsOnceForReal(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	for i := range 200 {
		r := idem.Request{Key: fmt.Sprint("key", i)}
		var runs, fresh atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				v, replayed, err := idem.Do(t.Context(), s, r, func(context.Context, idem.Claim) (int64, error) { return runs.Add(1), nil })
				if err != nil || v != 1 {
					t.Errorf("got %d, %v", v, err)
				}
				if !replayed {
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(1), fresh.Load())
	}
}

// An error gives the claim up; the next call is attempt 2.
func TestDoError(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		boom := errors.New("declined for now")
		v, replayed, err := idem.Do(t.Context(), s, k, func(context.Context, idem.Claim) (int, error) { return 7, boom })
		require.Equal(t, boom, err)
		assert.False(t, replayed)
		assert.Equal(t, 7, v, "fn's value comes back with its error")
		assert.Equal(t, idem.Released, get(t, s, "k").State)

		_, _, err = idem.Do(t.Context(), s, k, func(_ context.Context, c idem.Claim) (int, error) {
			assert.Equal(t, 2, c.Record.Attempt)
			return 8, nil
		})
		require.NoError(t, err)
	})
}

// A permanent error is recorded; duplicates get its text.
func TestDoPermanentError(t *testing.T) {
	doTest(t, idem.Options{MaxResult: 12}, func(t *testing.T, s *idem.Store) {
		boom := errors.New("card stolen, keep it")
		_, replayed, err := idem.Do(t.Context(), s, k, func(context.Context, idem.Claim) (int, error) {
			return 0, fmt.Errorf("pay: %w", idem.Permanent(boom))
		})
		require.ErrorIs(t, err, boom)
		require.True(t, idem.IsPermanent(err))
		assert.False(t, replayed)
		assert.Equal(t, "pay: card st", string(get(t, s, "k").Result), "the reason is cut to MaxResult")

		_, replayed, err = idem.Do(t.Context(), s, k, notRun[int])
		require.ErrorIs(t, err, idem.ErrFailed)
		assert.True(t, replayed)
		assert.Contains(t, err.Error(), "pay: card st")
	})
}

// A panic or Goexit goes on in the caller, after the claim is given up, or held
// if its outcome must not be guessed.
func TestDoPanicAndGoexit(t *testing.T) {
	for _, hold := range []bool{false, true} {
		want := map[bool]idem.State{false: idem.Released, true: idem.Held}[hold]
		r := idem.Request{Key: "k", HoldUnknown: hold}
		t.Run("panic, "+want.String(), func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				require.PanicsWithValue(t, "boom", func() {
					_, _, _ = idem.Do(t.Context(), s, r, func(context.Context, idem.Claim) (int, error) { panic("boom") })
				})
				assert.Equal(t, want, get(t, s, "k").State)
			})
		})
		t.Run("Goexit, "+want.String(), func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					_, _, _ = idem.Do(t.Context(), s, r, func(context.Context, idem.Claim) (int, error) {
						runtime.Goexit()
						return 0, nil
					})
					t.Error("Do returned")
				}()
				<-gone
				assert.Equal(t, want, get(t, s, "k").State)
			})
		})
		t.Run("panic with ctx cancelled, "+want.String(), func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				ctx, cancel := context.WithCancel(t.Context())
				require.Panics(t, func() {
					_, _, _ = idem.Do(ctx, s, r, func(context.Context, idem.Claim) (int, error) {
						cancel()
						panic("boom")
					})
				})
				assert.Equal(t, want, get(t, s, "k").State)
			})
		})
	}
}

// A held operation is not run by anybody.
func TestDoHeld(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		c := mustClaim(t, s, idem.Request{Key: "k", HoldUnknown: true, Lease: time.Minute})
		start := time.Now()
		_, _, err := idem.Do(t.Context(), s, k, notRun[int])
		require.Equal(t, idem.ErrHeld, err)
		assert.Equal(t, time.Minute, time.Since(start), "it waited for the one in flight")
		require.NoError(t, s.Complete(t.Context(), c.Token, []byte("5")))
		v, replayed, err := idem.Do(t.Context(), s, k, notRun[int])
		require.NoError(t, err)
		assert.True(t, replayed)
		assert.Equal(t, 5, v)
	})
}

// Cancellation reaches fn, and not the record of what fn did.
func TestDoContextCancelledInFn(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		type tenant struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), tenant{}, "acme"))
		v, replayed, err := idem.Do(ctx, s, k, func(ctx context.Context, _ idem.Claim) (string, error) {
			assert.Equal(t, "acme", ctx.Value(tenant{}))
			cancel()
			<-ctx.Done()
			assert.Equal(t, context.Canceled, context.Cause(ctx))
			return "done all the same", nil
		})
		require.NoError(t, err)
		assert.False(t, replayed)
		assert.Equal(t, "done all the same", v)
		assert.Equal(t, idem.Completed, get(t, s, "k").State)

		_, _, err = idem.Do(ctx, s, idem.Request{Key: "other"}, notRun[int])
		require.Equal(t, context.Canceled, err, "cancelled before: not run")
		_, err = s.Get(t.Context(), "other")
		require.Equal(t, idem.ErrNotFound, err)
	})
}

func TestDoContextCancelledInFnThatFails(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := idem.Do(ctx, s, k, func(ctx context.Context, _ idem.Claim) (string, error) {
			cancel()
			return "", ctx.Err()
		})
		require.Equal(t, context.Canceled, err)
		assert.Equal(t, idem.Released, get(t, s, "k").State)
	})
}

// Each duplicate that waits honours its own ctx.
func TestDoDuplicatesHonourTheirContext(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		c := mustClaim(t, s, k)
		start := time.Now()
		var wg sync.WaitGroup
		for i := 1; i <= 10; i++ {
			d := time.Duration(i) * time.Second
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, _, err := idem.Do(ctx, s, k, notRun[int])
				assert.Equal(t, context.DeadlineExceeded, err)
				assert.Equal(t, d, time.Since(start))
			})
		}
		wg.Go(func() {
			v, replayed, err := idem.Do(t.Context(), s, k, notRun[int])
			assert.NoError(t, err)
			assert.True(t, replayed)
			assert.Equal(t, 3, v)
		})
		time.Sleep(20 * time.Second)
		require.NoError(t, s.Complete(t.Context(), c.Token, []byte("3")))
		wg.Wait()
	})
}

// Work longer than the lease keeps its claim.
func TestDoHeartbeatHoldsALongFn(t *testing.T) {
	for _, lease := range []time.Duration{0, 3 * time.Second, time.Millisecond} {
		t.Run(lease.String(), func(t *testing.T) {
			doTest(t, idem.Options{Lease: 30 * time.Second}, func(t *testing.T, s *idem.Store) {
				beats := lease
				if lease == 0 {
					beats = 30 * time.Second
				}
				done := make(chan error, 1)
				go func() {
					_, _, err := idem.Do(t.Context(), s, idem.Request{Key: "k", Lease: lease}, func(context.Context, idem.Claim) (int, error) {
						time.Sleep(50 * beats)
						return 1, nil
					})
					done <- err
				}()
				synctest.Wait()
				for len(done) == 0 {
					c, err := s.Claim(t.Context(), k)
					if err != idem.ErrCompleted {
						require.Equal(t, idem.ErrInFlight, err)
						left := time.Until(c.Record.LeaseUntil)
						require.Greater(t, left, beats/2, "a heartbeat may fail once and the next still come in time")
					}
					time.Sleep(beats/7 + 1)
					synctest.Wait()
				}
				require.NoError(t, <-done)
				assert.Equal(t, 1, get(t, s, "k").Attempt)
			})
		})
	}
}

// passing marks contexts that the stub of TestDoHeartbeatLost lets through.
type passing struct{}

// A heartbeat that came too late finds the claim taken over: fn is told why, and
// what it returns is not recorded.
func TestDoHeartbeatLost(t *testing.T) {
	boom := errors.New("boom")
	for name, fails := range map[string]error{"value": nil, "error": boom, "permanent error": idem.Permanent(boom)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var stuck gate
				b := storetest.NewStub()
				b.OnApply = func(ctx context.Context, _ []engine.Op) error {
					if ctx.Value(passing{}) == nil {
						stuck.pass()
					}
					return nil
				}
				s := open(t, b, idem.Options{Lease: time.Minute, SweepInterval: -1})
				ctx := context.WithValue(t.Context(), passing{}, true)
				_, replayed, err := idem.Do(t.Context(), s, k, func(fnCtx context.Context, c idem.Claim) (string, error) {
					stuck.shut() // for the heartbeat
					time.Sleep(time.Minute)
					second, err := s.Claim(ctx, idem.Request{Key: "k", Lease: time.Hour})
					require.NoError(t, err)
					require.NoError(t, fnCtx.Err(), "it is not known yet")
					stuck.open()
					<-fnCtx.Done()
					assert.Equal(t, idem.ErrFenced, context.Cause(fnCtx))
					require.NoError(t, s.Complete(ctx, second.Token, []byte(`"theirs"`)))
					return "ours", fails
				})
				require.ErrorIs(t, err, idem.ErrFenced)
				if fails != nil {
					require.ErrorIs(t, err, boom)
				}
				assert.False(t, replayed)
				v, _, err := idem.Do(ctx, s, k, notRun[string])
				require.NoError(t, err)
				assert.Equal(t, "theirs", v)
			})
		})
	}
}

// Closing the store takes the claim away too.
func TestDoStoreClosedUnderFn(t *testing.T) {
	doTest(t, idem.Options{Lease: time.Minute}, func(t *testing.T, s *idem.Store) {
		_, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, _ idem.Claim) (int, error) {
			require.NoError(t, s.Close())
			<-ctx.Done()
			assert.Equal(t, idem.ErrClosed, context.Cause(ctx))
			return 1, nil
		})
		require.Equal(t, idem.ErrClosed, err, "it was not recorded")
	})
}

// The key and the fingerprint were taken at the start.
func TestDoRequestChangedByFn(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		body := []byte("amount=5")
		r := idem.Request{Key: "k", Fingerprint: idem.FingerprintOf(body), HoldUnknown: true}
		was := r
		_, _, err := idem.Do(t.Context(), s, r, func(_ context.Context, c idem.Claim) (int, error) {
			body[0] = 'A'
			r.Key, r.Fingerprint, r.HoldUnknown = "other", idem.FingerprintOf(body), false
			c.Token, c.Record = idem.Token{Key: "other", Fence: 1}, idem.Record{}
			return 1, nil
		})
		require.NoError(t, err)
		_, replayed, err := idem.Do(t.Context(), s, was, notRun[int])
		require.NoError(t, err)
		assert.True(t, replayed)
		_, err = s.Get(t.Context(), "other")
		require.Equal(t, idem.ErrNotFound, err)
	})
}

// The key for a downstream is the same on every attempt.
func TestDoDownstreamKey(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		shown := map[string]int{}
		for range 3 {
			_, _, _ = idem.Do(t.Context(), s, k, func(_ context.Context, c idem.Claim) (int, error) {
				shown[idem.DownstreamKey(c.Token.Key, "charge")]++
				shown[idem.DownstreamKey(c.Record.Key, "mail")]++
				return 0, errors.New("try again")
			})
		}
		assert.Len(t, shown, 2)
		for _, n := range shown {
			assert.Equal(t, 3, n)
		}
	})
}

// Each failure releases, one waiter claims, the others wait on.
func TestDoStormOfReleases(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		const n, failures = 300, 40
		boom := errors.New("boom")
		var runs, running, failed, fresh, replays atomic.Int64
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				v, replayed, err := idem.Do(t.Context(), s, k, func(context.Context, idem.Claim) (int64, error) {
					assert.Equal(t, int64(1), running.Add(1), "two at once")
					defer running.Add(-1)
					time.Sleep(time.Second)
					run := runs.Add(1)
					if run <= failures {
						return 0, boom
					}
					return run, nil
				})
				switch {
				case errors.Is(err, boom):
					failed.Add(1)
				case assert.NoError(t, err) && replayed:
					assert.Equal(t, int64(failures+1), v)
					replays.Add(1)
				default:
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, int64(failures), failed.Load())
		assert.Equal(t, int64(1), fresh.Load())
		assert.Equal(t, int64(n-failures-1), replays.Load())
	})
}
