package idem_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// everyState fills a store with one record of each state, two that have lapsed and
// one that has expired.
func everyState(t *testing.T) (*idem.Store, *storetest.Stub, *idemtest.Clock) {
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1, Lease: time.Minute, Retention: time.Hour})
	ctx := t.Context()
	mustClaim(t, s, idem.Request{Key: "expired", Retention: time.Minute})
	clock.Advance(2 * time.Minute)
	mustClaim(t, s, idem.Request{Key: "a/lapsed"})
	mustClaim(t, s, idem.Request{Key: "b/lapsed", HoldUnknown: true})
	clock.Advance(time.Minute)
	require.NoError(t, s.Release(ctx, mustClaim(t, s, idem.Request{Key: "a/released"}).Token, nil))
	require.NoError(t, s.Hold(ctx, mustClaim(t, s, idem.Request{Key: "a/held"}).Token, nil))
	require.NoError(t, s.Complete(ctx, mustClaim(t, s, idem.Request{Key: "b/completed"}).Token, []byte("r")))
	require.NoError(t, s.Fail(ctx, mustClaim(t, s, idem.Request{Key: "b/failed"}).Token, nil))
	mustClaim(t, s, idem.Request{Key: "a/flying"})
	return s, b, clock
}

func keys(t *testing.T, s *idem.Store, f idem.Filter) []string {
	var out []string
	for r, err := range s.Records(t.Context(), f) {
		require.NoError(t, err)
		out = append(out, r.Key)
	}
	slices.Sort(out)
	return out
}

// What waits for somebody to find out how it ended, alone and by prefix and state.
func TestRecordsUnsettled(t *testing.T) {
	t.Parallel()
	s, _, _ := everyState(t)
	assert.Equal(t, []string{"a/held", "b/lapsed"}, keys(t, s, idem.Filter{Unsettled: true}))
	assert.Equal(t, []string{"a/flying", "a/lapsed", "b/lapsed"}, keys(t, s, idem.Filter{State: idem.InFlight}), "settled or not")
	assert.Equal(t, []string{"b/lapsed"}, keys(t, s, idem.Filter{Unsettled: true, Prefix: "b/"}))
	assert.Equal(t, []string{"b/lapsed"}, keys(t, s, idem.Filter{Unsettled: true, State: idem.InFlight}))
	for r, err := range s.Records(t.Context(), idem.Filter{Unsettled: true}) {
		require.NoError(t, err)
		assert.Contains(t, []string{"a/held", "b/lapsed"}, r.Key)
		break // the loop may be left
	}
}

// After an opening with LapseOnOpen, what the process before had in flight and
// must not be run again is listed, with its token, and what this one has is not.
func TestUnsettledAfterLapseOnOpen(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	clock := newClock()
	o := idem.Options{Clock: clock, SweepInterval: -1, LapseOnOpen: true}
	s := open(t, storetest.Rich{Stub: b}, o)
	mustClaim(t, s, idem.Request{Key: "before", HoldUnknown: true})
	mustClaim(t, s, idem.Request{Key: "may run again"})
	require.Empty(t, keys(t, s, idem.Filter{Unsettled: true}), "their leases hold")
	require.NoError(t, s.Close())
	s = open(t, storetest.Rich{Stub: b.Reopen()}, o)
	mustClaim(t, s, idem.Request{Key: "since", HoldUnknown: true})
	for range 2 {
		for r, err := range s.Records(t.Context(), idem.Filter{Unsettled: true}) {
			require.NoError(t, err)
			require.Equal(t, "before", r.Key, "once")
			_, err := s.Claim(t.Context(), idem.Request{Key: r.Key})
			require.Equal(t, idem.ErrHeld, err)
			require.NoError(t, s.Complete(t.Context(), r.Token(), []byte("settled")))
		}
	}
	require.Equal(t, "settled", string(get(t, s, "before").Result))
}

// A record that is extended while the loop is busy with the one before it, for
// longer than was left of it, is live throughout, and is seen.
func TestRecordsOverAnExtend(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
	tokens := map[string]idem.Token{}
	for i := range 2000 { // several on a page
		key := strconv.Itoa(i)
		tokens[key] = mustClaim(t, s, idem.Request{Key: key, Lease: time.Minute, Retention: time.Minute}).Token
	}
	seen := 0
	for _, err := range s.Records(t.Context(), idem.Filter{}) {
		require.NoError(t, err)
		if seen++; seen > 1 {
			continue
		}
		clock.Advance(time.Minute)
		for _, token := range tokens {
			require.NoError(t, s.Extend(t.Context(), token, time.Hour))
		}
		clock.Advance(2 * time.Minute)
	}
	assert.Equal(t, len(tokens), seen)
}

// A record that cannot be read is named, and the loop goes on.
func TestRecordsWithABadOne(t *testing.T) {
	t.Parallel()
	s, b, _ := everyState(t)
	b.Damage("a/held")
	bad, good := "", 0
	for r, err := range s.Records(t.Context(), idem.Filter{}) {
		if err != nil {
			require.ErrorIs(t, err, idem.ErrCorrupt)
			bad += r.Key
			continue
		}
		good++
	}
	assert.Equal(t, "a/held", bad)
	assert.Equal(t, 6, good)
	for _, err := range s.Records(t.Context(), idem.Filter{}) {
		if err != nil {
			break // leaving at the bad one
		}
	}
}

func TestRecordsEndWithAnError(t *testing.T) {
	t.Parallel()
	s, b, _ := everyState(t)
	var errs []error
	for _, err := range s.Records(t.Context(), idem.Filter{}) {
		b.Blind.Store(true) // from the second page on
		if err != nil {
			errs = append(errs, err)
		}
	}
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], idem.ErrCorrupt)
	_, err := s.Stats(t.Context())
	require.ErrorIs(t, err, idem.ErrCorrupt)
	b.Blind.Store(false)

	for _, err := range s.Records(t.Context(), idem.Filter{}) {
		if err != nil {
			require.Equal(t, idem.ErrClosed, err)
			break
		}
		require.NoError(t, s.Close())
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	s, b, clock := everyState(t)
	clock.Advance(time.Second)
	b.Damage("b/failed")
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, idem.Stats{
		InFlight: 3, Released: 1, Held: 1, Completed: 1, Lapsed: 2, Unsettled: 2, Expired: 1, Corrupt: 1,
		OldestInFlight: time.Minute + time.Second, EngineBytes: 4096,
		CacheHits: 0, CacheMisses: 8, Commits: 12, CommittedOps: 12,
	}, st)
	b.Damage()
	st, err = s.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, st.Failed)

	sizes := 0
	b.OnScan = func(string) error { // the fifth page there is none: it is Size
		if sizes++; sizes == 5 {
			return storetest.ErrDisk
		}
		return nil
	}
	_, err = s.Stats(t.Context())
	require.ErrorIs(t, err, storetest.ErrDisk, "Size fails")
	assert.Equal(t, 5, sizes)
}

// What lapses on opening is counted as lapsed, and as unsettled if it may not run again.
func TestStatsWithLapseOnOpen(t *testing.T) {
	t.Parallel()
	s, b, clock := everyState(t)
	require.NoError(t, s.Close())
	s = open(t, storetest.Rich{Stub: b.Reopen()}, idem.Options{Clock: clock, SweepInterval: -1, LapseOnOpen: true})
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, st.Lapsed)
	assert.Equal(t, len(keys(t, s, idem.Filter{Unsettled: true})), st.Unsettled)
}

// What an engine does not offer is refused, or done without.
func TestPlainEngine(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewStub(), idem.Options{})
	for _, err := range s.Records(t.Context(), idem.Filter{}) {
		require.ErrorIs(t, err, idem.ErrInvalid)
		assert.Contains(t, err.Error(), "cannot list its records")
	}
	_, err := s.Stats(t.Context())
	require.ErrorIs(t, err, idem.ErrInvalid)
	_, err = s.Sweep(t.Context(), 1)
	require.ErrorIs(t, err, idem.ErrInvalid)
	assert.Contains(t, err.Error(), "keeps no expiry index")

	only := struct {
		engine.Backend
		engine.Scanner
	}{}
	b := storetest.NewStub()
	only.Backend, only.Scanner = b, storetest.Rich{Stub: b}
	s = open(t, only, idem.Options{})
	mustClaim(t, s, k)
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, st.InFlight)
	assert.Zero(t, st.EngineBytes, "it does not know")
}
