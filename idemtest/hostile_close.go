package idemtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// pastime is an activity that goes on until the store is closed under it. It returns
// the store's answer, and what was granted or recorded before.
type pastime struct {
	name string
	do   func(e *env, s *idem.Store, key string, kept *ledger) error
}

// ledger is what callers were told.
type ledger struct {
	mu        sync.Mutex
	fences    map[string]uint64
	completed map[string]string
}

func (l *ledger) granted(t idem.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fences[t.Key] = t.Fence
}

func (l *ledger) done(key, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.completed[key] = result
}

var pastimes = []pastime{
	{"claims", func(e *env, s *idem.Store, key string, kept *ledger) error {
		c, err := s.Claim(e.ctx, idem.Request{Key: key})
		if err == nil {
			kept.granted(c.Token)
		}
		return err
	}},
	{"ClaimMany and CompleteMany", func(e *env, s *idem.Store, key string, kept *ledger) error {
		var done []idem.Completion
		var failed error
		for _, c := range s.ClaimMany(e.ctx, []idem.Request{{Key: key + "a"}, {Key: key + "b"}}) {
			if failed = c.Err; failed == nil {
				kept.granted(c.Claim.Token)
				done = append(done, idem.Completion{Token: c.Claim.Token, Result: []byte(key)})
			}
		}
		for i, err := range s.CompleteMany(e.ctx, done) {
			if err != nil {
				return err
			}
			kept.done(done[i].Token.Key, key)
		}
		return failed
	}},
	{"Do", func(e *env, s *idem.Store, key string, kept *ledger) error {
		_, _, err := idem.Do(e.ctx, s, idem.Request{Key: key}, func(_ context.Context, c idem.Claim) ([]byte, error) {
			kept.granted(c.Token)
			return []byte(key), nil
		})
		if err == nil {
			kept.done(key, key)
		}
		return err
	}},
	{"Do, many on one key", func(e *env, s *idem.Store, _ string, _ *ledger) error {
		_, _, err := idem.Do(e.ctx, s, idem.Request{Key: "shared"}, func(context.Context, idem.Claim) (int, error) {
			return 0, errAgain
		})
		if errors.Is(err, errAgain) && !errors.Is(err, idem.ErrClosed) {
			return nil
		}
		return err
	}},
	{"waits", func(e *env, s *idem.Store, _ string, _ *ledger) error {
		_, err := s.Wait(e.ctx, "in flight")
		return err
	}},
	{"extends", func(e *env, s *idem.Store, key string, kept *ledger) error {
		c, err := s.Claim(e.ctx, idem.Request{Key: key})
		if err == nil {
			kept.granted(c.Token)
			err = s.Extend(e.ctx, c.Token, time.Hour)
		}
		if err == nil {
			err = s.Checkpoint(e.ctx, c.Token, []byte("point"))
		}
		return err
	}},
	{"sweeps", func(e *env, s *idem.Store, key string, _ *ledger) error {
		if !e.canExpire() {
			_, err := s.Get(e.ctx, key)
			return orNotFound(err)
		}
		c, err := s.Claim(e.ctx, idem.Request{Key: "brief " + key, Lease: time.Millisecond, Retention: 1})
		if err == nil {
			_ = c
			e.clock.Advance(2 * time.Millisecond)
			_, err = s.Sweep(e.ctx, 100)
		}
		return err
	}},
	{"Records and Stats", func(e *env, s *idem.Store, key string, _ *ledger) error {
		if !e.canScan() {
			_, err := s.Get(e.ctx, key)
			return orNotFound(err)
		}
		for _, err := range s.Records(e.ctx, idem.Filter{}) {
			if err != nil {
				return err
			}
		}
		_, err := s.Stats(e.ctx)
		return err
	}},
	{"Get and Forget", func(e *env, s *idem.Store, key string, _ *ledger) error {
		if _, err := s.Get(e.ctx, "in flight"); err != nil {
			return err
		}
		return s.Forget(e.ctx, idem.Token{Key: key})
	}},
}

var errAgain = errors.New("not this time")

func orNotFound(err error) error {
	if errors.Is(err, idem.ErrNotFound) {
		return nil
	}
	return err
}

// closeEverywhere closes a store at a different moment in each round, while all
// pastimes go on at once.
func closeEverywhere(t *testing.T, e *env) {
	for round := range scaled(12) {
		e.dir = t.TempDir()
		s := e.open(idem.Options{SweepInterval: time.Nanosecond, CacheBytes: 1 << 20})
		e.claim(idem.Request{Key: "in flight", Lease: 1000 * time.Hour})
		kept := &ledger{fences: map[string]uint64{}, completed: map[string]string{}}
		moment := int64(1 + 2*(round%12)*(round%12))
		var begun atomic.Int64
		reached := make(chan struct{})
		const each = 2
		errs := make([]error, each*len(pastimes))
		traffic := async(func() struct{} {
			inParallel(len(errs), func(w int) {
				for i := 0; errs[w] == nil; i++ {
					if begun.Add(1) == moment {
						close(reached)
					}
					errs[w] = pastimes[w/each].do(e, s, fmt.Sprintf("%d %d", w, i), kept)
				}
			})
			return struct{}{}
		})
		e.await("traffic", reached)
		closed := async(s.Close)
		require.NoError(t, closed.wait(e, "Close"), "round %d", round)
		traffic.wait(e, "traffic on a store that is closed")
		for w, err := range errs {
			require.ErrorIs(t, err, idem.ErrClosed, "%s", pastimes[w/each].name)
		}
		if e.h.Volatile {
			continue
		}
		e.open(e.opts)
		for key, fence := range kept.fences {
			r, err := e.s.Get(e.ctx, key)
			require.NoError(t, err, "%s was granted", key)
			require.Equal(t, fence, r.Fence, "%s was granted", key)
		}
		for key, result := range kept.completed {
			r := e.get(key)
			require.Equal(t, idem.Completed, r.State, "%s was completed", key)
			require.Equal(t, result, string(r.Result))
		}
		e.close()
	}
}

// closeStalled closes a store whose commit hangs on the disk. Waiters wake at once,
// calls in the commit get its true answer, and Close waits for it.
func closeStalled(t *testing.T, e *env) {
	e.stallable()
	s := e.open(idem.Options{})
	e.claim(idem.Request{Key: "in flight"})
	reached, release := e.stall()
	claim := func(key string) *pending[error] {
		return async(func() error { _, err := s.Claim(e.ctx, idem.Request{Key: key}); return err })
	}
	first := claim("first")
	e.await("the commit", reached)
	queued := []*pending[error]{claim("queued 1"), claim("queued 2")}
	waiting := async(func() error { _, err := s.Wait(e.ctx, "in flight"); return err })
	e.timers(1)
	closers := []*pending[error]{async(s.Close), async(s.Close), async(func() error { return s.Shutdown(e.ctx) })}
	require.ErrorIs(t, waiting.wait(e, "Wait on a store that is closing"), idem.ErrClosed)
	_, err := s.Claim(e.ctx, idem.Request{Key: "late"})
	require.ErrorIs(t, err, idem.ErrClosed)
	_, err = s.Get(e.ctx, "in flight")
	require.ErrorIs(t, err, idem.ErrClosed)
	settle()
	for _, c := range closers {
		require.False(t, c.isDone(), "a commit is under way")
	}
	require.False(t, first.isDone(), "it is not durable")
	release()
	for _, c := range closers {
		require.NoError(t, c.wait(e, "Close"))
	}
	require.NoError(t, first.wait(e, "the claim in the commit"), "its true answer")
	answers := map[string]error{"first": nil, "late": idem.ErrClosed}
	for i, q := range queued {
		answers[fmt.Sprint("queued ", i+1)] = q.wait(e, "a claim in the queue")
	}
	e.open(e.opts)
	for key, err := range answers {
		if err == nil {
			require.Equal(t, idem.InFlight, e.get(key).State, key)
			continue
		}
		require.ErrorIs(t, err, idem.ErrClosed, key)
		e.absent(key)
	}
}

// closeByObserver has the Observer close its store at every event.
func closeByObserver(t *testing.T, e *env) {
	for kind := idem.ClaimGranted; kind <= idem.StoreBroken; kind++ {
		e.dir = t.TempDir()
		var s *idem.Store
		var closed error
		var calls atomic.Int64
		ready := make(chan struct{})
		s = e.open(idem.Options{MaxAttempts: 2, SweepInterval: time.Nanosecond, Observer: func(_ context.Context, ev idem.Event) {
			<-ready
			if ev.Kind == kind {
				calls.Add(1)
				if err := s.Close(); err != nil {
					closed = err
				}
			}
		}})
		close(ready)
		e.within(fmt.Sprintf("a store that its Observer closes at %v", kind), func() { everyEvent(e, s) })
		require.NoError(t, e.closeStore(s), "%v", kind)
		require.NoError(t, closed, "%v", kind)
		if calls.Load() == 0 && kind != idem.StoreBroken && kind != idem.SweepFailed && kind != idem.ClaimFull {
			t.Logf("no %v with this engine", kind)
		}
	}
}

// everyEvent triggers most kinds of event until the store is closed.
func everyEvent(e *env, s *idem.Store) {
	claim := func(key string) idem.Token {
		c, _ := s.Claim(e.ctx, idem.Request{Key: key, Fingerprint: printA, Lease: time.Minute, Retention: time.Hour})
		if c.Token.Fence == 0 {
			c.Token = idem.Token{Key: key, Fence: 1}
		}
		return c.Token
	}
	done, failed, held, released, brief := claim("done"), claim("failed"), claim("held"), claim("released"), claim("brief")
	_, _ = s.Claim(e.ctx, idem.Request{Key: "done", Fingerprint: printB})
	claim("done")
	_ = s.Complete(e.ctx, done, []byte("r"))
	_ = s.Fail(e.ctx, failed, nil)
	_ = s.Hold(e.ctx, held, nil)
	_ = s.Extend(e.ctx, brief, time.Minute)
	_ = s.Checkpoint(e.ctx, brief, []byte("p"))
	_ = s.Release(e.ctx, released, nil)
	for range 3 {
		claim("done")
		claim("failed")
		claim("held")
		_ = s.Release(e.ctx, claim("released"), nil)
	}
	e.clock.Advance(time.Minute)
	claim("brief")
	_ = s.Complete(e.ctx, brief, nil)
	e.clock.Advance(2 * time.Hour)
	if e.canExpire() {
		_, _ = s.Sweep(e.ctx, 100)
	}
	_ = s.Forget(e.ctx, idem.Token{Key: "held"})
}

// closeWithinDo closes the store from Do's function.
func closeWithinDo(t *testing.T, e *env) {
	for _, shut := range []struct {
		name string
		down func(s *idem.Store) error
	}{
		{"Close", func(s *idem.Store) error { return s.Close() }},
		{"Shutdown", func(s *idem.Store) error {
			ctx, cancel := context.WithCancel(e.ctx)
			cancel() // Shutdown would wait for the claim of the very function that calls it
			if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("shutting down: %w", err)
			}
			return nil
		}},
	} {
		e.dir = t.TempDir()
		s := e.open(idem.Options{})
		done := async(func() error {
			_, _, err := idem.Do(e.ctx, s, idem.Request{Key: "k"}, func(context.Context, idem.Claim) (int, error) {
				return 1, shut.down(s)
			})
			return err
		})
		require.ErrorIs(t, done.wait(e, "Do"), idem.ErrClosed, "%s: nothing was recorded, and nobody is told that it was", shut.name)
		if !e.h.Volatile {
			e.open(e.opts)
			require.Equal(t, idem.InFlight, e.get("k").State)
		}
	}
}

// closeAndShutdown ends a store in every way at once, with claims open.
func closeAndShutdown(t *testing.T, e *env) {
	for round := range scaled(10) {
		e.dir = t.TempDir()
		s := e.open(idem.Options{})
		tokens := make([]idem.Token, 4)
		for i := range tokens {
			tokens[i] = e.claim(idem.Request{Key: fmt.Sprint("k", i)}).Token
		}
		ctx, cancel := context.WithCancel(e.ctx)
		errs := make([]error, 12)
		e.together(len(errs), func(i int) {
			switch {
			case i < 4:
				errs[i] = s.Shutdown(ctx)
			case i < 7:
				errs[i] = s.Close()
			case i == 7:
				cancel()
			default:
				errs[i] = s.Complete(e.ctx, tokens[i-8], []byte("r"))
			}
		})
		cancel()
		for i, err := range errs {
			switch {
			case i < 4 && err != nil:
				require.ErrorIs(t, err, context.Canceled, "Shutdown, round %d", round)
			case i < 8:
				if i >= 4 {
					require.NoError(t, err, "Close, round %d", round)
				}
			case err != nil:
				require.ErrorIs(t, err, idem.ErrClosed, "Complete, round %d", round)
			}
		}
		if e.h.Volatile {
			continue
		}
		e.open(e.opts)
		for i, token := range tokens {
			want := idem.InFlight
			if errs[8+i] == nil {
				want = idem.Completed
			}
			require.Equal(t, want, e.get(token.Key).State, "round %d: Complete said %v", round, errs[8+i])
		}
		e.close()
	}
}
