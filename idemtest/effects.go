package idemtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Effects describes an engine with same-commit functions to RunEffects: its Do,
// Complete and Update, with the caller's own data as keys and values. Every field but
// DoCtx is required.
type Effects struct {
	// Do and Complete call the engine's functions of the same name.
	Do       func(ctx context.Context, s *idem.Store, r idem.Request, fn func(KV) ([]byte, error)) (result []byte, replayed bool, err error)
	Complete func(ctx context.Context, s *idem.Store, token idem.Token, fn func(KV) ([]byte, error)) error
	// DoCtx is Do for functions that also take a context. Nil: the engine passes none.
	DoCtx func(ctx context.Context, s *idem.Store, r idem.Request, fn func(context.Context, KV) ([]byte, error)) (result []byte, replayed bool, err error)
	// Update calls Update of the engine b, which is what Harness.Open returned.
	Update func(ctx context.Context, b engine.Backend, fn func(KV) error) error
	// Get reads the caller's committed data, nil if there is none.
	Get func(t testing.TB, b engine.Backend, key string) []byte
}

// KV is the caller's own data inside a transaction or batch. Its methods panic if the
// engine returns an error.
type KV interface {
	// Get returns the value of key, nil if there is none.
	Get(key string) []byte
	// Put sets the value of key.
	Put(key string, value []byte)
}

// RunEffects shows that an engine's same-commit functions keep their rules.
func RunEffects(t *testing.T, h Harness, x Effects) {
	for _, c := range append(effectCases, effectEndCases...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.fn(t, &effectEnv{env: newEnv(t, h), x: x})
		})
	}
}

type effectEnv struct {
	*env
	x     Effects
	holds int // commits that queued has stalled
}

func (e *effectEnv) do(key string, fn func(KV) ([]byte, error)) ([]byte, bool, error) {
	return e.x.Do(e.ctx, e.s, idem.Request{Key: key}, fn)
}

// balance reads a number of the caller's committed data.
func (e *effectEnv) balance(key string) uint64 {
	e.t.Helper()
	return number(e.x.Get(e.t, e.backend, key))
}

func number(b []byte) uint64 {
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// add is a same-commit function that reads and writes one balance.
func add(key string, n uint64) func(KV) ([]byte, error) {
	return func(kv KV) ([]byte, error) {
		sum := number(kv.Get(key)) + n
		kv.Put(key, binary.BigEndian.AppendUint64(nil, sum))
		return fmt.Appendf(nil, "%d", sum), nil
	}
}

var errOwn = errors.New("the function's own error")

type effectCase struct {
	name string
	fn   func(t *testing.T, e *effectEnv)
}

var effectCases = []effectCase{
	{"run once and replayed", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{})
		var fresh atomic.Int64
		e.together(32, func(int) {
			result, replayed, err := e.do("k", add("sum", 7))
			if err != nil || string(result) != "7" {
				t.Errorf("Do: %q, %v", result, err)
			}
			if !replayed {
				fresh.Add(1)
			}
		})
		require.EqualValues(t, 1, fresh.Load(), "calls that were not replays")
		require.EqualValues(t, 7, e.balance("sum"))

		e.reopen()
		result, replayed, err := e.do("k", add("sum", 7))
		require.NoError(t, err)
		require.True(t, replayed)
		require.Equal(t, "7", string(result))
		require.EqualValues(t, 7, e.balance("sum"))
	}},
	{"appending to a result copies it", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{})
		for _, n := range []int{1, 5, 33, 1000} { // copies of them have spare capacity
			for range 2 { // first run, then replayed
				result, _, err := e.do(fmt.Sprint("k", n), func(KV) ([]byte, error) { return make([]byte, n), nil })
				require.NoError(t, err)
				require.Len(t, result, n)
				require.Equal(t, n, cap(result), "callers share what is behind the result")
			}
		}
	}},
	{"no update is lost", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{})
		e.together(64, func(i int) {
			if _, _, err := e.do(fmt.Sprint("k", i), add("sum", uint64(i))); err != nil {
				t.Errorf("Do %d: %v", i, err)
			}
		})
		require.EqualValues(t, 63*64/2, e.balance("sum"))
	}},
	{"failing among others", failingAmongOthers},
	{"an error leaves the record as it was", func(t *testing.T, e *effectEnv) {
		s := e.open(idem.Options{})
		_, replayed, err := e.do("new", failing(errOwn))
		require.ErrorIs(t, err, errOwn)
		require.False(t, replayed)
		e.absent("new")

		c := e.claim(idem.Request{Key: "released"})
		require.NoError(t, s.Checkpoint(e.ctx, c.Token, []byte("half")))
		require.NoError(t, s.Release(e.ctx, c.Token, nil))
		before := e.get("released")
		_, _, err = e.do("released", failing(errOwn))
		require.ErrorIs(t, err, errOwn)
		after := e.get("released")
		require.Equal(t, before, after)
		require.Nil(t, e.x.Get(t, e.backend, "mine"))

		_, replayed, err = e.do("released", add("sum", 1))
		require.NoError(t, err)
		require.False(t, replayed)
		rec := e.get("released")
		require.Equal(t, idem.Completed, rec.State)
		require.Equal(t, 2, rec.Attempt)
		require.Greater(t, rec.Fence, c.Token.Fence)
	}},
	{"a permanent error is final", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{})
		_, _, err := e.do("k", failing(idem.Permanent(errOwn)))
		require.ErrorIs(t, err, errOwn)
		rec := e.get("k")
		require.Equal(t, idem.Failed, rec.State)
		require.Equal(t, errOwn.Error(), string(rec.Result))
		require.Nil(t, e.x.Get(t, e.backend, "mine"))
		_, _, err = e.do("k", mustNotRun(t))
		require.ErrorIs(t, err, idem.ErrFailed)
	}},
	{"an unknown outcome is held", func(t *testing.T, e *effectEnv) {
		s := e.open(idem.Options{})
		unknown := func(kv KV) ([]byte, error) {
			kv.Put("mine", []byte("must vanish"))
			return nil, idem.Unknown(errOwn)
		}
		_, _, err := e.do("k", unknown)
		require.ErrorIs(t, err, errOwn)
		c := e.claim(idem.Request{Key: "other"})
		require.ErrorIs(t, e.x.Complete(e.ctx, s, c.Token, unknown), errOwn)
		for _, key := range []string{"k", "other"} {
			rec := e.get(key)
			require.Equal(t, idem.Held, rec.State)
			require.Equal(t, errOwn.Error(), string(rec.Result))
			require.Equal(t, 1, rec.Attempt)
			_, _, err = e.do(key, mustNotRun(t))
			require.ErrorIs(t, err, idem.ErrHeld)
		}
		require.Nil(t, e.x.Get(t, e.backend, "mine"))
		rec := e.get("k")
		require.NoError(t, s.Complete(e.ctx, rec.Token(), []byte("found out")))
	}},
	{"Do is refused like a claim", func(t *testing.T, e *effectEnv) {
		s := e.open(idem.Options{Lease: time.Minute})
		one, two := idem.FingerprintOf([]byte("1")), idem.FingerprintOf([]byte("2"))
		c := e.claim(idem.Request{Key: "k", Fingerprint: one})
		_, _, err := e.x.Do(e.ctx, s, idem.Request{Key: "k", Fingerprint: two}, mustNotRun(t))
		require.ErrorIs(t, err, idem.ErrMismatch)
		require.NoError(t, s.Hold(e.ctx, c.Token, nil))
		_, _, err = e.do("k", mustNotRun(t))
		require.ErrorIs(t, err, idem.ErrHeld)
		_, _, err = e.do("", mustNotRun(t))
		require.ErrorIs(t, err, idem.ErrInvalid)
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		_, _, err = e.x.Do(ctx, s, idem.Request{Key: "other"}, mustNotRun(t))
		require.ErrorIs(t, err, context.Canceled)
	}},
	{"Do waits for a duplicate in flight", func(t *testing.T, e *effectEnv) {
		s := e.open(idem.Options{Lease: time.Minute})
		c := e.claim(idem.Request{Key: "k"})
		var result []byte
		var replayed bool
		done := async(func() (err error) {
			result, replayed, err = e.do("k", mustNotRun(t))
			return err
		})
		e.timers(1) // it waits for the lease
		require.NoError(t, s.Complete(e.ctx, c.Token, []byte("first")))
		require.NoError(t, done.wait(e.env, "Do"))
		require.True(t, replayed)
		require.Equal(t, "first", string(result))
	}},
	{"Do takes a lapsed claim over", func(t *testing.T, e *effectEnv) {
		s := e.open(idem.Options{Lease: time.Minute})
		c := e.claim(idem.Request{Key: "k"})
		e.clock.Advance(time.Minute)
		_, replayed, err := e.do("k", add("sum", 1))
		require.NoError(t, err)
		require.False(t, replayed)
		require.ErrorIs(t, s.Complete(e.ctx, c.Token, nil), idem.ErrFenced)
	}},
	{"a result too large", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{MaxResult: 8})
		large := func(kv KV) ([]byte, error) {
			_, err := add("sum", 1)(kv)
			return make([]byte, 9), err
		}
		_, replayed, err := e.do("k", large)
		require.ErrorIs(t, err, idem.ErrTooLarge)
		require.False(t, replayed)
		_, replayed, err = e.do("k", large)
		require.ErrorIs(t, err, idem.ErrTooLarge)
		require.True(t, replayed)
		rec := e.get("k")
		require.True(t, rec.ResultDropped)
		require.EqualValues(t, 1, e.balance("sum"))
	}},
	{"The result is the store's own copy", func(t *testing.T, e *effectEnv) {
		e.open(idem.Options{})
		mine := []byte("result")
		_, _, err := e.do("k", func(KV) ([]byte, error) { return mine, nil })
		require.NoError(t, err)
		copy(mine, "spoilt")
		rec := e.get("k")
		require.Equal(t, "result", string(rec.Result))
	}},
	{"Complete runs only for the claim's holder", completeEffects},
	{"Update", updateEffects},
	{"after a failed commit, effect and completion agree", func(t *testing.T, e *effectEnv) {
		if e.h.FailCommit == nil {
			t.Skip("the engine's commits cannot be made to fail")
		}
		e.open(idem.Options{})
		_, _, err := e.do("before", add("sum", 1))
		require.NoError(t, err)
		e.h.FailCommit(t, e.backend)
		_, _, err = e.do("k", add("sum", 10))
		require.ErrorIs(t, err, idem.ErrBroken)
		_, _, err = e.do("before", mustNotRun(t))
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorIs(t, e.x.Update(e.ctx, e.backend, func(KV) error { return nil }), idem.ErrBroken)

		_ = e.closeStore(e.s)
		s := e.open(idem.Options{})
		want := uint64(1)
		if _, err := s.Get(e.ctx, "k"); err == nil {
			want = 11
		} else {
			require.ErrorIs(t, err, idem.ErrNotFound)
		}
		require.Equal(t, want, e.balance("sum"))
	}},
	{"killed in a commit, effect and completion agree", func(t *testing.T, e *effectEnv) {
		if e.h.Stall == nil || e.h.Crash == nil {
			t.Skip("no crash in a commit can be staged")
		}
		e.open(idem.Options{})
		_, _, err := e.do("before", add("sum", 1))
		require.NoError(t, err)
		reached, release := e.h.Stall(t, e.backend)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = e.do("k", add("sum", 10))
		}()
		e.await("the commit", reached)
		left := e.h.Crash(t, e.backend, e.dir)
		release()
		e.await("Do", done)
		e.close()

		e.dir = left
		s := e.open(idem.Options{})
		_ = e.get("before")
		want := uint64(1)
		if _, err := s.Get(e.ctx, "k"); err == nil {
			want = 11
		}
		require.Equal(t, want, e.balance("sum"))
	}},
}

func failing(err error) func(KV) ([]byte, error) {
	return func(kv KV) ([]byte, error) {
		kv.Put("mine", []byte("must vanish"))
		return nil, err
	}
}

func mustNotRun(t *testing.T) func(KV) ([]byte, error) {
	return func(KV) ([]byte, error) {
		t.Error("the function ran")
		return nil, nil
	}
}

// failingAmongOthers has functions fail in every way in commits that they share with
// others that do not fail. The first commit is stalled if possible, and the rest queue
// behind it.
func failingAmongOthers(t *testing.T, e *effectEnv) {
	e.open(idem.Options{})
	release := func() {}
	if e.h.Stall != nil {
		var reached <-chan struct{}
		reached, release = e.h.Stall(t, e.backend)
		go func() { _, _, _ = e.do("first", add("sum", 1)) }()
		e.await("the first commit", reached)
	} else if _, _, err := e.do("first", add("sum", 1)); err != nil {
		t.Error(err)
	}
	const n = 40
	var wg, begun sync.WaitGroup
	for i := range n {
		wg.Add(1)
		begun.Add(1)
		go func() {
			defer wg.Done()
			begun.Done()
			key := fmt.Sprint("k", i)
			switch i % 4 {
			case 0:
				if _, _, err := e.do(key, add("sum", 100)); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			case 1:
				if _, _, err := e.do(key, failing(errOwn)); !errors.Is(err, errOwn) {
					t.Errorf("%s: %v, want its own error", key, err)
				}
			case 2:
				func() {
					defer func() {
						if v := recover(); v != key {
							t.Errorf("%s: recovered %v, want its own panic", key, v)
						}
					}()
					_, _, err := e.do(key, func(kv KV) ([]byte, error) {
						kv.Put("mine", []byte("must vanish"))
						panic(key)
					})
					t.Errorf("%s: Do returned %v after a panic", key, err)
				}()
			case 3:
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_, _, err := e.do(key, func(kv KV) ([]byte, error) {
						kv.Put("mine", []byte("must vanish"))
						runtime.Goexit()
						return nil, nil
					})
					t.Errorf("%s: Do returned %v after Goexit", key, err)
				}()
				<-ended
			}
		}()
	}
	begun.Wait()
	release()
	e.within("the calls", wg.Wait)
	require.EqualValues(t, 1+100*n/4, e.balance("sum"))
	require.Nil(t, e.x.Get(t, e.backend, "mine"))
	for i := range n {
		_, err := e.s.Get(e.ctx, fmt.Sprint("k", i))
		if i%4 == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, idem.ErrNotFound)
		}
	}
}

func completeEffects(t *testing.T, e *effectEnv) {
	s := e.open(idem.Options{Lease: time.Minute})
	complete := func(token idem.Token, fn func(KV) ([]byte, error)) error {
		return e.x.Complete(e.ctx, s, token, fn)
	}
	first := e.claim(idem.Request{Key: "k"})
	require.ErrorIs(t, complete(first.Token, failing(errOwn)), errOwn)
	rec := e.get("k")
	require.Equal(t, idem.InFlight, rec.State)

	e.clock.Advance(time.Minute)
	second := e.claim(idem.Request{Key: "k"})
	require.ErrorIs(t, complete(first.Token, mustNotRun(t)), idem.ErrFenced)
	require.NoError(t, complete(second.Token, add("sum", 5)))
	require.ErrorIs(t, complete(second.Token, mustNotRun(t)), idem.ErrCompleted)
	require.ErrorIs(t, complete(idem.Token{Key: "none", Fence: 1}, mustNotRun(t)), idem.ErrFenced)
	rec = e.get("k")
	require.Equal(t, "5", string(rec.Result))

	held := e.claim(idem.Request{Key: "held"})
	require.NoError(t, s.Hold(e.ctx, held.Token, []byte("?")))
	require.NoError(t, complete(held.Token, add("sum", 5)))

	failed := e.claim(idem.Request{Key: "failed"})
	require.ErrorIs(t, complete(failed.Token, failing(idem.Permanent(errOwn))), errOwn)
	require.ErrorIs(t, complete(failed.Token, mustNotRun(t)), idem.ErrFailed)
	require.EqualValues(t, 10, e.balance("sum"))
	require.Nil(t, e.x.Get(t, e.backend, "mine"))
}

func updateEffects(t *testing.T, e *effectEnv) {
	e.open(idem.Options{})
	put := func(kv KV) error { kv.Put("a", []byte("1")); return nil }
	require.NoError(t, e.x.Update(e.ctx, e.backend, put))
	require.ErrorIs(t, e.x.Update(e.ctx, e.backend, func(kv KV) error {
		kv.Put("a", []byte("2"))
		return errOwn
	}), errOwn)
	require.PanicsWithValue(t, "mine", func() {
		_ = e.x.Update(e.ctx, e.backend, func(kv KV) error {
			kv.Put("a", []byte("3"))
			panic("mine")
		})
	})
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	require.ErrorIs(t, e.x.Update(ctx, e.backend, func(KV) error {
		t.Error("the function ran")
		return nil
	}), context.Canceled)
	b := e.backend
	e.reopen()
	require.Equal(t, "1", string(e.x.Get(t, e.backend, "a")))
	require.ErrorIs(t, e.x.Update(e.ctx, b, put), idem.ErrClosed)
}
