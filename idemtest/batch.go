package idemtest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var batchCases = []testCase{
	{"ClaimMany", claimMany},
	{"CompleteMany", completeMany},
	{"batches over MaxBatch", overMaxBatch},
	{"batches at once", batchesAtOnce},
	{"the first of a batch changes what the second meets", firstChangesSecond},
}

func claimMany(t *testing.T, e *env) {
	s := e.spied()
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour, MaxAttempts: 1})
	for key, state := range map[string]idem.State{
		"completed": idem.Completed, "failed": idem.Failed, "held": idem.Held, "exhausted": idem.Released, "mismatch": idem.Completed,
	} {
		require.NoError(t, e.end(e.claim(idem.Request{Key: key, Fingerprint: printA}).Token, state, []byte("r")))
	}
	e.completed(idem.Request{Key: "expired", Retention: 1}, []byte("old"))
	e.clock.Advance(time.Second)
	open := e.claim(idem.Request{Key: "open", Fingerprint: printA})

	s.takeApplies()
	type row struct {
		r   idem.Request
		err error
	}
	rows := []row{
		{idem.Request{Key: "new"}, nil},
		{idem.Request{Key: "completed", Fingerprint: printA}, idem.ErrCompleted},
		{idem.Request{Key: ""}, idem.ErrInvalid},
		{idem.Request{Key: "new"}, idem.ErrInFlight},
		{idem.Request{Key: "failed"}, idem.ErrFailed},
		{idem.Request{Key: "mismatch", Fingerprint: printB}, idem.ErrMismatch},
		{idem.Request{Key: "new, with a print", Fingerprint: printA}, nil},
		{idem.Request{Key: "new, with a print", Fingerprint: printB}, idem.ErrMismatch},
		{idem.Request{Key: "held"}, idem.ErrHeld},
		{idem.Request{Key: strings.Repeat("k", idem.MaxKey+1)}, idem.ErrInvalid},
		{idem.Request{Key: "exhausted"}, idem.ErrExhausted},
		{idem.Request{Key: "open"}, idem.ErrInFlight},
		{idem.Request{Key: "expired"}, nil},
		{idem.Request{Key: "lease", Lease: -1}, idem.ErrInvalid},
		{idem.Request{Key: "new"}, idem.ErrInFlight},
		{idem.Request{Key: "last", Lease: time.Minute, Retention: time.Minute}, nil},
	}
	rs := make([]idem.Request, len(rows))
	granted := 0
	for i, row := range rows {
		rs[i] = row.r
		if row.err == nil {
			granted++
		}
	}
	got := e.s.ClaimMany(e.ctx, rs)
	require.Len(t, got, len(rows))
	applies := s.takeApplies()
	require.Len(t, applies, 1, "all in one commit")
	require.GreaterOrEqual(t, applies[0], granted, "whatever may be granted is decided there")
	fence := open.Token.Fence
	for i, row := range rows {
		if row.err != nil {
			require.ErrorIs(t, got[i].Err, row.err, "request %d", i)
			require.Zero(t, got[i].Token)
			continue
		}
		require.NoError(t, got[i].Err, "request %d", i)
		require.Equal(t, row.r.Key, got[i].Token.Key)
		require.Greater(t, got[i].Token.Fence, fence, "fences grow in the order of the requests")
		fence = got[i].Token.Fence
		require.Equal(t, 1, got[i].Record.Attempt)
		e.same(got[i].Record, e.get(row.r.Key))
	}
	e.same(got[0].Record, got[3].Record)
	e.same(got[0].Record, got[14].Record)
	require.Equal(t, "r", string(got[1].Record.Result))
	require.Equal(t, idem.Record{Key: "mismatch"}, got[5].Record)
	require.Equal(t, open.Token.Fence, got[11].Record.Fence)

	require.Empty(t, e.s.ClaimMany(e.ctx, nil))
	require.Empty(t, s.takeApplies(), "nothing to commit")
}

func completeMany(t *testing.T, e *env) {
	const maxResult = 10
	s := e.spied()
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour, MaxResult: maxResult})
	tokens := map[string]idem.Token{}
	for _, key := range []string{"a", "twice", "other", "large", "forgotten", "failed", "taken", "held"} {
		tokens[key] = e.claim(idem.Request{Key: key}).Token
	}
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forgotten"}))
	require.NoError(t, e.s.Fail(e.ctx, tokens["failed"], nil))
	require.NoError(t, e.s.Hold(e.ctx, tokens["held"], nil))
	e.clock.Advance(time.Second)
	taken := e.claim(idem.Request{Key: "taken"}).Token

	s.takeApplies()
	large := bytes.Repeat([]byte("x"), maxResult+1)
	rows := []struct {
		c   idem.Completion
		err error
	}{
		{idem.Completion{Token: tokens["a"], Result: []byte("A")}, nil},
		{idem.Completion{Token: idem.Token{Key: "no fence"}}, idem.ErrInvalid},
		{idem.Completion{Token: tokens["twice"], Result: []byte("same")}, nil},
		{idem.Completion{Token: tokens["twice"], Result: []byte("same")}, nil},
		{idem.Completion{Token: tokens["other"], Result: nil}, nil},
		{idem.Completion{Token: tokens["other"], Result: []byte("x")}, idem.ErrCompleted},
		{idem.Completion{Token: tokens["large"], Result: large}, idem.ErrTooLarge},
		{idem.Completion{Token: tokens["forgotten"]}, idem.ErrFenced},
		{idem.Completion{Token: tokens["failed"]}, idem.ErrFailed},
		{idem.Completion{Token: tokens["taken"]}, idem.ErrFenced},
		{idem.Completion{Token: taken, Result: []byte("taken")}, nil},
		{idem.Completion{Token: idem.Token{}}, idem.ErrInvalid},
		{idem.Completion{Token: tokens["held"], Result: []byte("known")}, nil},
	}
	cs := make([]idem.Completion, len(rows))
	for i, row := range rows {
		cs[i] = row.c
	}
	got := e.s.CompleteMany(e.ctx, cs)
	require.Equal(t, []int{len(rows) - 2}, s.takeApplies(), "all in one commit")
	require.Len(t, got, len(rows))
	for i, row := range rows {
		if row.err == nil {
			require.NoError(t, got[i], "completion %d", i)
			require.Equal(t, row.c.Result, e.refused(idem.ErrCompleted, idem.Request{Key: row.c.Token.Key}).Result)
		} else {
			require.ErrorIs(t, got[i], row.err, "completion %d", i)
		}
	}
	require.True(t, e.get("large").ResultDropped)
	e.absent("forgotten")
	require.Empty(t, e.s.CompleteMany(e.ctx, nil))
}

func overMaxBatch(t *testing.T, e *env) {
	const limit = 5
	e.open(idem.Options{MaxBatch: limit})
	rs := make([]idem.Request, limit+3)
	for i := range rs {
		rs[i].Key = fmt.Sprint("k", i)
	}
	got := e.s.ClaimMany(e.ctx, rs)
	cs := make([]idem.Completion, len(rs))
	for i, g := range got {
		if i < limit {
			require.NoError(t, g.Err)
		} else {
			require.ErrorIs(t, g.Err, idem.ErrInvalid)
			e.absent(rs[i].Key)
			g.Claim = e.claim(rs[i])
		}
		cs[i] = idem.Completion{Token: g.Token, Result: []byte(g.Token.Key)}
	}
	for i, err := range e.s.CompleteMany(e.ctx, cs) {
		if i < limit {
			require.NoError(t, err)
			e.refused(idem.ErrCompleted, rs[i])
		} else {
			require.ErrorIs(t, err, idem.ErrInvalid)
			e.refused(idem.ErrInFlight, rs[i])
		}
	}
}

// batchesAtOnce: when batches overlap, each key is granted to one of them.
func batchesAtOnce(t *testing.T, e *env) {
	const batches, keys = 8, 40
	e.open(idem.Options{})
	answers := make([][]idem.ClaimResult, batches)
	e.together(batches, func(i int) {
		rs := make([]idem.Request, keys)
		for k := range rs {
			n := (k*(2*i+1) + i) % keys // each batch in an order of its own
			rs[k].Key = fmt.Sprint("k", n)
		}
		answers[i] = e.s.ClaimMany(e.ctx, rs)
	})
	owners := map[string]idem.Token{}
	for _, batch := range answers {
		for _, a := range batch {
			if a.Err != nil {
				require.ErrorIs(t, a.Err, idem.ErrInFlight)
				continue
			}
			require.NotContains(t, owners, a.Token.Key, "two owners")
			owners[a.Token.Key] = a.Token
		}
	}
	for key, tok := range owners {
		require.Equal(t, tok.Fence, e.get(key).Fence)
	}
	for _, batch := range answers {
		for _, a := range batch {
			require.Contains(t, owners, a.Record.Key, "nobody was granted a key that all asked for")
		}
	}
}

// firstChangesSecond: by what is stored before the batch, the second request would be
// refused. It meets the first one's claim instead.
func firstChangesSecond(t *testing.T, e *env) {
	s := e.open(idem.Options{MaxAttempts: 1})
	c := e.claim(idem.Request{Key: "k", Fingerprint: idem.FingerprintOf([]byte("a"))})
	require.NoError(t, s.Release(e.ctx, c.Token, nil))
	_, err := s.Claim(e.ctx, idem.Request{Key: "k"})
	require.ErrorIs(t, err, idem.ErrExhausted)
	got := s.ClaimMany(e.ctx, []idem.Request{{Key: "k", Fingerprint: idem.FingerprintOf([]byte("b"))}, {Key: "k"}})
	require.NoError(t, got[0].Err, "another operation: nothing of the released one binds the key")
	require.ErrorIs(t, got[1].Err, idem.ErrInFlight)
	require.Equal(t, got[0].Token.Fence, got[1].Record.Fence)
}
