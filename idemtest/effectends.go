package idemtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// effectEndCases are about how same-commit functions end and what is then recorded.
var effectEndCases = []effectCase{
	{"a permanent failure comes before anything else of its key", permanentAtOnce},
	{"a failure counts where attempts are limited", failureCounted},
	{"a failure of Complete counts nothing", completeFailureUncounted},
	{"a function runs three times at most", boundedRuns},
	{"Do is too late like a claim", effectTooLate},
	{"a function's context", effectCtx},
}

// queued runs f(0) … f(n-1) at once and returns when all have returned. If possible,
// they queue behind a stalled commit.
func (e *effectEnv) queued(n int, f func(i int)) {
	e.t.Helper()
	release := func() {}
	var first *pending[error]
	if e.h.Stall != nil {
		var reached <-chan struct{}
		reached, release = e.h.Stall(e.t, e.backend)
		e.holds++
		key := fmt.Sprint("held up ", e.holds)
		first = async(func() error { _, _, err := e.do(key, add("held up", 1)); return err })
		e.await("the first commit", reached)
	}
	all := async(func() struct{} { inParallel(n, f); return struct{}{} })
	settle()
	release()
	all.wait(e.env, "the calls")
	if first != nil {
		require.NoError(e.t, first.wait(e.env, "the first call"))
	}
}

// permanentAtOnce: of several callers with one key, one runs and all others learn how
// it ended.
func permanentAtOnce(t *testing.T, e *effectEnv) {
	const callers = 24
	e.open(idem.Options{})
	for round := range 4 {
		key := fmt.Sprint("k", round)
		var ran [callers]atomic.Int64
		var errs [callers]error
		var replayed [callers]bool
		e.queued(callers, func(i int) {
			if i%4 == 3 { // other callers, which share the commit
				_, _, errs[i] = e.do(fmt.Sprint(key, " other ", i), add("sum", 1))
				return
			}
			_, replayed[i], errs[i] = e.do(key, func(kv KV) ([]byte, error) {
				ran[i].Add(1)
				kv.Put("mine", []byte("must vanish"))
				return nil, idem.Permanent(errOwn)
			})
		})
		owners := 0
		for i, err := range errs {
			switch {
			case i%4 == 3:
				require.NoError(t, err)
			case ran[i].Load() > 0:
				owners++
				require.ErrorIs(t, err, errOwn)
				require.False(t, replayed[i])
			default:
				require.ErrorIs(t, err, idem.ErrFailed)
				require.True(t, replayed[i])
			}
		}
		require.Equal(t, 1, owners, "callers whose function ran")
		rec := e.get(key)
		require.Equal(t, idem.Failed, rec.State)
		require.Equal(t, errOwn.Error(), string(rec.Result))
		require.Equal(t, 1, rec.Attempt)
	}
	require.EqualValues(t, 4*callers/4, e.balance("sum"))
	require.Nil(t, e.x.Get(t, e.backend, "mine"))
	e.reopen()
	_, _, err := e.do("k0", mustNotRun(t))
	require.ErrorIs(t, err, idem.ErrFailed)
}

func failureCounted(t *testing.T, e *effectEnv) {
	s := e.open(idem.Options{Lease: time.Minute})
	limited := func(key string, fn func(KV) ([]byte, error)) error {
		_, replayed, err := e.x.Do(e.ctx, s, idem.Request{Key: key, MaxAttempts: 2, Fingerprint: printA}, fn)
		require.False(t, replayed)
		return err
	}
	fences := uint64(0)
	released := func(key string, attempt int) idem.Record {
		t.Helper()
		r := e.get(key)
		require.Equal(t, idem.Released, r.State)
		require.Equal(t, attempt, r.Attempt)
		require.Equal(t, printA, r.Fingerprint)
		require.Greater(t, r.Fence, fences)
		fences = r.Fence
		return r
	}
	for i := range 2 {
		require.ErrorIs(t, limited("k", failing(fmt.Errorf("try %d: %w", i+1, errOwn))), errOwn)
		require.Equal(t, fmt.Sprintf("try %d: %v", i+1, errOwn), string(released("k", i+1).Result), "the reason")
	}
	require.ErrorIs(t, limited("k", mustNotRun(t)), idem.ErrExhausted)
	require.Nil(t, e.x.Get(t, e.backend, "mine"))

	// However it fails, nothing is recorded without a limit.
	require.PanicsWithValue(t, "mine", func() {
		_ = limited("panics", func(KV) ([]byte, error) { panic("mine") })
	})
	released("panics", 1)
	ended := async(func() struct{} {
		_ = limited("exits", func(KV) ([]byte, error) { runtime.Goexit(); return nil, nil })
		return struct{}{}
	})
	ended.wait(e.env, "a function that calls Goexit")
	released("exits", 1)
	_, _, err := e.do("unlimited", failing(errOwn))
	require.ErrorIs(t, err, errOwn)
	e.absent("unlimited")

	// A takeover that fails counts as an attempt too, and the checkpoint is kept.
	c := e.claim(idem.Request{Key: "lapsed", Fingerprint: printA})
	require.NoError(t, s.Checkpoint(e.ctx, c.Token, []byte("half")))
	e.clock.Advance(time.Minute)
	require.ErrorIs(t, limited("lapsed", failing(errOwn)), errOwn)
	require.Equal(t, "half", string(released("lapsed", 2).Checkpoint))
	require.ErrorIs(t, s.Complete(e.ctx, c.Token, nil), idem.ErrFenced)

	// The last attempt left may succeed.
	require.ErrorIs(t, limited("done", failing(errOwn)), errOwn)
	require.NoError(t, limited("done", add("sum", 1)))
	rec := e.get("done")
	require.Equal(t, idem.Completed, rec.State)
	require.Equal(t, 2, rec.Attempt)
	require.EqualValues(t, 1, e.balance("sum"))
	e.reopen()
	s = e.s
	require.ErrorIs(t, limited("k", mustNotRun(t)), idem.ErrExhausted)
}

func completeFailureUncounted(t *testing.T, e *effectEnv) {
	s := e.open(idem.Options{MaxAttempts: 1})
	c := e.claim(idem.Request{Key: "k", MaxAttempts: 1})
	for range 3 {
		require.ErrorIs(t, e.x.Complete(e.ctx, s, c.Token, failing(errOwn)), errOwn)
		rec := e.get("k")
		e.same(c.Record, rec)
	}
	require.NoError(t, e.x.Complete(e.ctx, s, c.Token, add("sum", 1)))
	require.Nil(t, e.x.Get(t, e.backend, "mine"))
}

// boundedRuns: whatever fails around a function, it runs again at most twice.
func boundedRuns(t *testing.T, e *effectEnv) {
	const n = 36
	e.open(idem.Options{})
	for mix, fails := range [](func(i int) bool){
		func(i int) bool { return i == n/2 },
		func(i int) bool { return i%2 == 0 },
		func(i int) bool { return i%3 > 0 },
		func(i int) bool { return i < n-1 },
		func(int) bool { return true },
	} {
		var runs [n]atomic.Int64
		e.queued(n, func(i int) {
			defer func() {
				if v := recover(); v != nil && v != i {
					t.Errorf("recovered %v", v)
				}
			}()
			_, _, err := e.do(fmt.Sprintf("%d %d", mix, i), func(kv KV) ([]byte, error) {
				runs[i].Add(1)
				result, _ := add(fmt.Sprint("sum ", mix), 1)(kv)
				switch {
				case !fails(i):
					return result, nil
				case i%5 == 0:
					panic(i)
				case i%5 == 1:
					return nil, idem.Permanent(errOwn)
				}
				return nil, errOwn
			})
			if fails(i) != errors.Is(err, errOwn) {
				t.Errorf("mix %d, %d: %v", mix, i, err)
			}
		})
		done := 0
		for i := range runs {
			require.LessOrEqual(t, runs[i].Load(), int64(3), "mix %d, function %d", mix, i)
			require.Positive(t, runs[i].Load())
			if !fails(i) {
				done++
			}
		}
		require.EqualValues(t, done, e.balance(fmt.Sprint("sum ", mix)))
	}
}

func effectTooLate(t *testing.T, e *effectEnv) {
	s := e.open(idem.Options{Retention: time.Hour})
	e.clock.Advance(2 * time.Hour)
	_, replayed, err := e.x.Do(e.ctx, s, idem.Request{Key: "k", IssuedAt: e.wall().Add(-time.Hour)}, mustNotRun(t))
	require.ErrorIs(t, err, idem.ErrTooLate)
	require.False(t, replayed)
	_, _, err = e.x.Do(e.ctx, s, idem.Request{Key: "k", IssuedAt: e.wall()}, add("sum", 1))
	require.NoError(t, err)
	_, replayed, err = e.x.Do(e.ctx, s, idem.Request{Key: "k", IssuedAt: e.wall().Add(-time.Hour)}, mustNotRun(t))
	require.NoError(t, err)
	require.True(t, replayed, "there is a record")
}

// effectCtx: the function's context has the caller's values. The store refuses it at
// once, because the call would wait for the commit that waits for the function.
func effectCtx(t *testing.T, e *effectEnv) {
	if e.x.DoCtx == nil {
		t.Skip("Effects.DoCtx is nil: the functions are given no context")
	}
	type mark struct{}
	s := e.open(idem.Options{})
	open := e.claim(idem.Request{Key: "open"})
	outer := e.ctx
	var errs map[string]error
	ran := async(func() error {
		_, _, err := e.x.DoCtx(context.WithValue(outer, mark{}, "theirs"), s, idem.Request{Key: "k"}, func(ctx context.Context, kv KV) ([]byte, error) {
			if ctx.Value(mark{}) != "theirs" {
				t.Error("the caller's values are lost")
			}
			e.env.ctx = ctx // nobody else uses it now
			errs = e.everything(open.Token)
			e.env.ctx = outer
			errs["Health"] = s.Health(ctx)
			errs["Shutdown"] = s.Shutdown(ctx)
			_, _, errs["Do"] = e.x.DoCtx(ctx, s, idem.Request{Key: "inner"}, func(context.Context, KV) ([]byte, error) { return nil, nil })
			_, _, errs["idem.Do"] = idem.Do(ctx, s, idem.Request{Key: "inner"}, func(context.Context, idem.Claim) ([]byte, error) { return nil, nil })
			return add("sum", 1)(kv)
		})
		return err
	})
	require.NoError(t, ran.wait(e.env, "a function that calls its store"))
	require.Greater(t, len(errs), 15)
	for name, err := range errs {
		require.ErrorIs(t, err, idem.ErrInvalid, "%s inside of a same-commit function", name)
	}
	require.EqualValues(t, 1, e.balance("sum"))
	rec := e.get("open")
	e.same(open.Record, rec)
	e.absent("inner")
}
