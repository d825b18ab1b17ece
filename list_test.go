package idem_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// parts lists all parts, and requires that each keeps to its bounds.
func parts(t *testing.T, s *idem.Store, f idem.Filter, p idem.Part) (all []idem.Listed) {
	t.Helper()
	for n := 0; ; n++ {
		require.Less(t, n, 1000, "the list has an end")
		l, err := s.List(t.Context(), f, p)
		require.NoError(t, err)
		require.LessOrEqual(t, len(l.Records), p.Limit)
		require.LessOrEqual(t, l.Looked, p.Look)
		all = append(all, l.Records...)
		if l.Next == "" {
			return all
		}
		require.NotEqual(t, p.After, l.Next, "each part goes on")
		p.After = l.Next
	}
}

// However small its parts are, a list is what Records yields, each record once.
func TestListPartsMakeUpRecords(t *testing.T) {
	t.Parallel()
	s, b, _ := everyState(t)
	corrupt := map[string]error{"b/failed": fmt.Errorf("%w: flipped", idem.ErrCorrupt)}
	b.Corrupt.Store(&corrupt)
	for _, f := range []idem.Filter{
		{},
		{Unsettled: true},
		{State: idem.InFlight},
		{State: idem.Completed},
		{Prefix: "a/"},
		{Prefix: "b/", State: idem.InFlight},
		{KeyHash: s.KeyHash("a/held")},
		{Prefix: "absent"},
	} {
		want := map[string]error{}
		for r, err := range s.Records(t.Context(), f) {
			want[r.Key] = err
		}
		for limit := 1; limit <= 4; limit++ {
			for look := 1; look <= 4; look++ {
				got := map[string]error{}
				for _, l := range parts(t, s, f, idem.Part{Limit: limit, Look: look}) {
					require.NotContains(t, got, l.Key, "once")
					got[l.Key] = l.Err
				}
				require.Equal(t, want, got, "%+v by %d and %d", f, limit, look)
			}
		}
	}
	l, err := s.List(t.Context(), idem.Filter{}, idem.Part{})
	require.NoError(t, err)
	assert.Len(t, l.Records, 7, "the defaults take a small store at once")
	assert.Equal(t, 8, l.Looked, "the expired one as well")
	assert.Empty(t, l.Next)
}

// Match chooses among what the filter lets through, and is not asked of damaged records.
func TestListMatch(t *testing.T) {
	t.Parallel()
	s, b, _ := everyState(t)
	corrupt := map[string]error{"b/failed": fmt.Errorf("%w: flipped", idem.ErrCorrupt)}
	b.Corrupt.Store(&corrupt)
	var asked []string
	found := parts(t, s, idem.Filter{Prefix: "b/"}, idem.Part{Limit: 2, Look: 3, Match: func(r idem.Record) bool {
		asked = append(asked, r.Key)
		return r.State == idem.Completed
	}})
	require.Len(t, found, 2)
	assert.Equal(t, "b/completed", found[0].Key)
	assert.Equal(t, "b/failed", found[1].Key)
	require.ErrorIs(t, found[1].Err, idem.ErrCorrupt)
	slices.Sort(asked)
	assert.Equal(t, []string{"b/completed", "b/lapsed"}, asked)
}

// The record at which a part ended goes, and others come before and behind. What stays
// is still listed once.
func TestListGoesOnWhereTheRecordIsGone(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewRich(), idem.Options{SweepInterval: -1})
	for _, key := range []string{"b", "d", "f", "h", "j"} {
		mustClaim(t, s, idem.Request{Key: key})
	}
	for limit := 1; limit <= 4; limit++ {
		l, err := s.List(t.Context(), idem.Filter{}, idem.Part{Limit: limit})
		require.NoError(t, err)
		last := l.Records[limit-1].Key
		require.NoError(t, s.Forget(t.Context(), idem.Token{Key: last}))
		mustClaim(t, s, idem.Request{Key: "a"})
		seen := map[string]int{}
		for _, r := range l.Records {
			seen[r.Key]++
		}
		for _, r := range parts(t, s, idem.Filter{}, idem.Part{After: l.Next, Limit: 1, Look: 10}) {
			seen[r.Key]++
		}
		for _, key := range []string{"b", "d", "f", "h", "j"} {
			require.Equal(t, 1, seen[key], "%s of limit %d", key, limit)
		}
		mustClaim(t, s, idem.Request{Key: last})
		require.NoError(t, s.Forget(t.Context(), idem.Token{Key: "a"}))
	}
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	s, b, _ := everyState(t)
	for _, p := range []idem.Part{
		{Limit: -1},
		{Look: -1},
		{After: "x"},
		{After: "!"},
		{After: "OTk6eA"}, // 99:x
		{After: "LTE6eA"}, // -1:x
	} {
		_, err := s.List(t.Context(), idem.Filter{}, p)
		require.ErrorIs(t, err, idem.ErrInvalid, "%+v", p)
	}
	_, err := open(t, storetest.NewStub(), idem.Options{}).List(t.Context(), idem.Filter{}, idem.Part{})
	require.ErrorIs(t, err, idem.ErrInvalid, "an engine that cannot list")
	b.OnScan = func(string) error { return errors.New("scan") }
	_, err = s.List(t.Context(), idem.Filter{}, idem.Part{})
	require.EqualError(t, err, "scan")
	require.NoError(t, s.Close())
	_, err = s.List(t.Context(), idem.Filter{}, idem.Part{})
	require.Equal(t, idem.ErrClosed, err)
}

// A place in another store's list may lead anywhere in this one's, but breaks nothing.
func TestListAtAPlaceOfAnotherEngine(t *testing.T) {
	t.Parallel()
	s, _, _ := everyState(t)
	l, err := s.List(t.Context(), idem.Filter{}, idem.Part{Limit: 3})
	require.NoError(t, err)
	require.NotEmpty(t, l.Next)
	other := open(t, memory.New(memory.Options{}), idem.Options{})
	_, err = other.List(t.Context(), idem.Filter{}, idem.Part{After: l.Next})
	require.ErrorIs(t, err, idem.ErrInvalid)
	for _, after := range []string{"NDo5OTk5", "MzoyNTZ4", "MjotMXg"} { // 4:9999, 3:256x, 2:-1x
		_, err = other.List(t.Context(), idem.Filter{}, idem.Part{After: after})
		require.ErrorIs(t, err, idem.ErrInvalid, after)
	}
}
