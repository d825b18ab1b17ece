package txbackend

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/callback"
)

// counted is a same-commit function that adds one to a balance of the caller's own
// and counts how often it is run.
func counted(runs *atomic.Int32, account string, err error) sameCommit {
	return func(tx *fakeTx) ([]byte, error) {
		runs.Add(1)
		n, _ := strconv.Atoi(tx.own(account))
		tx.put(account, strconv.Itoa(n+1))
		return []byte(fmt.Sprint("balance ", n+1)), err
	}
}

// Functions that share a commit. Those that fail are alone in it: only their own
// callers hear of it, only their own writes are missing, and no update is lost.
func TestEffectsShareACommit(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		errFunds := errors.New("no funds")
		token := e.claim("token")
		var runs [7]atomic.Int32
		var results [7][]byte
		var errs [7]error
		do := func(i int, key string, err error) func() {
			return func() {
				results[i], _, errs[i] = e.s.DoEffect(ctx, idem.Request{Key: key}, counted(&runs[i], "shared", err))
			}
		}
		before := e.stats()
		n := e.commitsOf(func() {
			e.together(
				do(0, "a", nil),
				do(1, "b", errFunds),
				func() { errs[2] = e.b.Update(ctx, counted(&runs[2], "shared", nil)) },
				func() { errs[3] = e.b.Update(ctx, counted(&runs[3], "shared", errFunds)) },
				func() { errs[4] = e.s.CompleteEffect(ctx, token, counted(&runs[4], "shared", nil)) },
				do(5, "c", nil),
				func() { _, errs[6] = e.s.Claim(ctx, idem.Request{Key: "plain"}) },
			)
		})
		if spoils {
			// What comes before each failure is a commit of its own, and so is the rest.
			require.Equal(t, 1+3, n)
		} else {
			require.Equal(t, 1+1, n, "one to gather them, and one for all")
		}
		for i, want := range []error{nil, errFunds, nil, errFunds, nil, nil, nil} {
			require.Equal(t, want, errs[i], i)
		}
		require.Equal(t, "4", e.fake.durable(own)["shared"], "an update was lost, or made twice")
		require.Equal(t, "balance 1", string(results[0]))
		require.Equal(t, "balance 4", string(results[5]))
		for key, want := range map[string]idem.State{
			"a": idem.Completed, "b": 0, "token": idem.Completed, "c": idem.Completed, "plain": idem.InFlight,
		} {
			require.Equal(t, want, e.state(key), key)
		}
		r, err := e.s.Get(ctx, "c")
		require.NoError(t, err)
		require.Equal(t, "balance 4", string(r.Result), "what was answered is not what is stored")

		after := e.stats()
		require.EqualValues(t, 4, after.CommittedOps-before.CommittedOps, "operations are counted once, however often they were run")

		// Each of the two failures spoils a commit: what comes before it is run again, and
		// the one that failed is run once more, alone.
		want := []int32{1, 1, 1, 1, 1, 1}
		if spoils {
			want = []int32{2, 2, 2, 2, 1, 1}
		}
		for i := range want {
			require.Equal(t, want[i], runs[i].Load(), "runs of %d", i)
		}
	})
}

// Where what comes before a function is a batch of its own, a crash may keep that and
// lose the rest: what it keeps is in step, and its fences are never granted again.
func TestBatchesOfACommit(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.fake.savepoints = true
		token := e.claim("token")
		var left []*fake
		var runs atomic.Int32
		do := func(key string) func() {
			return func() {
				_, _, err := e.s.DoEffect(ctx, idem.Request{Key: key}, counted(&runs, "x", nil))
				assert.NoError(t, err)
			}
		}
		e.together(
			func() { e.claim("a") },
			do("b"),
			func() { assert.NoError(t, e.s.CompleteEffect(ctx, token, counted(&runs, "x", nil))) },
			do("c"),
			func() { e.claim("d") },
			func() { assert.NoError(t, e.b.Update(ctx, counted(&runs, "x", nil))) },
			func() { e.fake.batch = func(f *fake) { left = append(left, f) } },
		)
		require.Len(t, left, 4)
		for i, f := range left {
			requireInStep(t, f)
			require.Len(t, f.raw(Records), []int{2, 3, 3, 5}[i])
		}
	})
}

// All fail: nothing is left to commit.
func TestAllEffectsFail(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		errFunds := errors.New("no funds")
		var runs atomic.Int32
		n := e.commitsOf(func() {
			_, _, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, counted(&runs, "x", errFunds))
			require.Equal(t, errFunds, err)
			require.Equal(t, errFunds, e.b.Update(ctx, counted(&runs, "x", errFunds)))
		})
		require.Zero(t, n)
		require.EqualValues(t, 2, runs.Load())
		require.Empty(t, e.fake.raw(own))
		require.Zero(t, e.state("k"))
	})
}

// A function that changes its mind when it is run again: what it did the first time
// is gone, and nothing is left to commit.
func TestEffectChangesItsMind(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var runs atomic.Int32
		fickle := sameCommit(func(tx *fakeTx) ([]byte, error) {
			tx.put("x", "y")
			if runs.Add(1) > 1 {
				return nil, errDisk
			}
			return nil, nil
		})
		var first error
		n := e.commitsOf(func() {
			e.together(
				func() { _, _, first = e.s.DoEffect(ctx, idem.Request{Key: "k"}, fickle) },
				func() {
					err := e.b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) { return nil, errDisk }))
					assert.Equal(t, errDisk, err)
				},
			)
		})
		if spoils {
			require.Equal(t, errDisk, first)
			require.Equal(t, 1, n, "the one to gather them")
			require.Zero(t, e.state("k"))
			require.Empty(t, e.fake.raw(own))
		} else {
			require.NoError(t, first)
			require.Equal(t, 2, n)
			require.Equal(t, idem.Completed, e.state("k"))
		}
		require.Zero(t, e.b.gate.n.Load())
	})
}

// A function that fails leaves the record as it was; marked Permanent, its failure is
// recorded.
func TestEffectFails(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var runs atomic.Int32
		token := e.claim("k")
		stored := e.fake.raw(Records)["k"]
		require.Equal(t, errDisk, e.s.CompleteEffect(ctx, token, counted(&runs, "x", errDisk)))
		require.Equal(t, stored, e.fake.raw(Records)["k"])
		err := e.s.CompleteEffect(ctx, token, counted(&runs, "x", idem.Permanent(errDisk)))
		require.ErrorIs(t, err, errDisk)
		require.Equal(t, idem.Failed, e.state("k"))
		_, _, err = e.s.DoEffect(ctx, idem.Request{Key: "new"}, counted(&runs, "x", idem.Permanent(errDisk)))
		require.ErrorIs(t, err, errDisk)
		require.Equal(t, idem.Failed, e.state("new"))
		require.Empty(t, e.fake.raw(own))
	})
}

// A function that panics or calls Goexit among others: it comes back to its own
// caller as what Rethrow makes that of, and to nobody else.
func TestEffectPanics(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var runs atomic.Int32
		var panicked, exited, fine error
		e.together(
			func() {
				_, _, panicked = e.s.DoEffect(ctx, idem.Request{Key: "a"}, sameCommit(func(tx *fakeTx) ([]byte, error) {
					tx.put("lost", "1")
					panic("boom")
				}))
			},
			func() {
				exited = e.b.Update(ctx, sameCommit(func(tx *fakeTx) ([]byte, error) {
					tx.put("lost", "1")
					runtime.Goexit()
					return nil, nil
				}))
			},
			func() { _, _, fine = e.s.DoEffect(ctx, idem.Request{Key: "c"}, counted(&runs, "x", nil)) },
		)
		require.NoError(t, fine)
		require.Equal(t, map[string]string{"x": "1"}, e.fake.durable(own))
		require.Zero(t, e.state("a"))
		require.PanicsWithValue(t, "boom", func() { callback.Rethrow(panicked) })
		require.ErrorContains(t, exited, "Goexit")
		e.claim("a")
	})
}

// A function runs only for a claim or token that is admitted, also where that is
// found out only in the commit.
func TestEffectOfTheRefused(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var runs, never atomic.Int32
		token := e.claim("token")
		results := make([]string, 3)
		errs := make([]error, 3)
		do := func(i int, runs *atomic.Int32) func() {
			return func() {
				result, replayed, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, counted(runs, "x", nil))
				results[i], errs[i] = fmt.Sprint(string(result), " ", replayed), err
			}
		}
		e.together(
			do(0, &runs),
			do(1, &never), // sees nothing of the first when it looks, and loses to it in the commit
			func() { assert.NoError(t, e.s.Complete(ctx, token, nil)) },
			func() { errs[2] = e.s.CompleteEffect(ctx, token, counted(&never, "x", nil)) },
		)
		require.NoError(t, errs[0])
		require.NoError(t, errs[1])
		require.Equal(t, []string{"balance 1 false", "balance 1 true"}, results[:2])
		require.Equal(t, idem.ErrCompleted, errs[2])
		require.EqualValues(t, 1, runs.Load())
		require.Zero(t, never.Load())
		require.Equal(t, "1", e.fake.durable(own)["x"])
		require.Equal(t, idem.ErrFenced, e.s.CompleteEffect(ctx, idem.Token{Key: "none", Fence: 3}, counted(&never, "x", nil)))
		require.Zero(t, never.Load())
	})
}

// A commit with functions in it that fails takes all of them along.
func TestEffectsOfAFailedCommit(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var runs atomic.Int32
		e.fake.on(visible, func() error { return errDisk })
		result, _, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, counted(&runs, "x", nil))
		require.ErrorIs(t, err, idem.ErrBroken)
		require.Nil(t, result)
		require.ErrorIs(t, e.b.Update(ctx, counted(&runs, "x", nil)), idem.ErrBroken)
		require.EqualValues(t, 1, runs.Load())
	})
}
