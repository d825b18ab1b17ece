package idem_test

import (
	"context"
	"errors"
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

// Each test of Shutdown runs in a bubble, where time passes when everybody
// waits for it, so that "how long did it take" has an exact answer.
func shutdownTest(t *testing.T, f func(t *testing.T, s *idem.Store)) {
	bubble(t, func(t *testing.T) {
		s := open(t, memory.New(memory.Options{}), idem.Options{Lease: time.Minute, SweepInterval: -1})
		f(t, s)
		require.Equal(t, idem.ErrClosed, s.Forget(t.Context(), idem.Token{Key: "k"}), "the store is closed in the end")
	})
}

func mustClaim(t testing.TB, s *idem.Store, r idem.Request) idem.Claim {
	t.Helper()
	c, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	return c
}

// shutdown begins and returns where its answer will be.
func shutdown(ctx context.Context, s *idem.Store) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	synctest.Wait()
	return done
}

func TestShutdownDoesNotWaitForLapsedClaims(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, s *idem.Store){
		"lapsed before": func(t *testing.T, s *idem.Store) {
			mustClaim(t, s, idem.Request{Key: "k", Lease: time.Second})
			time.Sleep(time.Second)
		},
		"lapsed before, held": func(t *testing.T, s *idem.Store) {
			mustClaim(t, s, idem.Request{Key: "k", Lease: time.Second, HoldUnknown: true})
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			shutdownTest(t, func(t *testing.T, s *idem.Store) {
				open(t, s)
				start := time.Now()
				require.NoError(t, s.Shutdown(t.Context()))
				assert.Zero(t, time.Since(start))
			})
		})
	}
	t.Run("lapses meanwhile", func(t *testing.T) {
		shutdownTest(t, func(t *testing.T, s *idem.Store) {
			mustClaim(t, s, idem.Request{Key: "k", Lease: 5 * time.Second})
			start := time.Now()
			require.NoError(t, s.Shutdown(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(start))
		})
	})
	t.Run("beside a longer lease that is settled", func(t *testing.T) {
		shutdownTest(t, func(t *testing.T, s *idem.Store) {
			long := mustClaim(t, s, idem.Request{Key: "long", Lease: time.Hour})
			mustClaim(t, s, idem.Request{Key: "k", Lease: 5 * time.Second})
			require.NoError(t, s.Complete(t.Context(), long.Token, nil))
			start := time.Now()
			require.NoError(t, s.Shutdown(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(start))
		})
	})
	t.Run("beside an open one that is settled", func(t *testing.T) {
		shutdownTest(t, func(t *testing.T, s *idem.Store) {
			mustClaim(t, s, idem.Request{Key: "lapsed", Lease: time.Second})
			time.Sleep(time.Second)
			c := mustClaim(t, s, idem.Request{Key: "open"})
			done := shutdown(t.Context(), s)
			start := time.Now()
			require.NoError(t, s.Complete(t.Context(), c.Token, nil))
			require.NoError(t, <-done)
			assert.Zero(t, time.Since(start))
		})
	})
	t.Run("taken over, and settled by the new owner", func(t *testing.T) {
		shutdownTest(t, func(t *testing.T, s *idem.Store) {
			mustClaim(t, s, idem.Request{Key: "k", Lease: time.Second})
			time.Sleep(time.Second)
			c := mustClaim(t, s, idem.Request{Key: "k", Lease: time.Hour})
			done := shutdown(t.Context(), s)
			require.Empty(t, done)
			start := time.Now()
			require.NoError(t, s.Complete(t.Context(), c.Token, nil))
			require.NoError(t, <-done)
			assert.Zero(t, time.Since(start))
		})
	})
}

func TestShutdownIsBoundedByItsContext(t *testing.T) {
	shutdownTest(t, func(t *testing.T, s *idem.Store) {
		c := mustClaim(t, s, idem.Request{Key: "k"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start))
		require.Equal(t, idem.ErrClosed, s.Complete(t.Context(), c.Token, nil))
	})
}

func TestCloseDuringShutdown(t *testing.T) {
	shutdownTest(t, func(t *testing.T, s *idem.Store) {
		mustClaim(t, s, idem.Request{Key: "k"})
		first, second := shutdown(t.Context(), s), shutdown(t.Context(), s)
		require.Empty(t, first)
		require.Empty(t, second)
		start := time.Now()
		require.NoError(t, s.Close())
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		assert.Zero(t, time.Since(start))
	})
}

// A claim that was let in before Shutdown may yet be granted, and is then waited
// for like the others.
func TestShutdownWaitsForClaimsUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var applying gate
		applying.shut()
		b := storetest.NewStub()
		b.OnApply = func(context.Context, []engine.Op) error { applying.pass(); return nil }
		s := open(t, b, idem.Options{})
		var c idem.Claim
		claimed := make(chan error, 1)
		go func() {
			var err error
			c, err = s.Claim(t.Context(), idem.Request{Key: "k"})
			claimed <- err
		}()
		synctest.Wait()
		done := shutdown(t.Context(), s)
		require.Empty(t, done)
		applying.open()
		require.NoError(t, <-claimed)
		synctest.Wait()
		require.Empty(t, done, "now it is open")
		_, _, err := s.DoEffect(t.Context(), k, neverRun)
		require.Equal(t, idem.ErrClosed, err, "new claims are refused, in whatever call")
		require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		require.NoError(t, <-done)
	})
}

func TestShutdownEndsWhileClaimsAreUnderWay(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *storetest.Stub, s *idem.Store, cancel func()){
		"ctx": func(_ *storetest.Stub, _ *idem.Store, cancel func()) { cancel() },
		"broken": func(b *storetest.Stub, _ *idem.Store, _ func()) {
			b.Host.Broken(errors.Join(idem.ErrBroken, storetest.ErrDisk))
		},
		"closed": func(_ *storetest.Stub, s *idem.Store, _ func()) { go func() { _ = s.Close() }() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var applying gate
				applying.shut()
				b := storetest.NewStub()
				b.OnApply = func(context.Context, []engine.Op) error { applying.pass(); return nil }
				s := open(t, b, idem.Options{})
				answer := make(chan error, 1)
				go func() {
					_, err := s.Claim(context.Background(), idem.Request{Key: "k"})
					answer <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(ctx) }()
				synctest.Wait()
				end(b, s, cancel)
				for errors.Is(read(t, s), idem.ErrNotFound) { // until it has begun to end
				}
				applying.open()
				err := <-ended
				if name == "ctx" {
					require.ErrorIs(t, err, context.Canceled)
				} else {
					require.NoError(t, err)
				}
				assert.NoError(t, <-answer, "it was under way, so it has its own answer")
			})
		})
	}
}

func read(t *testing.T, s *idem.Store) error {
	_, err := s.Get(t.Context(), "k")
	return err
}

// Claims of an earlier opening are not this store's to wait for, unless it extends
// them.
func TestShutdownAfterReopen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, b, idem.Options{Lease: time.Hour})
		theirs := mustClaim(t, s, idem.Request{Key: "theirs"})
		require.NoError(t, s.Close())

		b = b.Reopen()
		s = open(t, b, idem.Options{})
		require.NoError(t, s.Checkpoint(t.Context(), theirs.Token, []byte("p")))
		start := time.Now()
		require.NoError(t, s.Shutdown(t.Context()))
		assert.Zero(t, time.Since(start))

		s = open(t, b.Reopen(), idem.Options{})
		require.NoError(t, s.Extend(t.Context(), theirs.Token, time.Hour))
		done := shutdown(t.Context(), s)
		require.Empty(t, done)
		require.NoError(t, s.Complete(t.Context(), theirs.Token, nil))
		require.NoError(t, <-done)
	})
}

// A duplicate of Do that waits is told how the work has ended, also where the store has
// begun to shut down and answers no claim any more.
func TestDuplicatesOfDoDuringShutdown(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"done":   {nil, nil},
		"failed": {idem.Permanent(errors.New("no money")), idem.ErrFailed},
		"held":   {idem.Unknown(errors.New("no answer")), idem.ErrHeld},
		"again":  {errors.New("try again"), idem.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			shutdownTest(t, func(t *testing.T, s *idem.Store) {
				leave := make(chan struct{})
				work := func(context.Context, idem.Claim) (string, error) {
					<-leave
					return "value", c.err
				}
				first := make(chan error, 1)
				go func() {
					_, _, err := idem.Do(t.Context(), s, idem.Request{Key: "k"}, work)
					first <- err
				}()
				synctest.Wait()
				type answer struct {
					value    string
					replayed bool
					err      error
				}
				duplicate := make(chan answer, 1)
				go func() {
					value, replayed, err := idem.Do(t.Context(), s, idem.Request{Key: "k"}, work)
					duplicate <- answer{value, replayed, err}
				}()
				synctest.Wait()
				down := shutdown(t.Context(), s)
				close(leave)
				require.ErrorIs(t, <-first, c.err)
				a := <-duplicate
				require.ErrorIs(t, a.err, c.want)
				if c.err == nil {
					require.Equal(t, answer{"value", true, nil}, a)
				}
				require.NoError(t, <-down)
			})
		})
	}
}

// Observers that block keep neither Shutdown nor Close.
func TestShutdownWithAnObserverThatBlocks(t *testing.T) {
	t.Parallel()
	for _, kind := range []idem.EventKind{idem.ClaimGranted, idem.OperationCompleted, idem.LeaseExtended, idem.CommitDone} {
		t.Run(kind.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				leave := make(chan struct{})
				s := open(t, memory.New(memory.Options{}), idem.Options{Lease: time.Minute, SweepInterval: -1, Observer: func(_ context.Context, e idem.Event) {
					if e.Kind == kind {
						<-leave
					}
				}})
				done := make(chan error, 1)
				go func() {
					_, _, err := idem.Do(t.Context(), s, idem.Request{Key: "k"}, func(ctx context.Context, c idem.Claim) (int, error) {
						return 1, s.Extend(ctx, c.Token, 0)
					})
					done <- err
				}()
				synctest.Wait()
				require.NoError(t, s.Shutdown(t.Context()))
				close(leave)
				<-done
			})
		})
	}
}
