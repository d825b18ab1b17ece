package txbackend

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

const stall = 30 * time.Second

// async calls fn and returns where its error comes.
func async(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// pending fails the test if c has an answer.
func pending(t *testing.T, what string, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		t.Fatalf("%s was answered: %v", what, err)
	default:
	}
}

// A commit that does not return breaks the store: whoever is in it, waits for it or
// comes later is answered, and so is Close. The engine is closed only when the write
// has returned, because it may still be at the files.
func TestStuckCommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at    point
		close bool // before it counts as stuck
	}{
		"begin":            {at: beginning},
		"sync":             {at: visible},
		"sync, and Close":  {at: visible, close: true},
		"begin, and Close": {at: beginning, close: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := newEnv(t, func(o *idem.Options) { o.Stall = stall })
				token := e.claim("old")
				reached, release := e.fake.stall(c.at)
				defer release()
				begun := time.Now()
				stuck := async(func() error { return e.s.Complete(ctx, token, nil) })
				<-reached
				waits := async(func() error { return e.s.Extend(ctx, token, time.Hour) })
				update := async(func() error { return e.b.Update(ctx, sameCommit(nothing)) })
				synctest.Wait()
				var closed <-chan error
				if c.close {
					closed = async(e.s.Close)
				}
				time.Sleep(stall - stall/stallTicks - 1)
				synctest.Wait()
				pending(t, "a commit that may be slow", stuck)
				if c.close {
					pending(t, "Close", closed)
				}
				for _, answer := range []<-chan error{stuck, waits, update} {
					err := <-answer
					require.Error(t, err)
					if !c.close {
						require.ErrorIs(t, err, idem.ErrBroken)
						require.ErrorContains(t, err, "did not return within 30s: is the disk stuck?")
					}
				}
				require.LessOrEqual(t, time.Since(begun), stall+stall/stallTicks)
				if !c.close {
					_, err := e.s.Claim(ctx, idem.Request{Key: "new"})
					require.ErrorIs(t, err, idem.ErrBroken, "granted by a broken store")
					closed = async(e.s.Close)
				}
				err := <-closed
				require.ErrorIs(t, err, idem.ErrBroken)
				require.ErrorContains(t, err, "did not close within")
				require.Equal(t, err, e.s.Close(), "again")
				require.LessOrEqual(t, time.Since(begun), 2*stall)
				requireCloses(t, e.fake, 0, "closed under a write")
				release()
				synctest.Wait()
				requireCloses(t, e.fake, 1, "left open, with its lock")
				_, held := e.b.gate.look("old")
				require.Equal(t, c.at == visible, held, "what the write left can be seen")
			})
		})
	}
}

// A same-commit function that does not return: its ctx ends with the reason, everybody
// is answered, and what it does afterwards changes nothing.
func TestStuckFunction(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var cause error
		release := make(chan struct{})
		stuck := async(func() error {
			_, _, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, withCtx(func(ctx context.Context, tx *fakeTx) ([]byte, error) {
				<-ctx.Done()
				cause = context.Cause(ctx)
				<-release
				tx.put("x", "1")
				return nil, nil
			}))
			return err
		})
		synctest.Wait()
		queued := async(func() error { _, err := e.s.Claim(ctx, idem.Request{Key: "other"}); return err })
		for _, answer := range []<-chan error{stuck, queued} {
			err := <-answer
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorContains(t, err, "a same-commit function did not return within 30s")
		}
		synctest.Wait()
		require.ErrorIs(t, cause, idem.ErrBroken)
		require.ErrorIs(t, e.s.Close(), idem.ErrBroken)
		requireCloses(t, e.fake, 0)
		close(release)
		synctest.Wait()
		requireCloses(t, e.fake, 1)
		require.Empty(t, e.fake.durable(own))
		require.Empty(t, e.fake.durable(Records))
	})
}

// A function that heeds its ctx lets Close end at once when the store breaks.
func TestFunctionHearsOfABrokenStore(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		done := async(func() error {
			return e.b.Update(ctx, withCtx(func(ctx context.Context, _ *fakeTx) ([]byte, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}))
		})
		synctest.Wait()
		broken := e.b.Break(errDisk)
		require.Equal(t, broken, <-done)
		require.NoError(t, e.s.Close())
		requireCloses(t, e.fake, 1)
	})
}

// A function's ctx has its caller's values, ends with it, and is marked by the store.
func TestFunctionsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{ string }
		f, h := newFake(), &host{}
		b := New(f)
		bound := h.host()
		bound.Within = func(ctx context.Context) context.Context { return context.WithValue(ctx, key{"within"}, true) }
		require.Equal(t, ctx, b.Within(ctx))
		_, err := b.Bind(bound)
		require.NoError(t, err)
		require.NotNil(t, b.Within(ctx).Value(key{"within"}))
		caller, cancel := context.WithCancel(context.WithValue(ctx, key{"tenant"}, "t"))
		errCaller := b.Update(caller, withCtx(func(ctx context.Context, _ *fakeTx) ([]byte, error) {
			assert.Equal(t, "t", ctx.Value(key{"tenant"}))
			assert.Equal(t, true, ctx.Value(key{"within"}))
			assert.NoError(t, ctx.Err())
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		require.Equal(t, context.Canceled, errCaller)
		require.NoError(t, b.Close())
	})
}

// An engine whose closing does not end is left behind.
func TestStuckClose(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		reached, release := e.fake.stall(closing)
		defer release()
		closed := async(e.s.Close)
		<-reached
		err := <-closed
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorContains(t, err, "did not close within")
		require.ErrorContains(t, e.b.brokenErr(), "closing did not end within 30s")
	})
}

// Many commits, each shorter than the bound and all together longer, are not stalled.
// Neither is one commit over which much time passed in which the process did not run.
func TestSlowCommitsAreNotStalled(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.fake.on(visible, func() error { time.Sleep(stall - 2*time.Second); return nil })
		for range 5 {
			require.NoError(t, e.b.Update(ctx, sameCommit(nothing)))
		}
	})
	w := newWatch(stall, func() { t.Error("a process that was stopped counts as stalled") })
	w.begin()
	w.tick() // one tick, however late
	w.timer.Stop()
}

// The watch ends with the work, and begins again with it.
func TestWatchRunsOnlyWithWork(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		w := e.b.watch.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.False(t, w.on.Load(), "an idle store has a timer")
		for range 3 {
			e.claim("k" + time.Now().String())
			require.True(t, w.on.Load())
			time.Sleep(time.Hour)
			synctest.Wait()
			require.False(t, w.on.Load())
		}
		reached, release := e.fake.stall(visible)
		stuck := async(func() error { _, err := e.s.Claim(ctx, idem.Request{Key: "stuck"}); return err })
		<-reached
		require.ErrorIs(t, <-stuck, idem.ErrBroken)
		release()
	})
}

// Without a bound a commit may take as long as it likes.
func TestNoStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, func(o *idem.Options) { o.Stall = -1 })
		e.fake.on(visible, func() error { time.Sleep(time.Hour); return nil })
		require.NoError(t, e.b.Update(ctx, sameCommit(nothing)))
	})
}

// Whoever left a commit that is stuck may have its ops looked at no more; the commit
// that wakes up tells nobody.
func TestStuckCommitTellsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []idem.EventKind
		e := newEnv(t, func(o *idem.Options) {
			o.Observer = func(_ context.Context, ev idem.Event) { events = append(events, ev.Kind) }
		})
		reached, release := e.fake.stall(visible)
		stuck := async(func() error { _, err := e.s.Claim(ctx, idem.Request{Key: "k"}); return err })
		<-reached
		waited := async(func() error { _, err := e.s.Wait(ctx, "k"); return err })
		err := <-stuck
		require.ErrorIs(t, err, idem.ErrBroken)
		require.Error(t, <-waited)
		release()
		synctest.Wait()
		require.NotContains(t, events, idem.ClaimGranted)
		require.NotContains(t, events, idem.CommitDone)
		require.False(t, errors.Is(err, context.DeadlineExceeded))
	})
}

// A watch whose first tick comes before it is made has its timer all the same.
func TestWatchOfTheShortestBound(t *testing.T) {
	t.Parallel()
	for range 20000 {
		stalled := make(chan struct{})
		w := newWatch(1, func() { close(stalled) })
		w.begin()
		<-stalled
	}
}
