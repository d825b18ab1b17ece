package idem_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestStoreBackend(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	assert.Same(t, b, engine.Of(open(t, b, idem.Options{})))
}

// What is out of range is refused before the engine hears of it.
func TestStoreInvalidArguments(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	long := strings.Repeat("k", idem.MaxKey+1)
	for _, key := range []string{"", long} {
		token := idem.Token{Key: key, Fence: 1}
		_, claim := s.Claim(ctx, idem.Request{Key: key})
		_, get := s.Get(ctx, key)
		_, wait := s.Wait(ctx, key)
		for i, err := range []error{
			claim, get, wait, s.Forget(ctx, idem.Token{Key: key}), s.Complete(ctx, token, nil), s.Fail(ctx, token, nil), s.Release(ctx, token, nil),
			s.Hold(ctx, token, nil), s.Extend(ctx, token, 0), s.Checkpoint(ctx, token, nil),
		} {
			require.ErrorIs(t, err, idem.ErrInvalid, "%d", i)
			assert.NotContains(t, err.Error(), "kkkk", "the key is not in the error")
		}
	}
	for _, r := range []idem.Request{{Key: "k", Lease: -1}, {Key: "k", Retention: -time.Hour}} {
		_, err := s.Claim(ctx, r)
		require.ErrorIs(t, err, idem.ErrInvalid)
		assert.NotContains(t, err.Error(), "\"k\"")
	}
	require.ErrorIs(t, s.Extend(ctx, idem.Token{Key: "k", Fence: 1}, -1), idem.ErrInvalid)
	require.ErrorIs(t, s.Release(ctx, idem.Token{Key: "k"}, nil), idem.ErrInvalid, "a zero fence")
	for _, limit := range []int{0, -1} {
		_, err := s.Sweep(ctx, limit)
		require.ErrorIs(t, err, idem.ErrInvalid)
	}
	assert.Zero(t, b.Applies.Load()+b.Reads.Load())

	c, err := s.Claim(ctx, idem.Request{Key: long[:idem.MaxKey]})
	require.NoError(t, err, "the longest key")
	require.NoError(t, s.Release(ctx, c.Token, nil))
}

// A context that has ended changes nothing, anywhere but where work that is done is
// settled.
func TestStoreContextEnded(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	token := idem.Token{Key: "k", Fence: 1}
	_, claim := s.Claim(ctx, k)
	_, get := s.Get(ctx, "k")
	_, wait := s.Wait(ctx, "k")
	_, sweep := s.Sweep(ctx, 1)
	_, stats := s.Stats(ctx)
	_, _, effect := s.DoEffect(ctx, k, neverRun)
	for i, err := range []error{
		claim, get, wait, sweep, stats, effect, s.Forget(ctx, idem.Token{Key: "k"}), s.Health(ctx),
		s.Extend(ctx, token, 0), s.Checkpoint(ctx, token, nil), s.CompleteEffect(ctx, token, neverRun),
		s.ClaimMany(ctx, []idem.Request{k})[0].Err,
	} {
		require.Equal(t, context.Canceled, err, "%d", i)
	}
	for _, err := range s.Records(ctx, idem.Filter{}) {
		require.Equal(t, context.Canceled, err)
	}
	assert.Zero(t, b.Applies.Load()+b.Reads.Load())
	for name, c := range settlers {
		err := c.call(ctx, s, token)
		if name == "Unclaim" { // there is nothing left to undo
			require.NoError(t, err)
			continue
		}
		require.Equal(t, idem.ErrFenced, err, name)
	}
}

// What is over the bound of a batch is told which it is.
func TestBatchesOverMaxBatch(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewStub(), idem.Options{MaxBatch: 1})
	claims := s.ClaimMany(t.Context(), []idem.Request{{Key: "a"}, {Key: "b"}})
	require.ErrorIs(t, claims[1].Err, idem.ErrInvalid)
	assert.ErrorContains(t, claims[1].Err, "request 2 is over Options.MaxBatch, 1")
	errs := s.CompleteMany(t.Context(), []idem.Completion{{Token: claims[0].Token}, {}})
	require.NoError(t, errs[0])
	assert.ErrorContains(t, errs[1], "item 2 is over Options.MaxBatch, 1")
}

func TestManyWhenTheCommitFails(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	c := mustClaim(t, s, k)
	b.OnApply = func(context.Context, []engine.Op) error { return storetest.ErrDisk }
	for _, r := range s.ClaimMany(t.Context(), []idem.Request{{Key: "a"}, {Key: "b"}}) {
		require.ErrorIs(t, r.Err, storetest.ErrDisk)
		assert.Zero(t, r.Claim)
	}
	for _, err := range s.CompleteMany(t.Context(), []idem.Completion{{Token: c.Token}, {Token: c.Token}}) {
		require.ErrorIs(t, err, storetest.ErrDisk)
	}
}

// The record can change between the look and the commit; the commit decides.
func TestClaimIsDecidedInTheCommit(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	b.OnApply = func(context.Context, []engine.Op) error {
		b.OnApply = nil
		mustClaim(t, s, k)
		return nil
	}
	c, err := s.Claim(t.Context(), k)
	require.Equal(t, idem.ErrInFlight, err)
	assert.Equal(t, "k", c.Record.Key)
	assert.NotZero(t, c.Record.Fence)
}

// The final record is answered from the cache; others are not in it.
func TestStoreCache(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	c := mustClaim(t, s, k)
	reads := b.Reads.Load()
	get(t, s, "k")
	get(t, s, "k")
	require.Equal(t, reads+2, b.Reads.Load(), "in flight: read each time")
	require.NoError(t, s.Complete(ctx, c.Token, []byte("r")))
	get(t, s, "k")
	require.Equal(t, reads+3, b.Reads.Load(), "completed: the first time")
	get(t, s, "k")
	_, err := s.Claim(ctx, k)
	require.Equal(t, idem.ErrCompleted, err)
	require.Equal(t, reads+3, b.Reads.Load(), "and then not at all")
	st, err := s.Stats(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, st.CacheEntries)
	assert.Positive(t, st.CacheBytes)
	assert.Equal(t, uint64(2), st.CacheHits)
	assert.Equal(t, uint64(4), st.CacheMisses)
	assert.Equal(t, uint64(2), st.Commits)
	assert.Equal(t, uint64(2), st.CommittedOps)
	assert.Equal(t, int64(4096), st.EngineBytes)

	require.NoError(t, s.Forget(ctx, idem.Token{Key: "k"}))
	_, err = s.Get(ctx, "k")
	require.Equal(t, idem.ErrNotFound, err, "what is forgotten is not in the cache either")

	// After a reopen the first read fills it.
	c = mustClaim(t, s, k)
	require.NoError(t, s.Complete(ctx, c.Token, []byte("again")))
	get(t, s, "k")
	require.NoError(t, s.Close())
	b = b.Reopen()
	s = open(t, b, idem.Options{})
	for range 3 {
		assert.Equal(t, "again", string(get(t, s, "k").Result))
	}
	assert.Equal(t, int64(1), b.Reads.Load())

	b = b.Reopen()
	s = open(t, b, idem.Options{CacheBytes: -1})
	for range 3 {
		get(t, s, "k")
	}
	assert.Equal(t, int64(3), b.Reads.Load(), "no cache")
}

// While a commit of the key is under way the cache answers nothing of it,
// neither what was nor what will be.
func TestStoreCacheDuringACommit(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	ctx := t.Context()
	c := mustClaim(t, s, k)
	committing := false
	b.OnCommit = func() error {
		committing = true
		assert.Equal(t, idem.InFlight, get(t, s, "k").State, "it can be undone yet")
		_, err := s.Claim(ctx, k)
		assert.Equal(t, idem.ErrInFlight, err)
		return nil
	}
	require.NoError(t, s.Complete(ctx, c.Token, []byte("r")))
	require.True(t, committing)
	for range 2 { // now it is cached
		assert.Equal(t, "r", string(get(t, s, "k").Result))
	}

	b.OnCommit = func() error {
		assert.Equal(t, idem.Completed, get(t, s, "k").State)
		return nil
	}
	require.NoError(t, s.Forget(ctx, idem.Token{Key: "k"}))
	_, err := s.Get(ctx, "k")
	require.Equal(t, idem.ErrNotFound, err)
}

// What an operation keeps is the store's own copy, and nil and empty stay
// what they are.
func TestStoreCopiesBytes(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]engine.Backend{"memory": memory.New(memory.Options{}), "stub": storetest.NewStub()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, b, idem.Options{MaxResult: 8})
			ctx := t.Context()
			c := mustClaim(t, s, k)
			buf := []byte("before")
			require.NoError(t, s.Checkpoint(ctx, c.Token, buf))
			copy(buf, "after!")
			assert.Equal(t, "before", string(get(t, s, "k").Checkpoint))
			require.NoError(t, s.Complete(ctx, c.Token, buf))
			copy(buf, "other!")
			assert.Equal(t, "after!", string(get(t, s, "k").Result))

			for i, result := range [][]byte{nil, {}, make([]byte, 8)} {
				r := idem.Request{Key: fmt.Sprint(i)}
				c := mustClaim(t, s, r)
				require.NoError(t, s.Complete(ctx, c.Token, result))
				assert.Equal(t, result, get(t, s, r.Key).Result)
			}
			c = mustClaim(t, s, idem.Request{Key: "large"})
			nine := make([]byte, 9)
			err := s.Checkpoint(ctx, c.Token, nine)
			require.ErrorIs(t, err, idem.ErrTooLarge)
			assert.Contains(t, err.Error(), "9 bytes, Options.MaxResult is 8; nothing was changed")
			assert.Equal(t, idem.InFlight, get(t, s, "large").State)
			for range 2 { // again is the same
				err := s.Complete(ctx, c.Token, nine)
				require.ErrorIs(t, err, idem.ErrTooLarge)
				assert.Contains(t, err.Error(), s.KeyHash("large"))
				assert.Contains(t, err.Error(), "over Options.MaxResult (8 bytes) and was not kept")
			}
			assert.True(t, get(t, s, "large").ResultDropped)
		})
	}
}

// A claim that does not fit is given another chance after what has expired
// made room, and only then refused.
func TestFullStoreSweepsFirst(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{MaxRecords: 2}), idem.Options{
		Clock: clock, SweepInterval: -1, Lease: time.Minute, Retention: time.Minute,
	})
	ctx := t.Context()
	mustClaim(t, s, idem.Request{Key: "a"})
	c := mustClaim(t, s, idem.Request{Key: "b"})
	_, err := s.Claim(ctx, idem.Request{Key: "c"})
	require.ErrorIs(t, err, idem.ErrFull)
	require.NoError(t, s.Complete(ctx, c.Token, []byte("r")), "a token operation is never refused for room")
	clock.Advance(2 * time.Minute)
	mustClaim(t, s, idem.Request{Key: "c"})
	results := s.ClaimMany(ctx, []idem.Request{{Key: "d"}, {Key: "e"}})
	require.NoError(t, results[0].Err)
	require.ErrorIs(t, results[1].Err, idem.ErrFull)
}

// What takes room is a claim that begins an operation or has given its room
// back; a takeover has it.
func TestFullRefusesWhatNeedsRoom(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{Clock: clock, Lease: time.Minute, Retention: time.Hour})
	ctx := t.Context()
	mustClaim(t, s, idem.Request{Key: "expired", Retention: time.Second})
	mustClaim(t, s, idem.Request{Key: "expired too", Retention: time.Second})
	clock.Advance(2 * time.Minute)
	mustClaim(t, s, idem.Request{Key: "lapsed"})
	mustClaim(t, s, idem.Request{Key: "lapsed too"})
	clock.Advance(time.Minute)
	require.NoError(t, s.Release(ctx, mustClaim(t, s, idem.Request{Key: "released"}).Token, nil))
	b.Full.Store(true)
	for _, key := range []string{"new", "expired", "released"} {
		_, err := s.Claim(ctx, idem.Request{Key: key})
		require.ErrorIs(t, err, idem.ErrFull, key)
	}
	_, _, err := s.DoEffect(ctx, idem.Request{Key: "expired too"}, neverRun)
	require.ErrorIs(t, err, idem.ErrFull)
	c := mustClaim(t, s, idem.Request{Key: "lapsed"})
	require.NoError(t, s.Checkpoint(ctx, c.Token, []byte("p")))
	require.NoError(t, s.Complete(ctx, c.Token, nil))
	_, replayed, err := s.DoEffect(ctx, idem.Request{Key: "lapsed too"}, saying("r"))
	require.NoError(t, err)
	assert.False(t, replayed)
}

// A batch of which a part did not fit, on a store whose second go fails: what was
// granted is granted, and says so.
func TestFullStoreWhoseSecondGoFails(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(b *storetest.Stub, cancel func()) error{
		"cancelled": func(_ *storetest.Stub, cancel func()) error { cancel(); return context.Canceled },
		"broken":    func(b *storetest.Stub, _ func()) error { b.Breaking.Store(true); return idem.ErrBroken },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			b := storetest.NewStub()
			s := open(t, storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1, Lease: time.Minute, Retention: time.Minute})
			mustClaim(t, s, idem.Request{Key: "old"})
			clock.Advance(time.Hour)
			b.Refuse = func(key string) error {
				if key == "unlucky" {
					return idem.ErrFull
				}
				return nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var want error
			applies := 0
			b.OnApply = func(context.Context, []engine.Op) error {
				if applies++; applies == 3 { // the batch, its sweep, the second go
					want = fail(b, cancel)
				}
				return nil
			}
			out := s.ClaimMany(ctx, []idem.Request{{Key: "lucky"}, {Key: "unlucky"}})
			require.Equal(t, 3, applies)
			require.NoError(t, out[0].Err, "nobody is told \"not done\" of what was done")
			require.NotZero(t, out[0].Token)
			require.ErrorIs(t, out[1].Err, want)
			require.Zero(t, out[1].Token)
		})
	}
}

// A claim refused for room may stand over a record of another request. It is
// not shown.
func TestFullDisclosesNothing(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{})
	c := mustClaim(t, s, idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, s.Release(t.Context(), c.Token, nil))
	b.Full.Store(true)
	got, err := s.Claim(t.Context(), idem.Request{Key: "k", Fingerprint: printB})
	require.ErrorIs(t, err, idem.ErrFull)
	assert.Equal(t, idem.Claim{Record: idem.Record{Key: "k"}}, got)
}

// One bad record is that key's alone.
func TestCorruptRecord(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	c := mustClaim(t, s, idem.Request{Key: "bad"})
	mustClaim(t, s, idem.Request{Key: "good"})
	b.Damage("bad")
	_, err := s.Claim(ctx, idem.Request{Key: "bad"})
	require.ErrorIs(t, err, idem.ErrCorrupt)
	out := s.ClaimMany(ctx, []idem.Request{{Key: "bad"}, {Key: "new"}})
	require.ErrorIs(t, out[0].Err, idem.ErrCorrupt)
	assert.Zero(t, out[0].Token)
	require.NoError(t, out[1].Err)
	require.ErrorIs(t, s.Complete(ctx, c.Token, nil), idem.ErrCorrupt)
	_, err = s.Get(ctx, "bad")
	require.ErrorIs(t, err, idem.ErrCorrupt)
	get(t, s, "good")

	require.NoError(t, s.Forget(ctx, idem.Token{Key: "bad"}), "an operator can be rid of it")
	b.Damage()
	_, err = s.Get(ctx, "bad")
	require.Equal(t, idem.ErrNotFound, err)
}

// Fences go on over openings, and time with them; Bind's errors are New's.
func TestStoreReopens(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{Clock: clock, Lease: time.Minute})
	first := mustClaim(t, s, k)
	assert.Greater(t, first.Token.Fence, uint64(1_800_000_000_000_000_000), "a new store starts above the time in nanoseconds")
	_, err := idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrInvalid)
	clock.Advance(20 * time.Second)
	require.NoError(t, s.Close())

	wall, _ := clock.Now()
	clock.StepWall(time.Unix(0, 0).Sub(wall)) // boot in 1970
	b = b.Reopen()
	s = open(t, b, idem.Options{Clock: clock})
	clock.Advance(40*time.Second - 1)
	c, err := s.Claim(t.Context(), k)
	require.Equal(t, idem.ErrInFlight, err, "1 ns before the lease ends")
	assert.Equal(t, int64(40), c.Record.LeaseUntil.Unix(), "shown on the wall clock as it is")
	clock.Advance(1)
	second := mustClaim(t, s, k)
	assert.Greater(t, second.Token.Fence, first.Token.Fence)
	assert.Equal(t, 2, second.Record.Attempt)
}

// Refusals are bare sentinels; everything else says what, where and what to do.
func TestErrorsAreForPeople(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{MaxRecords: 1}), idem.Options{})
	mustClaim(t, s, k)
	_, err := s.Claim(t.Context(), k)
	assert.Equal(t, idem.ErrInFlight, err)
	for _, err := range []error{
		idem.ErrCompleted, idem.ErrFailed, idem.ErrInFlight, idem.ErrHeld, idem.ErrMismatch, idem.ErrExhausted, idem.ErrFenced,
		idem.ErrNotFound, idem.ErrInvalid, idem.ErrTooLarge, idem.ErrFull, idem.ErrCorrupt, idem.ErrVersion, idem.ErrLocked,
		idem.ErrBroken, idem.ErrClosed, idem.ErrTooLate,
	} {
		assert.Regexp(t, `^idem: [a-z]`, err.Error())
		assert.NoError(t, errors.Unwrap(err))
	}
}
