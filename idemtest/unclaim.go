package idemtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var unclaimCases = []testCase{
	{"Unclaim does not count the attempt", unclaimNotCounted},
	{"Unclaim leaves nothing of a first attempt", unclaimFirst},
	{"Unclaim keeps a checkpoint", unclaimCheckpoint},
	{"Unclaim over a takeover keeps the fingerprint in force", unclaimBound},
	{"Unclaim again, or of nothing, is nil", unclaimRepeated},
	{"Unclaim does not undo what was settled", unclaimSettled},
	{"Unclaim wakes Wait", unclaimWakes},
	{"Forget by token", forgetByToken},
	{"a release's reason is kept until the record is final", reasonKept},
	{"Request.MaxAttempts outranks the option", requestMaxAttempts},
}

// unclaimed returns the latest claim of key, which was undone, after n released ones.
func (e *env) unclaimed(key string, n int) idem.Claim {
	e.t.Helper()
	for range n {
		require.NoError(e.t, e.s.Release(e.ctx, e.claim(idem.Request{Key: key, Fingerprint: printA}).Token, []byte("why")))
	}
	c := e.claim(idem.Request{Key: key, Fingerprint: printA})
	require.NoError(e.t, e.s.Unclaim(e.ctx, c.Token), "Unclaim")
	return c
}

func unclaimNotCounted(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour, MaxAttempts: 2})
	for i := range 5 { // each a message of a batch that was not reached
		c := e.claim(idem.Request{Key: "new", Fingerprint: printA})
		require.Equal(t, 1, c.Record.Attempt, "round %d", i)
		require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
	}
	first := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Release(e.ctx, first.Token, []byte("why")))
	fence := first.Token.Fence
	for range 5 {
		c := e.claim(idem.Request{Key: "k", Fingerprint: printA})
		require.Equal(t, 2, c.Record.Attempt)
		require.Greater(t, c.Token.Fence, fence)
		fence = c.Token.Fence
		require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
		r := e.get("k")
		require.Equal(t, idem.Released, r.State)
		require.Equal(t, 1, r.Attempt)
		require.Equal(t, fence, r.Fence)
		require.Equal(t, "why", string(r.Result), "the reason of the attempt that was begun")
		wall, _ := e.clock.Now()
		require.True(t, wall.Add(time.Hour).Equal(r.ExpiresAt), "it expires a retention from now")
		e.clock.Advance(time.Minute)
	}
	e.claim(idem.Request{Key: "k", Fingerprint: printA})
	e.clock.Advance(time.Second)
	e.refused(idem.ErrExhausted, idem.Request{Key: "k", Fingerprint: printA})

	// A lapsed claim may be undone late, just as it may be completed late.
	c := e.claim(idem.Request{Key: "lapsed"})
	e.clock.Advance(time.Second)
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
	e.absent("lapsed")
	e.claim(idem.Request{Key: "unknown", HoldUnknown: true})
	e.clock.Advance(time.Second)
	require.NoError(t, e.s.Unclaim(e.ctx, e.refused(idem.ErrHeld, idem.Request{Key: "unknown"}).Token()))
	require.Equal(t, 1, e.claim(idem.Request{Key: "unknown"}).Record.Attempt)
}

func unclaimFirst(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.unclaimed("k", 0)
	check := func() {
		t.Helper()
		e.absent("k")
		require.Nil(t, e.entry("k"))
		if e.canScan() {
			require.Empty(t, e.records(idem.Filter{}))
		}
		for op, do := range e.tokenOps() {
			require.ErrorIs(t, do(c.Token), idem.ErrFenced, op)
		}
	}
	e.alsoReopened(check)
	next := e.claim(idem.Request{Key: "k", Fingerprint: printB})
	require.Equal(t, 1, next.Record.Attempt, "free for any request")
	require.Greater(t, next.Token.Fence, c.Token.Fence)
}

func unclaimCheckpoint(t *testing.T, e *env) {
	e.open(idem.Options{MaxAttempts: 1})
	for _, point := range [][]byte{[]byte("half-way"), {}} {
		key := "k" + string(point)
		c := e.claim(idem.Request{Key: key, Fingerprint: printA})
		require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, point))
		require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
		r := e.get(key)
		require.Equal(t, idem.Released, r.State)
		require.Zero(t, r.Attempt)
		require.Equal(t, point, r.Checkpoint)
		if !e.h.Volatile {
			e.reopen()
			e.same(r, e.get(key))
		}
		e.refused(idem.ErrMismatch, idem.Request{Key: key, Fingerprint: printB})
		next := e.claim(idem.Request{Key: key, Fingerprint: printA})
		require.Equal(t, 1, next.Record.Attempt)
		require.Equal(t, point, next.Record.Checkpoint)
		require.NoError(t, e.s.Complete(e.ctx, next.Token, nil))
	}
}

func unclaimBound(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	first := e.claim(idem.Request{Key: "taken over", Fingerprint: printA})
	e.clock.Advance(time.Second)
	second := e.claim(idem.Request{Key: "taken over", Fingerprint: printA})
	require.NoError(t, e.s.Unclaim(e.ctx, second.Token))
	e.unclaimed("released", 1)
	e.unclaimed("kept by zero", 1)
	check := func() {
		t.Helper()
		for _, key := range []string{"taken over", "released", "kept by zero"} {
			require.Equal(t, idem.Record{Key: key}, e.refused(idem.ErrMismatch, idem.Request{Key: key, Fingerprint: printB}),
				"an attempt before may have left effects")
		}
	}
	e.alsoReopened(check)
	require.ErrorIs(t, e.s.Complete(e.ctx, first.Token, nil), idem.ErrFenced, "its claim was taken over")

	// Until the next grant: if released after that, the key is free again.
	for key, print := range map[string]idem.Fingerprint{"taken over": printA, "released": printA, "kept by zero": {}} {
		c := e.claim(idem.Request{Key: key, Fingerprint: print})
		require.Equal(t, 2, c.Record.Attempt)
		require.Equal(t, printA, c.Record.Fingerprint)
		require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
		c = e.claim(idem.Request{Key: key, Fingerprint: printB})
		require.Equal(t, 1, c.Record.Attempt, "a new operation")
		require.Nil(t, c.Record.Result)
	}
	e.unclaimed("expires", 1)
	e.clock.Advance(time.Hour)
	require.Equal(t, 1, e.claim(idem.Request{Key: "expires", Fingerprint: printB}).Record.Attempt)
}

func unclaimRepeated(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Minute})
	c := e.unclaimed("first", 0)
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token), "again")
	require.NoError(t, e.s.Unclaim(e.ctx, idem.Token{Key: "never claimed", Fence: 1}))
	e.absent("never claimed")

	c = e.unclaimed("second", 1)
	before := e.entry("second")
	e.clock.Advance(time.Millisecond)
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token), "again")
	require.NoError(t, e.s.Release(e.ctx, c.Token, []byte("another reason")), "released already")
	require.Equal(t, before, e.entry("second"), "nothing changes")

	c = e.claim(idem.Request{Key: "released"})
	require.NoError(t, e.s.Release(e.ctx, c.Token, []byte("why")))
	before = e.entry("released")
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token), "an attempt that was begun stays counted")
	require.Equal(t, before, e.entry("released"))

	c = e.completed(idem.Request{Key: "expired"}, nil)
	e.clock.Advance(time.Minute)
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token), "its record is gone")
	e.claim(idem.Request{Key: "expired"})
	require.ErrorIs(t, e.s.Unclaim(e.ctx, c.Token), idem.ErrFenced, "and there is another's now")
}

func unclaimSettled(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	refused := func(tok idem.Token, want error) {
		t.Helper()
		before := e.entry(tok.Key)
		require.ErrorIs(t, e.s.Unclaim(e.ctx, tok), want, tok.Key)
		require.Equal(t, before, e.entry(tok.Key), "%s: untouched", tok.Key)
	}
	for state, want := range outcomes {
		if state != idem.Released {
			tok := e.claim(idem.Request{Key: state.String()}).Token
			require.NoError(t, e.end(tok, state, []byte("r")))
			refused(tok, want)
		}
	}
	tok := e.claim(idem.Request{Key: "taken over"}).Token
	e.clock.Advance(time.Second)
	e.claim(idem.Request{Key: "taken over"})
	refused(tok, idem.ErrFenced)
}

func unclaimWakes(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "first"})
	wait := e.waits("first")
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
	require.ErrorIs(t, wait.wait(e, "Wait").err, idem.ErrNotFound)

	require.NoError(t, e.s.Release(e.ctx, e.claim(idem.Request{Key: "second"}).Token, nil))
	c = e.claim(idem.Request{Key: "second"})
	wait = e.waits("second")
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
	got := wait.wait(e, "Wait")
	require.NoError(t, got.err)
	require.Equal(t, idem.Released, got.r.State)
	require.Zero(t, e.clock.Pending(), "no timer stays")
}

func forgetByToken(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	old := e.claim(idem.Request{Key: "k"})
	e.clock.Advance(time.Second)
	c := e.claim(idem.Request{Key: "k"})
	before := e.entry("k")
	require.ErrorIs(t, e.s.Forget(e.ctx, old.Token), idem.ErrFenced, "the record is of another claim")
	require.ErrorIs(t, e.s.Forget(e.ctx, idem.Token{Key: "k", Fence: c.Token.Fence + 1}), idem.ErrFenced)
	require.Equal(t, before, e.entry("k"), "untouched")
	require.NoError(t, e.s.Forget(e.ctx, c.Token))
	e.absent("k")
	require.NoError(t, e.s.Forget(e.ctx, c.Token), "there is none any more")
	require.NoError(t, e.s.Forget(e.ctx, old.Token))
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, nil), idem.ErrFenced)

	for state := range outcomes {
		key := state.String()
		tok := e.claim(idem.Request{Key: key}).Token
		require.NoError(t, e.end(tok, state, []byte("r")))
		e.get(key) // into the cache
		require.NoError(t, e.s.Forget(e.ctx, tok), "in any state: %s", key)
		e.absent(key)
		require.Equal(t, 1, e.claim(idem.Request{Key: key}).Record.Attempt)
	}

	tok := e.claim(idem.Request{Key: "expired"}).Token
	require.NoError(t, e.s.Complete(e.ctx, tok, nil))
	e.clock.Advance(time.Hour)
	require.NoError(t, e.s.Forget(e.ctx, old.Token), "nothing of the key lives")
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "expired", Fence: tok.Fence - 1}), "an expired record is none")
	next := e.claim(idem.Request{Key: "expired"})
	require.ErrorIs(t, e.s.Forget(e.ctx, tok), idem.ErrFenced)
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "expired"}), "whatever is there")
	require.ErrorIs(t, e.s.Complete(e.ctx, next.Token, nil), idem.ErrFenced)
	if !e.h.Volatile {
		e.reopen()
		e.absent("expired")
	}
}

// reasonKept: the last failure's reason can be read until the record is final.
func reasonKept(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	next := func() {
		e.reopenDurable()
	}
	c := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.Nil(t, c.Record.Result)
	require.NoError(t, e.s.Release(e.ctx, c.Token, []byte("connection refused")))
	next()
	require.Equal(t, "connection refused", string(e.get("k").Result))
	c = e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.Equal(t, "connection refused", string(c.Record.Result))
	next()
	require.Equal(t, "connection refused", string(e.refused(idem.ErrInFlight, idem.Request{Key: "k"}).Result))
	require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, []byte("point")))
	require.NoError(t, e.s.Extend(e.ctx, c.Token, 0))
	e.clock.Advance(time.Second)
	c = e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.Equal(t, "connection refused", string(c.Record.Result), "also over a takeover")
	require.NoError(t, e.s.Unclaim(e.ctx, c.Token))
	require.Equal(t, "connection refused", string(e.get("k").Result))
	c = e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Release(e.ctx, c.Token, []byte("timeout")))
	next()
	require.Equal(t, "timeout", string(e.get("k").Result), "the latest")
	c = e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
	require.Nil(t, e.get("k").Result, "a release without one has none")

	for state := range outcomes {
		key := state.String()
		require.NoError(t, e.s.Release(e.ctx, e.claim(idem.Request{Key: key}).Token, []byte("why")))
		require.NoError(t, e.end(e.claim(idem.Request{Key: key}).Token, state, nil))
		require.Nil(t, e.get(key).Result, "%s: another's reason is not this outcome's", key)
	}
	require.NoError(t, e.s.Release(e.ctx, e.claim(idem.Request{Key: "another", Fingerprint: printA}).Token, []byte("why")))
	require.Nil(t, e.claim(idem.Request{Key: "another", Fingerprint: printB}).Record.Result, "nor another operation's")
}

func requestMaxAttempts(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, MaxAttempts: 2})
	try := func(key string, limit int) (idem.Claim, error) {
		c, err := e.s.Claim(e.ctx, idem.Request{Key: key, MaxAttempts: limit})
		if err == nil {
			require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
		}
		return c, err
	}
	for i := range 5 {
		c, err := try("more", 5)
		require.NoError(t, err)
		require.Equal(t, i+1, c.Record.Attempt)
	}
	for _, limit := range []int{0, 1, 5} {
		c, err := try("more", limit)
		require.ErrorIs(t, err, idem.ErrExhausted)
		require.Equal(t, 5, c.Record.Attempt)
	}
	_, err := try("more", 6)
	require.NoError(t, err, "raised later")

	_, err = try("fewer", 1)
	require.NoError(t, err)
	_, err = try("fewer", 1)
	require.ErrorIs(t, err, idem.ErrExhausted)
	_, err = try("fewer", 0)
	require.NoError(t, err, "the option's, where the request has none")
	_, err = try("fewer", 1)
	require.ErrorIs(t, err, idem.ErrExhausted, "exhausted also when lowered")

	many := e.s.ClaimMany(e.ctx, []idem.Request{{Key: "fewer", MaxAttempts: 1}, {Key: "fewer", MaxAttempts: 3}})
	require.ErrorIs(t, many[0].Err, idem.ErrExhausted, "each on its own merits")
	require.NoError(t, many[1].Err)
	e.clock.Advance(time.Second)
	e.refused(idem.ErrExhausted, idem.Request{Key: "fewer", MaxAttempts: 3})
}
