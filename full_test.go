package idem_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
)

// fillUp has s hold n records that have expired.
func fillUp(t *testing.T, s *idem.Store, clock *idemtest.Clock, n int) {
	t.Helper()
	for i := range n {
		c := mustClaim(t, s, idem.Request{Key: fmt.Sprint("old", i), Retention: time.Second})
		require.NoError(t, s.Complete(t.Context(), c.Token, nil))
	}
	clock.Advance(time.Minute)
}

// newBounded is a stub that holds so many records.
func newBounded(records int) storetest.Rich {
	b := storetest.NewRich()
	b.Most = records
	return b
}

// A claim on a full store looks at one slice of what has expired, however much there is.
func TestClaimOnAFullStoreSweepsOneSlice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		extended int // of the records due: they live on
		err      error
		left     int
		commits  int64
	}{
		"and is granted the room":        {0, nil, 10 - 3 + 1, 3},
		"of what lives on: it is full":   {10, idem.ErrFull, 10, 2},
		"of which something has expired": {2, nil, 10 - 1 + 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			b := newBounded(10)
			s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1, SweepSlice: 3, Lease: time.Millisecond})
			for i := range 10 {
				claim := mustClaim(t, s, idem.Request{Key: fmt.Sprintf("old%d", i), Retention: time.Second})
				if i < c.extended { // its place in the index stays where it was
					require.NoError(t, s.Extend(t.Context(), claim.Token, 24*time.Hour))
				} else {
					require.NoError(t, s.Complete(t.Context(), claim.Token, nil))
				}
			}
			clock.Advance(time.Minute)
			commits, looks := b.Applies.Load(), b.Looks.Load()
			_, err := s.Claim(t.Context(), k)
			require.ErrorIs(t, err, c.err)
			assert.Equal(t, c.commits, b.Applies.Load()-commits, "the claim, one slice, and the claim again if there is room")
			assert.Equal(t, int64(1), b.Looks.Load()-looks)
			assert.Len(t, b.Entries, c.left)
		})
	}
}

// Room that another sweep makes is seen, also where the records are gone from the index
// already and the store has not been told.
func TestClaimOnAFullStoreSeesAnothersRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clock := newClock()
		b := newBounded(3)
		s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1})
		fillUp(t, s, clock, 3)
		var shown gate
		shown.shut()
		var swept atomic.Bool
		b.OnScan = func(string) error {
			if swept.CompareAndSwap(false, true) { // the claim was refused and is about to sweep
				made := make(chan struct{})
				b.OnShown = func() {
					b.OnShown = nil
					close(made)
					shown.pass()
				}
				go func() { _, _ = s.Sweep(context.Background(), 10) }()
				<-made
			}
			return nil
		}
		answer := make(chan error, 1)
		go func() {
			_, err := s.Claim(context.Background(), k)
			answer <- err
		}()
		synctest.Wait()
		shown.open()
		require.NoError(t, <-answer)
	})
}

// A sweep's limit counts the records that it looks at.
func TestSweepOfOneIsOneCommit(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewRich()
	s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1, Lease: time.Millisecond})
	for _, key := range []string{"a", "b", "c"} { // due, and live
		c := mustClaim(t, s, idem.Request{Key: key, Retention: time.Second})
		require.NoError(t, s.Extend(t.Context(), c.Token, 24*time.Hour))
	}
	fillUp(t, s, clock, 3)
	for n, want := range []int{0, 0, 0, 1, 1, 1, 0} {
		commits := b.Applies.Load()
		removed, err := s.Sweep(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, want, removed, "%d", n)
		if n < 6 {
			assert.Equal(t, int64(1), b.Applies.Load()-commits)
		}
	}
}
