package idem_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// A reader that is stalled between reading a record and looking at it, for
// longer than what is left of it, does not call it gone when an Extend has kept it
// there all the while.
func TestGetStalledOverAnExtend(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	clock := newClock()
	s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1})
	c := mustClaim(t, s, idem.Request{Key: "k", Lease: time.Minute, Retention: time.Minute})
	stalls := 0
	b.AfterGet = func(string) {
		b.AfterGet = nil
		stalls++
		clock.Advance(time.Minute)
		require.NoError(t, s.Extend(t.Context(), c.Token, time.Hour))
		clock.Advance(2 * time.Minute)
	}
	assert.Equal(t, c.Token.Fence, get(t, s, "k").Fence)
	assert.Equal(t, 1, stalls)
}

// The same for one who waits.
func TestWaitStalledOverAnExtend(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	clock := newClock()
	s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1})
	c := mustClaim(t, s, idem.Request{Key: "k", Lease: time.Minute, Retention: time.Minute})
	b.AfterGet = func(string) {
		b.AfterGet = nil
		clock.Advance(time.Minute)
		require.NoError(t, s.Extend(t.Context(), c.Token, time.Hour))
		clock.Advance(2 * time.Minute)
		require.NoError(t, s.Complete(t.Context(), c.Token, []byte("r")))
	}
	r, err := s.Wait(t.Context(), "k")
	require.NoError(t, err)
	assert.Equal(t, "r", string(r.Result))
}
