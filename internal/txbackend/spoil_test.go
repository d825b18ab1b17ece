package txbackend

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
)

// Many functions of which every second fails: each runs twice at most, not once for
// each failure behind it.
func TestManyFailuresRunFewFunctions(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		const callers = 512
		var runs [callers]atomic.Int32
		errs := make([]error, callers)
		var fns []func()
		for i := range callers {
			err := error(nil)
			if i%2 == 1 {
				err = errDisk
			}
			fns = append(fns, func() {
				_, _, errs[i] = e.s.DoEffect(ctx, idem.Request{Key: fmt.Sprint(i)}, counted(&runs[i], "shared", err))
			})
		}
		e.together(fns...)
		total := int32(0)
		for i := range runs {
			n := runs[i].Load()
			total += n
			assert.LessOrEqual(t, n, int32(2), i)
			if i%2 == 1 {
				assert.Equal(t, errDisk, errs[i], i)
			} else {
				assert.NoError(t, errs[i], i)
			}
		}
		if !spoils {
			require.EqualValues(t, callers, total)
		}
		require.Equal(t, strconv.Itoa(callers/2), e.fake.durable(own)["shared"])
	})
}

// A function fails for good because of what another wrote in the same commit, and that
// other fails when it is run again. The failure rests on a state that never was: it is
// not believed.
func TestFailureNeverRestsOnWhatWasUndone(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		var runs, sells atomic.Int32
		var bought, sold error
		e.together(
			func() {
				_, _, bought = e.s.DoEffect(ctx, idem.Request{Key: "buys the last one"}, sameCommit(func(tx *fakeTx) ([]byte, error) {
					if runs.Add(1) > 1 {
						return nil, errDisk
					}
					tx.put("stock", "none")
					return nil, nil
				}))
			},
			func() {
				_, _, sold = e.s.DoEffect(ctx, idem.Request{Key: "buys one more"}, sameCommit(func(tx *fakeTx) ([]byte, error) {
					sells.Add(1)
					if tx.own("stock") == "none" {
						return nil, idem.Permanent(errors.New("sold out"))
					}
					return []byte("sold"), nil
				}))
			},
		)
		if !spoils { // the first one's write is never undone
			require.NoError(t, bought)
			require.True(t, idem.IsPermanent(sold))
			require.Equal(t, idem.Failed, e.state("buys one more"))
			return
		}
		require.Equal(t, errDisk, bought)
		require.Zero(t, e.state("buys the last one"))
		require.NoError(t, sold)
		require.Equal(t, idem.Completed, e.state("buys one more"))
		require.LessOrEqual(t, runs.Load(), int32(3))
		require.LessOrEqual(t, sells.Load(), int32(3))
	})
}

// A failure for good is recorded by the committer, in the same commit or, where that
// is lost, in the next: nobody comes between, and its caller is told afterwards.
func TestPermanentFailureIsRecordedAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		token := e.claim("k")
		stolen := idem.Permanent(errors.New("card is stolen"))
		var failed, between, claimed, released error
		var runs atomic.Int32
		n := e.commitsOf(func() {
			e.together(
				func() { e.claim("before") },
				func() { failed = e.s.CompleteEffect(ctx, token, counted(&runs, "x", stolen)) },
				func() { between = e.s.Complete(ctx, token, []byte("paid")) },
				func() { released = e.s.Release(ctx, token, nil) },
				func() { _, claimed = e.s.Claim(ctx, idem.Request{Key: "behind"}) },
			)
		})
		require.Equal(t, stolen, failed)
		require.Equal(t, idem.ErrFailed, between)
		require.Equal(t, idem.ErrFailed, released)
		require.NoError(t, claimed)
		r, err := e.s.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, idem.Failed, r.State)
		require.Equal(t, "card is stolen", string(r.Result))
		require.Empty(t, e.fake.durable(own))
		if spoils {
			require.Equal(t, 1+2, n, "what came before it, and it with the rest")
			require.EqualValues(t, 2, runs.Load())
		} else {
			require.Equal(t, 1+1, n)
			require.EqualValues(t, 1, runs.Load())
		}
		requireInStep(t, e.fake)
	})
}

// The commit that is to record a failure fails: its caller is not told that it was.
func TestPermanentFailureThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		token := e.claim("k")
		e.fake.on(visible, func() error { return errDisk })
		var runs atomic.Int32
		err := e.s.CompleteEffect(ctx, token, counted(&runs, "x", idem.Permanent(errors.New("stolen"))))
		require.ErrorIs(t, err, idem.ErrBroken)
		require.False(t, idem.IsPermanent(err))
	})
}

// Closing while a failure is still to be recorded waits for it.
func TestCloseWaitsForAFailureToBeRecorded(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		token := e.claim("k")
		var failed error
		running, finish := make(chan struct{}), make(chan struct{})
		e.together(
			func() {
				failed = e.s.CompleteEffect(ctx, token, sameCommit(func(*fakeTx) ([]byte, error) {
					close(running)
					<-finish
					return nil, idem.Permanent(errDisk)
				}))
			},
			func() {
				go func() {
					<-running
					e.b.closed.Store(true) // as Close does, at the worst moment
					close(finish)
				}()
			},
		)
		require.True(t, idem.IsPermanent(failed), "%v", failed)
		left := e.fake.left()
		e.b.closed.Store(false)
		require.NoError(t, e.s.Close())
		e.fake = left
		e.open()
		require.Equal(t, idem.Failed, e.state("k"))
	})
}

// hidden hides that a TB is a *testing.T: rapid would ask a bubble for its deadline.
type hidden struct{ testing.TB }

// act is what a caller's function does in one of its runs.
type act int

const (
	succeeds act = iota
	fails
	failsForGood
	panics
	failsIfOdd // for good, where the counter is odd
	acts       // and more than that: a bit for each run in which it fails, from acts on
)

// fickle reports whether what is an act of its own in each run, and fails in this one.
func (what act) fickle(run int) bool { return what >= acts && (what-acts)>>(run-1)&1 == 1 }

// Any mix of functions: none runs more than three times, and what is in the store, and
// what each was answered, is what they do one by one, each at the moment of its last
// run. So no answer rests on anything that was undone.
func TestAnyMixOfFunctions(t *testing.T) {
	t.Parallel()
	type outcome struct {
		runs  int
		saw   int // the counter, in the last run
		wrote bool
		err   error
		order int // of the last run
	}
	boom := errors.New("boom")
	run := func(t *testing.T, rt *rapid.T, savepoints bool, mix []act, plain []bool) {
		e := newEnv(t)
		defer func() { _ = e.s.Close() }()
		e.fake.savepoints = savepoints
		out := make([]outcome, len(mix))
		errs, answers := make([]error, len(mix)), make([]string, len(mix))
		order := 0
		var fns []func()
		for i, what := range mix {
			o, key := &out[i], fmt.Sprint("k", i)
			fn := sameCommit(func(tx *fakeTx) ([]byte, error) {
				order++
				o.runs, o.order = o.runs+1, order
				o.saw, _ = strconv.Atoi(tx.own("counter"))
				o.wrote, o.err = false, nil
				tx.put("counter", strconv.Itoa(o.saw+1))
				switch {
				case what == fails, what.fickle(o.runs):
					o.err = errDisk
				case what == failsForGood, what == failsIfOdd && o.saw%2 == 1:
					o.err = idem.Permanent(errDisk)
				case what == panics:
					o.err = boom
					panic(boom)
				}
				o.wrote = o.err == nil
				return []byte(strconv.Itoa(o.saw + 1)), o.err
			})
			fns = append(fns, func() {
				if plain[i] {
					errs[i] = e.b.Update(ctx, fn)
					return
				}
				var result []byte
				result, _, errs[i] = e.s.DoEffect(ctx, idem.Request{Key: key}, fn)
				answers[i] = string(result)
			})
			if i%3 == 2 {
				fns = append(fns, func() { _, _ = e.s.Claim(ctx, idem.Request{Key: "plain " + key}) })
			}
		}
		e.together(fns...)

		counter := 0
		byOrder := make(map[int]int)
		for i := range out {
			byOrder[out[i].order] = i
		}
		for at := 1; at <= order; at++ {
			i, ok := byOrder[at]
			if !ok {
				continue // a run that was not the last
			}
			o := out[i]
			if o.runs > 3 {
				rt.Fatalf("function %d of %v ran %d times", i, mix, o.runs)
			}
			if o.saw != counter {
				rt.Fatalf("function %d of %v ended on a counter of %d, which was %d", i, mix, o.saw, counter)
			}
			if o.wrote {
				counter++
			}
			switch {
			case errors.Is(o.err, boom):
				if errs[i] == nil {
					rt.Fatalf("function %d of %v panicked and its caller does not know", i, mix)
				}
			case !errors.Is(errs[i], o.err):
				rt.Fatalf("function %d of %v: answered %v, ended with %v", i, mix, errs[i], o.err)
			}
			if plain[i] {
				continue
			}
			want := idem.State(0)
			switch {
			case o.err == nil:
				want = idem.Completed
				if answers[i] != strconv.Itoa(o.saw+1) {
					rt.Fatalf("function %d of %v: answered %q", i, mix, answers[i])
				}
			case idem.IsPermanent(o.err):
				want = idem.Failed
			}
			if got := e.state(fmt.Sprint("k", i)); got != want {
				rt.Fatalf("function %d of %v: the record is %v, not %v", i, mix, got, want)
			}
		}
		if got, _ := strconv.Atoi(e.fake.durable(own)["counter"]); got != counter {
			rt.Fatalf("%v: the counter is %d, not %d", mix, got, counter)
		}
		if p := e.b.pass.plan; p.again || p.alone != 0 {
			rt.Fatalf("%v: a plan is left: %+v", mix, p)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(hidden{t}, func(rt *rapid.T) {
			mix := rapid.SliceOfN(rapid.Map(rapid.IntRange(0, int(acts)+7), func(i int) act { return act(i) }), 1, 12).Draw(rt, "mix")
			plain := rapid.SliceOfN(rapid.Bool(), len(mix), len(mix)).Draw(rt, "plain")
			run(t, rt, rapid.Bool().Draw(rt, "savepoints"), mix, plain)
		})
	})
}
