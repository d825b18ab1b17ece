package idemtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var boundedCases = []testCase{
	{"a full store refuses new claims only", full},
	{"nothing is evicted", nothingEvicted},
	{"expired records make room", roomByExpiry},
	{"expired records make room for all who come at once", roomForMany},
}

// fill claims keys until the store is full and returns the tokens granted. retain is
// the template for each claim.
func (e *env) fill(records int, retain idem.Request) []idem.Token {
	e.t.Helper()
	if e.h.OpenBounded == nil {
		e.t.Skip("Harness.OpenBounded is nil: the engine has no bound")
	}
	e.openWith(idem.Options{}, e.h.OpenBounded(e.t, e.dir, records))
	var tokens []idem.Token
	for i := range 100 * records {
		retain.Key = fmt.Sprint("k", i)
		c, err := e.s.Claim(e.ctx, retain)
		if err != nil {
			require.ErrorIs(e.t, err, idem.ErrFull)
			require.Zero(e.t, c.Token)
			require.NotEmpty(e.t, tokens, "full when empty")
			e.t.Logf("full with %d records, %d were asked for", len(tokens), records)
			return tokens
		}
		tokens = append(tokens, c.Token)
	}
	e.t.Fatalf("%d records and not full; room for about %d was asked for", len(tokens), records)
	return nil
}

// stillFull claims new keys until one is refused. It fails the test if too many are
// granted.
func (e *env) stillFull(n int) {
	e.t.Helper()
	for i := range n {
		_, err := e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("more ", i)})
		if err != nil {
			require.ErrorIs(e.t, err, idem.ErrFull)
			return
		}
	}
	e.t.Fatalf("%d more were granted by a full store", n)
}

func full(t *testing.T, e *env) {
	const records = 64
	tokens := e.fill(records, idem.Request{Lease: time.Hour, Retention: time.Hour})
	highest := tokens[len(tokens)-1].Fence
	e.stillFull(len(tokens)/2 + 1)
	e.absent(fmt.Sprint("k", len(tokens)))
	many := e.s.ClaimMany(e.ctx, []idem.Request{{Key: "x"}, {Key: tokens[0].Key}})
	require.True(t, many[0].Err == nil || errors.Is(many[0].Err, idem.ErrFull))
	require.ErrorIs(t, many[1].Err, idem.ErrInFlight, "refusals are given as ever")

	// Token operations are never refused for capacity, and may grow a record.
	big := bytes.Repeat([]byte("x"), 2000)
	for i, tok := range tokens {
		require.NoError(t, e.s.Checkpoint(e.ctx, tok, big), "Checkpoint")
		require.NoError(t, e.s.Extend(e.ctx, tok, 2*time.Hour), "Extend")
		switch i % 4 {
		case 0:
			require.NoError(t, e.s.Complete(e.ctx, tok, big), "Complete")
		case 1:
			require.NoError(t, e.s.Fail(e.ctx, tok, big), "Fail")
		case 2:
			require.NoError(t, e.s.Hold(e.ctx, tok, big), "Hold")
			require.NoError(t, e.s.Complete(e.ctx, tok, big), "Complete")
		case 3:
			require.NoError(t, e.s.Release(e.ctx, tok, nil), "Release")
		}
	}
	for i, tok := range tokens {
		r := e.get(tok.Key)
		if i%4 != 3 {
			require.Equal(t, big, r.Result)
		}
	}
	e.refused(idem.ErrFull, idem.Request{Key: "another"})

	// Room comes from Forget.
	for _, tok := range tokens {
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: tok.Key}))
	}
	require.Greater(t, e.claim(idem.Request{Key: "another"}).Token.Fence, highest)
}

func nothingEvicted(t *testing.T, e *env) {
	tokens := e.fill(64, idem.Request{Lease: time.Hour, Retention: time.Hour})
	for i, tok := range tokens {
		if i%2 == 0 {
			require.NoError(t, e.s.Complete(e.ctx, tok, []byte(tok.Key)))
		}
	}
	for i := range 200 {
		_, _ = e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("pressure ", i)})
	}
	e.clock.Advance(time.Hour - 1)
	for i := range 50 {
		_, _ = e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("more pressure ", i)})
	}
	e.sweepAll()
	for i, tok := range tokens {
		if i%2 == 0 {
			require.Equal(t, tok.Key, string(e.refused(idem.ErrCompleted, idem.Request{Key: tok.Key}).Result))
		} else {
			require.Equal(t, tok.Fence, e.refused(idem.ErrInFlight, idem.Request{Key: tok.Key}).Fence)
		}
	}
}

// roomByExpiry: an expired record does not keep a claim out, swept or not.
func roomByExpiry(t *testing.T, e *env) {
	tokens := e.fill(64, idem.Request{Lease: time.Second, Retention: time.Second})
	e.expirer()
	e.clock.Advance(2 * time.Second)
	for i := range len(tokens) / 2 {
		_, err := e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("new ", i), Lease: time.Hour})
		require.NoError(t, err, "all that is there has expired")
	}
	for _, tok := range tokens {
		require.ErrorIs(t, e.s.Complete(e.ctx, tok, nil), idem.ErrFenced)
	}
}

// roomForMany: however many callers meet a full store, each gets the room there is.
// That includes room behind records that were due but live on, as far as one slice of a
// sweep looks.
func roomForMany(t *testing.T, e *env) {
	const records = 64
	for _, slice := range []int{1, 7, 256} {
		e.dir = t.TempDir()
		n := len(e.fill(records, idem.Request{Lease: time.Second, Retention: time.Second}))
		e.expirer()
		e.close()
		e.dir = t.TempDir()
		e.openWith(idem.Options{SweepSlice: slice}, e.h.OpenBounded(t, e.dir, records))
		for i := range n {
			c, err := e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("k", i), Lease: time.Second, Retention: time.Second})
			if err == nil && i < n/4 && slice > n {
				require.NoError(t, e.s.Extend(e.ctx, c.Token, time.Hour))
			}
		}
		e.clock.Advance(2 * time.Second)
		errs := make([]error, n/2)
		e.together(len(errs), func(i int) {
			_, errs[i] = e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("new ", i), Lease: time.Hour})
		})
		for _, err := range errs {
			require.NoError(t, err, "most of what is there has expired; %d are swept at a time", slice)
		}
		e.close()
	}
}
