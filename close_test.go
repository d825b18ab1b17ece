package idem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
)

// everything calls each method of the store that can answer ErrClosed or ErrBroken.
func everything(s *idem.Store) map[string]error {
	return everythingWith(context.Background(), s)
}

// everythingWith is everything with ctx.
func everythingWith(ctx context.Context, s *idem.Store) map[string]error {
	token := idem.Token{Key: "k", Fence: 1}
	errs := map[string]error{
		"Complete":   s.Complete(ctx, token, nil),
		"Unclaim":    s.Unclaim(ctx, token),
		"Health":     s.Health(ctx),
		"Fail":       s.Fail(ctx, token, nil),
		"Release":    s.Release(ctx, token, nil),
		"Hold":       s.Hold(ctx, token, nil),
		"Extend":     s.Extend(ctx, token, 0),
		"Checkpoint": s.Checkpoint(ctx, token, nil),
		"Forget":     s.Forget(ctx, idem.Token{Key: "k"}),
		"ClaimMany":  s.ClaimMany(ctx, []idem.Request{{Key: "k"}})[0].Err,
		"Complete2":  s.CompleteMany(ctx, []idem.Completion{{Token: token}})[0],
		"Negative":   s.Extend(ctx, token, -1),
		"Large":      s.Checkpoint(ctx, token, make([]byte, 2<<20)),
		"Effect":     s.CompleteEffect(ctx, token, storetest.Effect(nil)),
	}
	_, errs["Claim"] = s.Claim(ctx, idem.Request{Key: "k"})
	_, errs["Get"] = s.Get(ctx, "k")
	_, errs["Wait"] = s.Wait(ctx, "k")
	_, errs["Stats"] = s.Stats(ctx)
	_, errs["Sweep"] = s.Sweep(ctx, 1)
	_, _, errs["DoEffect"] = s.DoEffect(ctx, idem.Request{Key: "k"}, storetest.Effect(nil))
	_, _, errs["Do"] = idem.Do(ctx, s, idem.Request{Key: "k"}, func(context.Context, idem.Claim) (int, error) {
		panic("it was run")
	})
	for _, err := range s.Records(ctx, idem.Filter{}) {
		errs["Records"] = err
	}
	return errs
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewRich(), idem.Options{})
	require.NoError(t, s.Close())
	for name, err := range everything(s) {
		assert.Equal(t, idem.ErrClosed, err, name)
	}
	require.NoError(t, s.Close(), "again")
	require.NoError(t, s.Shutdown(t.Context()), "and in order")
}

// Several goroutines close; the engine is closed once, and each is told how
// that went when it is over.
func TestCloseFromSeveralGoroutines(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	b := storetest.NewStub()
	b.OnClose = func() error {
		close(entered)
		<-leave
		return storetest.ErrDisk
	}
	s := open(t, b, idem.Options{})
	errs := make(chan error, 3)
	go func() { errs <- s.Close() }()
	go func() { errs <- s.Close() }()
	go func() { errs <- s.Shutdown(context.Background()) }()
	<-entered
	require.Equal(t, idem.ErrClosed, s.Forget(t.Context(), idem.Token{Key: "k"}))
	assert.Empty(t, errs, "closing is not over")
	close(leave)
	for range 3 {
		require.ErrorIs(t, <-errs, storetest.ErrDisk)
	}
	assert.Equal(t, int64(1), b.Closes.Load())
}

// Calls that are inside the engine end with their own answer, and Close waits
// for them.
func TestCloseWaitsForCallsUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var reading, applying gate
		b := storetest.NewStub()
		b.OnRead = func(string) error { reading.pass(); return nil }
		b.OnApply = func(context.Context, []engine.Op) error { applying.pass(); return nil }
		s := open(t, b, idem.Options{})
		ctx := t.Context()
		held, err := s.Claim(ctx, idem.Request{Key: "held"})
		require.NoError(t, err)

		reading.shut()
		applying.shut()
		answers := make(chan error, 2)
		go func() { answers <- s.Complete(ctx, held.Token, []byte("r")) }()
		go func() {
			_, err := s.Get(ctx, "held")
			answers <- err
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		require.Empty(t, closed)
		_, err = s.Get(ctx, "held")
		require.Equal(t, idem.ErrClosed, err, "later calls are not let in")
		require.Equal(t, idem.ErrClosed, s.Release(ctx, held.Token, nil))

		reading.open()
		require.NoError(t, <-answers)
		synctest.Wait()
		require.Empty(t, closed, "one is still inside")
		assert.Zero(t, b.Closes.Load())
		applying.open()
		require.NoError(t, <-answers)
		require.NoError(t, <-closed)
		assert.Equal(t, idem.Completed, b.Entries["held"].State, "it was told nil, so it is there")
	})
}

// After a commit that failed nothing is granted, replayed or read, and the
// error says why; closing outranks it.
func TestBrokenStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		s := open(t, storetest.Rich{Stub: b}, idem.Options{})
		ctx := t.Context()
		done, err := s.Claim(ctx, idem.Request{Key: "done"})
		require.NoError(t, err)
		require.NoError(t, s.Complete(ctx, done.Token, []byte("r")))
		flying, err := s.Claim(ctx, idem.Request{Key: "k"})
		require.NoError(t, err)
		woken := waitAll(t, s, "k", 2)

		b.OnCommit = func() error { return storetest.ErrDisk }
		err = s.Complete(ctx, flying.Token, nil)
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorIs(t, err, storetest.ErrDisk, "it wraps the cause")
		for range 2 {
			require.ErrorIs(t, (<-woken).err, idem.ErrBroken)
		}
		b.OnCommit = nil
		for name, err := range everything(s) {
			require.ErrorIs(t, err, idem.ErrBroken, name)
			require.ErrorIs(t, err, storetest.ErrDisk, name)
		}
		_, err = s.Get(ctx, "done")
		require.ErrorIs(t, err, idem.ErrBroken, "not even from the cache")

		require.NoError(t, s.Shutdown(ctx), "it does not wait for the claim that is open")
		for name, err := range everything(s) {
			assert.Equal(t, idem.ErrClosed, err, "closed outranks broken: %s", name)
		}
	})
}

// A call that is stuck in a broken engine does not hold Close up for good.
func TestCloseOfABrokenStoreIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var stuck gate
		stuck.shut()
		b := storetest.NewStub()
		b.OnApply = func(context.Context, []engine.Op) error { stuck.pass(); return nil }
		s := open(t, b, idem.Options{Stall: -1})
		answer := make(chan error, 1)
		go func() {
			_, err := s.Claim(context.Background(), k)
			answer <- err
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		time.Sleep(time.Hour)
		require.Empty(t, closed, "while the engine is whole its calls are waited for")
		b.Fail(storetest.ErrDisk)
		start := time.Now()
		require.NoError(t, <-closed)
		assert.Equal(t, 2*time.Second, time.Since(start))
		require.Empty(t, answer)
		stuck.open()
		err := <-answer
		require.ErrorIs(t, err, idem.ErrClosed, "closed outranks broken")
		require.ErrorIs(t, err, storetest.ErrDisk, "but what was asked may have been done, and the caller hears so")
	})
}

// A read that the operating system does not answer breaks nothing. Close leaves it
// behind as it would a commit, whether it is a caller's or the sweeper's.
func TestCloseDuringAStuckReadIsBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaks bool
		bound  time.Duration
	}{"whole": {false, time.Minute}, "broken": {true, 2 * time.Second}} {
		for _, sweeps := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, of a sweep %v", name, sweeps), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var stuck gate
					b := storetest.NewStub()
					b.OnRead = func(string) error { stuck.pass(); return nil }
					b.OnScan = func(string) error { stuck.pass(); return nil }
					s := open(t, storetest.Rich{Stub: b}, idem.Options{Stall: time.Minute})
					mustClaim(t, s, idem.Request{Key: "k", Lease: time.Second, Retention: time.Second})
					stuck.shut()
					read := make(chan struct{})
					go func() {
						defer close(read)
						if !sweeps {
							_, _ = s.Get(context.Background(), "other")
						}
					}()
					if sweeps {
						time.Sleep(time.Hour) // the record is due
					}
					synctest.Wait()
					if c.breaks {
						b.Fail(storetest.ErrDisk)
					}
					start := time.Now()
					require.NoError(t, s.Close())
					assert.Equal(t, c.bound, time.Since(start))
					assert.EqualValues(t, 1, b.Closes.Load())
					stuck.open()
					<-read
				})
			})
		}
	}
}

// The engine may break under a call that is not its own doing.
func TestBrokenUnderACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cause := errors.New("background: no space left")
		var reading gate
		reading.shut()
		b := storetest.NewStub()
		b.OnRead = func(string) error {
			reading.pass()
			return errors.Join(idem.ErrBroken, errors.New("a later thing"))
		}
		s := open(t, b, idem.Options{})
		answer := make(chan error, 1)
		go func() {
			_, err := s.Get(context.Background(), "k")
			answer <- err
		}()
		synctest.Wait()
		b.Host.Broken(errors.Join(idem.ErrBroken, cause))
		b.Host.Broken(errors.Join(idem.ErrBroken, errors.New("the second does not count")))
		reading.open()
		err := <-answer
		require.ErrorIs(t, err, cause, "the first cause is everybody's")
		require.NotContains(t, err.Error(), "second")
	})
}

// An engine's ErrClosed under a call is the store's own, and one that the
// engine made up is passed on.
func TestEngineSaysClosed(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	b.OnRead = func(string) error { return idem.ErrClosed }
	s := open(t, b, idem.Options{})
	_, err := s.Get(t.Context(), "k")
	require.Equal(t, idem.ErrClosed, err)
	b.OnRead = func(string) error { return idem.ErrCorrupt }
	_, err = s.Get(t.Context(), "k")
	require.ErrorIs(t, err, idem.ErrCorrupt)
	_, err = s.Claim(t.Context(), idem.Request{Key: "k"})
	require.ErrorIs(t, err, idem.ErrCorrupt, "damage must not grant")
}

// A commit fails while the store is being closed: its caller hears that the store is
// closed and, because what was asked may have been done, that the commit failed.
func TestCommitFailsUnderClose(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(s *idem.Store, t idem.Token) error{
		"Claim": func(s *idem.Store, _ idem.Token) error {
			_, err := s.Claim(context.Background(), idem.Request{Key: "new"})
			return err
		},
		"ClaimMany": func(s *idem.Store, _ idem.Token) error {
			return s.ClaimMany(context.Background(), []idem.Request{{Key: "new"}})[0].Err
		},
		"Complete": func(s *idem.Store, t idem.Token) error { return s.Complete(context.Background(), t, nil) },
		"CompleteMany": func(s *idem.Store, t idem.Token) error {
			return s.CompleteMany(context.Background(), []idem.Completion{{Token: t}})[0]
		},
		"Forget": func(s *idem.Store, t idem.Token) error { return s.Forget(context.Background(), t) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := storetest.NewStub()
				s := open(t, b, idem.Options{SweepInterval: -1})
				token := mustClaim(t, s, k).Token
				var stuck gate
				stuck.shut()
				b.OnCommit = func() error { stuck.pass(); return storetest.ErrDisk }
				answer, closed := make(chan error, 1), make(chan error, 1)
				go func() { answer <- call(s, token) }()
				synctest.Wait()
				go func() { closed <- s.Close() }()
				synctest.Wait()
				require.Empty(t, closed)
				stuck.open()
				err := <-answer
				require.ErrorIs(t, err, idem.ErrClosed)
				require.ErrorIs(t, err, idem.ErrBroken)
				require.ErrorIs(t, err, storetest.ErrDisk)
				assert.Contains(t, err.Error(), "a commit under way failed")
				require.NoError(t, <-closed)
				require.Equal(t, idem.ErrClosed, call(s, token), "and later calls that it is closed")
			})
		})
	}
}
