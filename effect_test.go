package idem_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
)

// Same-commit functions on the stub, which runs them as Backend asks. The engines
// test what they do to their own data.

var neverRun storetest.Effect = func() ([]byte, error) { panic("the effect was run") }

func saying(result string) storetest.Effect {
	return func() ([]byte, error) { return []byte(result), nil }
}

func TestDoEffect(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	applies := b.Applies.Load()
	result, replayed, err := s.DoEffect(t.Context(), k, saying("charged"))
	require.NoError(t, err)
	assert.False(t, replayed)
	assert.Equal(t, "charged", string(result))
	assert.Equal(t, applies+1, b.Applies.Load(), "claimed and completed in one commit")
	r := get(t, s, "k")
	assert.Equal(t, idem.Completed, r.State)
	assert.Equal(t, 1, r.Attempt)

	for range 2 {
		result, replayed, err = s.DoEffect(t.Context(), k, neverRun)
		require.NoError(t, err)
		assert.True(t, replayed)
		assert.Equal(t, "charged", string(result))
	}
	require.NoError(t, s.Complete(t.Context(), r.Token(), []byte("charged")), "its token is as any other")
}

func TestDoEffectThatFails(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	for _, boom := range []error{
		errors.New("no funds"),
		fmt.Errorf("downstream: %w", idem.ErrCompleted), // its own, and no replay
		fmt.Errorf("downstream: %w", idem.ErrFailed),
		fmt.Errorf("downstream: %w", idem.ErrInFlight),
	} {
		_, replayed, err := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) { return []byte("x"), boom }))
		require.Equal(t, boom, err)
		assert.False(t, replayed)
		_, err = s.Get(t.Context(), "k")
		require.Equal(t, idem.ErrNotFound, err, "the record is as it was: none")
	}

	c := mustClaim(t, s, k)
	require.NoError(t, s.Release(t.Context(), c.Token, nil))
	before := *b.Entries["k"]
	_, _, err := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) { return nil, storetest.ErrDisk }))
	require.ErrorIs(t, err, storetest.ErrDisk)
	assert.Equal(t, before, *b.Entries["k"], "the record is as it was: released")
	_, _, err = s.DoEffect(t.Context(), k, saying("r"))
	require.NoError(t, err)
	assert.Equal(t, 2, get(t, s, "k").Attempt)
}

func TestDoEffectPermanentError(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	boom := errors.New("card stolen")
	stolen := storetest.Effect(func() ([]byte, error) { return nil, idem.Permanent(boom) })
	ctx, cancel := context.WithCancel(t.Context())
	_, replayed, err := s.DoEffect(ctx, k, storetest.Effect(func() ([]byte, error) {
		cancel() // it is recorded all the same
		return stolen()
	}))
	require.ErrorIs(t, err, boom)
	assert.False(t, replayed)
	_, replayed, err = s.DoEffect(t.Context(), k, neverRun)
	require.ErrorIs(t, err, idem.ErrFailed)
	assert.True(t, replayed)
	assert.Contains(t, err.Error(), "card stolen")

	c := mustClaim(t, s, idem.Request{Key: "claimed"})
	require.ErrorIs(t, s.CompleteEffect(t.Context(), c.Token, stolen), boom)
	assert.Equal(t, idem.Failed, get(t, s, "claimed").State)
}

// The commit that was to record a function's failure failed: nobody knows what is there.
func TestEffectFailureInAFailedCommit(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(s *idem.Store, f storetest.Effect) error{
		"DoEffect": func(s *idem.Store, f storetest.Effect) error {
			_, _, err := s.DoEffect(t.Context(), k, f)
			return err
		},
		"CompleteEffect": func(s *idem.Store, f storetest.Effect) error {
			return s.CompleteEffect(t.Context(), mustClaim(t, s, k).Token, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := storetest.NewStub()
			s := open(t, b, idem.Options{})
			err := call(s, func() ([]byte, error) {
				b.Breaking.Store(true)
				return nil, idem.Permanent(errors.New("card stolen"))
			})
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorIs(t, err, storetest.ErrDisk)
		})
	}
}

// Where attempts are limited, a same-commit function that fails has used one up. Without
// a limit nothing is left of it.
func TestEffectFailureCountsAnAttempt(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	told := new(recorder)
	s := open(t, b, idem.Options{Observer: told.observe, CacheBytes: -1})
	boom := errors.New("no seats")
	runs := 0
	failing := storetest.Effect(func() ([]byte, error) { runs++; return nil, boom })
	limited := idem.Request{Key: "k", MaxAttempts: 2}
	for n := 1; n <= 2; n++ {
		commits := b.Applies.Load()
		_, replayed, err := s.DoEffect(t.Context(), limited, failing)
		require.Equal(t, boom, err)
		assert.False(t, replayed)
		assert.Equal(t, int64(1), b.Applies.Load()-commits, "in the same commit")
		r := get(t, s, "k")
		assert.Equal(t, idem.Released, r.State)
		assert.Equal(t, n, r.Attempt)
		assert.Equal(t, "no seats", string(r.Result))
		kinds := []idem.EventKind{}
		for _, e := range told.take() {
			kinds = append(kinds, e.Kind)
			assert.True(t, e.Kind == idem.CommitDone || e.Attempt == n)
		}
		assert.Equal(t, []idem.EventKind{idem.CommitDone, idem.ClaimGranted, idem.OperationReleased}, kinds)
	}
	_, _, err := s.DoEffect(t.Context(), limited, failing)
	require.Equal(t, idem.ErrExhausted, err)
	assert.Equal(t, 2, runs)

	_, _, err = s.DoEffect(t.Context(), idem.Request{Key: "unlimited"}, failing)
	require.Equal(t, boom, err)
	_, err = s.Get(t.Context(), "unlimited")
	require.Equal(t, idem.ErrNotFound, err)
}

// A same-commit function's error is its caller's alone, also where it is one that the
// store could have answered itself: it is not taken for that.
func TestEffectErrorsAreNotTheStores(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		idem.ErrFull, idem.ErrTooLarge, idem.ErrFenced, idem.ErrCompleted, idem.ErrInFlight, idem.ErrFailed, idem.ErrClosed,
	} {
		t.Run(err.Error(), func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			told := new(recorder)
			s := open(t, storetest.NewRich(), idem.Options{Clock: clock, SweepInterval: -1, Observer: told.observe, MaxAttempts: 9})
			fillUp(t, s, clock, 3) // a claim that is refused for room would sweep these, and run again
			claim := mustClaim(t, s, idem.Request{Key: "claimed"})
			told.take()
			runs := 0
			theirs := fmt.Errorf("of the other store: %w", err)
			_, replayed, got := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) { runs++; return nil, theirs }))
			require.Equal(t, theirs, got)
			assert.False(t, replayed)
			require.Equal(t, err, s.CompleteEffect(t.Context(), claim.Token, storetest.Effect(func() ([]byte, error) { runs++; return nil, err })))
			assert.Equal(t, 2, runs)
			for _, e := range told.take() {
				assert.Contains(t, []idem.EventKind{idem.CacheMiss, idem.CommitDone, idem.ClaimGranted, idem.OperationReleased}, e.Kind)
			}
			assert.Equal(t, 1, get(t, s, "k").Attempt)
			assert.Equal(t, idem.InFlight, get(t, s, "claimed").State)
		})
	}
}

// textless is an error whose text panics, as that of a nil pointer does.
type textless struct{ text string }

func (e *textless) Error() string { return e.text }

// The text of an error is asked for in the commit: one that panics breaks nothing.
func TestErrorsWithoutText(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewStub(), idem.Options{})
	var none *textless
	_, _, err := s.DoEffect(t.Context(), k, storetest.Effect(func() ([]byte, error) { return nil, idem.Permanent(none) }))
	require.ErrorIs(t, err, none)
	r := get(t, s, "k")
	assert.Equal(t, idem.Failed, r.State)
	assert.Contains(t, string(r.Result), "panicked")

	_, _, err = idem.Do(t.Context(), s, idem.Request{Key: "do"}, func(context.Context, idem.Claim) (int, error) { return 0, none })
	require.ErrorIs(t, err, none)
	assert.Equal(t, idem.Released, get(t, s, "do").State)
}

func TestDoEffectResultOverMaxResult(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewStub(), idem.Options{MaxResult: 4})
	_, replayed, err := s.DoEffect(t.Context(), k, saying("too long"))
	require.ErrorIs(t, err, idem.ErrTooLarge, "effect and completion are recorded")
	assert.False(t, replayed)
	assert.True(t, get(t, s, "k").ResultDropped)
	_, replayed, err = s.DoEffect(t.Context(), k, neverRun)
	require.ErrorIs(t, err, idem.ErrTooLarge)
	assert.True(t, replayed)
}

func TestDoEffectRefused(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{MaxAttempts: 1})
	ctx := t.Context()
	_, _, err := s.DoEffect(ctx, idem.Request{}, neverRun)
	require.ErrorIs(t, err, idem.ErrInvalid)

	mustClaim(t, s, idem.Request{Key: "other", Fingerprint: idem.FingerprintOf(nil)})
	_, _, err = s.DoEffect(ctx, idem.Request{Key: "other", Fingerprint: idem.FingerprintOf()}, neverRun)
	require.Equal(t, idem.ErrMismatch, err)

	c := mustClaim(t, s, k)
	require.NoError(t, s.Hold(ctx, c.Token, nil))
	_, _, err = s.DoEffect(ctx, k, neverRun)
	require.Equal(t, idem.ErrHeld, err)
	require.NoError(t, s.Release(ctx, c.Token, nil))
	_, _, err = s.DoEffect(ctx, k, neverRun)
	require.Equal(t, idem.ErrExhausted, err)

	b.Damage("bad")
	_, _, err = s.DoEffect(ctx, idem.Request{Key: "bad"}, neverRun)
	require.ErrorIs(t, err, idem.ErrCorrupt)

	full := fmt.Errorf("%w: no room", idem.ErrFull)
	b.Refuse = func(string) error { return full }
	_, _, err = s.DoEffect(ctx, idem.Request{Key: "new"}, neverRun)
	require.Equal(t, full, err)
}

// The record changed between the look and the commit.
func TestDoEffectRefusedInTheCommit(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	b.OnApply = func(ctx context.Context, _ []engine.Op) error {
		b.OnApply = nil
		c := mustClaim(t, s, k)
		return s.Complete(ctx, c.Token, []byte("theirs"))
	}
	result, replayed, err := s.DoEffect(t.Context(), k, neverRun)
	require.NoError(t, err)
	assert.True(t, replayed)
	assert.Equal(t, "theirs", string(result))
}

func TestDoEffectWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, storetest.NewStub(), idem.Options{Lease: time.Minute})
		c := mustClaim(t, s, k)
		var runs atomic.Int64
		run := storetest.Effect(func() ([]byte, error) { runs.Add(1); return []byte("ours"), nil })
		type answer struct {
			result   string
			replayed bool
			err      error
		}
		answers := make(chan answer, 3)
		for range 3 {
			go func() {
				result, replayed, err := s.DoEffect(t.Context(), k, run)
				answers <- answer{string(result), replayed, err}
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := s.DoEffect(ctx, k, neverRun)
		require.Equal(t, context.DeadlineExceeded, err, "its own ctx")
		require.Empty(t, answers)
		require.NoError(t, s.Release(t.Context(), c.Token, nil))
		fresh := 0
		for range 3 {
			a := <-answers
			require.NoError(t, a.err)
			assert.Equal(t, "ours", a.result)
			if !a.replayed {
				fresh++
			}
		}
		assert.Equal(t, 1, fresh)
		assert.Equal(t, int64(1), runs.Load())

		c = mustClaim(t, s, idem.Request{Key: "other"})
		go func() {
			result, replayed, err := s.DoEffect(t.Context(), idem.Request{Key: "other"}, neverRun)
			answers <- answer{string(result), replayed, err}
		}()
		synctest.Wait()
		require.NoError(t, s.Complete(t.Context(), c.Token, []byte("theirs")))
		assert.Equal(t, answer{"theirs", true, nil}, <-answers)
	})
}

func TestCompleteEffect(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{MaxResult: 10})
	ctx := t.Context()
	require.ErrorIs(t, s.CompleteEffect(ctx, idem.Token{Key: "k"}, neverRun), idem.ErrInvalid)
	require.Equal(t, idem.ErrFenced, s.CompleteEffect(ctx, idem.Token{Key: "k", Fence: 1}, neverRun))

	c := mustClaim(t, s, k)
	require.Equal(t, storetest.ErrDisk, s.CompleteEffect(ctx, c.Token, storetest.Effect(func() ([]byte, error) { return nil, storetest.ErrDisk })))
	assert.Equal(t, idem.InFlight, get(t, s, "k").State, "the record is as it was")
	require.NoError(t, s.CompleteEffect(ctx, c.Token, saying("r")))
	assert.Equal(t, "r", string(get(t, s, "k").Result))
	require.Equal(t, idem.ErrCompleted, s.CompleteEffect(ctx, c.Token, neverRun), "the first stays")

	c = mustClaim(t, s, idem.Request{Key: "held"})
	require.NoError(t, s.Hold(ctx, c.Token, nil))
	require.ErrorIs(t, s.CompleteEffect(ctx, c.Token, saying("longer than ten")), idem.ErrTooLarge)
	assert.Equal(t, idem.Completed, get(t, s, "held").State, "settled by its token")

	c = mustClaim(t, s, idem.Request{Key: "released"})
	require.NoError(t, s.Release(ctx, c.Token, nil))
	require.Equal(t, idem.ErrFenced, s.CompleteEffect(ctx, c.Token, neverRun))

	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.Equal(t, context.Canceled, s.CompleteEffect(ended, c.Token, neverRun))
}

// An engine that leaves the effect alone must not look as if it had run it.
func TestEffectOnAnEngineWithoutEffects(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	b.Deaf = true
	s := open(t, b, idem.Options{})
	_, _, err := s.DoEffect(t.Context(), k, neverRun)
	require.ErrorIs(t, err, idem.ErrInvalid)
	_, err = s.Get(t.Context(), "k")
	require.Equal(t, idem.ErrNotFound, err)

	c := mustClaim(t, s, k)
	require.ErrorIs(t, s.CompleteEffect(t.Context(), c.Token, neverRun), idem.ErrInvalid)
	assert.Equal(t, idem.InFlight, get(t, s, "k").State)
}
