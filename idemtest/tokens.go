package idemtest

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var tokenCases = []testCase{
	{"a stale token changes nothing", staleTokens},
	{"one's own final record", ownFinal},
	{"fences never repeat", fencesNeverRepeat},
	{"fences over many lives", fencesOverLives},
	{"lapsed, not taken over", lapsedNotTakenOver},
	{"Extend never shortens", extendNeverShortens},
}

// tokenOps returns the operations that take a token.
func (e *env) tokenOps() map[string]func(idem.Token) error {
	return map[string]func(idem.Token) error{
		"Complete":   func(tok idem.Token) error { return e.s.Complete(e.ctx, tok, []byte("stale")) },
		"Fail":       func(tok idem.Token) error { return e.s.Fail(e.ctx, tok, []byte("stale")) },
		"Release":    func(tok idem.Token) error { return e.s.Release(e.ctx, tok, nil) },
		"Hold":       func(tok idem.Token) error { return e.s.Hold(e.ctx, tok, []byte("stale")) },
		"Extend":     func(tok idem.Token) error { return e.s.Extend(e.ctx, tok, time.Hour) },
		"Checkpoint": func(tok idem.Token) error { return e.s.Checkpoint(e.ctx, tok, []byte("stale")) },
		"CompleteMany": func(tok idem.Token) error {
			return e.s.CompleteMany(e.ctx, []idem.Completion{{Token: tok, Result: []byte("stale")}})[0]
		},
	}
}

func staleTokens(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	tokens := map[string]idem.Token{"absent": {Key: "absent", Fence: 1}}
	claim := func(key string, r idem.Request) idem.Token {
		r.Key, r.Fingerprint = key, printA
		tok := e.claim(r).Token
		tokens[key] = tok
		return tok
	}
	for _, key := range []string{"forgotten", "forgotten and claimed", "released and claimed", "released", "forged"} {
		claim(key, idem.Request{Lease: time.Hour})
	}
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forgotten"}))
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forgotten and claimed"}))
	e.claim(idem.Request{Key: "forgotten and claimed", Lease: time.Hour})
	require.NoError(t, e.s.Release(e.ctx, tokens["released"], nil))
	require.NoError(t, e.s.Checkpoint(e.ctx, tokens["released and claimed"], []byte("point")))
	require.NoError(t, e.s.Release(e.ctx, tokens["released and claimed"], nil))
	e.claim(idem.Request{Key: "released and claimed", Lease: time.Hour})
	for i, forged := range []uint64{1, tokens["forged"].Fence - 1, tokens["forged"].Fence + 1, tokens["released"].Fence, math.MaxUint64} {
		tokens[fmt.Sprint("forged ", i)] = idem.Token{Key: "forged", Fence: forged}
	}
	delete(tokens, "forged")

	claim("expired in flight", idem.Request{Retention: time.Second})
	require.NoError(t, e.s.Complete(e.ctx, claim("expired", idem.Request{Retention: time.Second}), []byte("old")))
	require.NoError(t, e.s.Complete(e.ctx, claim("expired and claimed", idem.Request{Retention: time.Second}), []byte("old")))
	taken := []string{"taken over", "taken over and completed", "taken over and failed", "taken over and held", "taken over and released"}
	for _, key := range taken {
		claim(key, idem.Request{})
	}
	e.clock.Advance(2 * time.Second)
	e.claim(idem.Request{Key: "expired and claimed", Lease: time.Hour})
	for i, key := range taken {
		tok := e.claim(idem.Request{Key: key, Lease: time.Hour}).Token
		switch i {
		case 1:
			require.NoError(t, e.s.Complete(e.ctx, tok, []byte("theirs")))
		case 2:
			require.NoError(t, e.s.Fail(e.ctx, tok, []byte("theirs")))
		case 3:
			require.NoError(t, e.s.Hold(e.ctx, tok, []byte("theirs")))
		case 4:
			require.NoError(t, e.s.Release(e.ctx, tok, nil))
		}
	}

	check := func() {
		t.Helper()
		for name, tok := range tokens {
			before := e.entry(tok.Key)
			for op, do := range e.tokenOps() {
				if name == "released" && op == "Release" {
					require.NoError(t, do(tok), "released already")
				} else {
					require.ErrorIs(t, do(tok), idem.ErrFenced, "%s of %s", op, name)
				}
				require.Equal(t, before, e.entry(tok.Key), "%s of %s: the record is untouched", op, name)
			}
		}
	}
	check()
	e.sweepAll()
	check() // the expired are not even stored any more
	if !e.h.Volatile {
		e.reopen()
		check()
	}
}

func ownFinal(t *testing.T, e *env) {
	e.open(idem.Options{})
	completed, failed := e.claim(idem.Request{Key: "completed"}).Token, e.claim(idem.Request{Key: "failed"}).Token
	require.NoError(t, e.s.Complete(e.ctx, completed, []byte("mine")))
	require.NoError(t, e.s.Fail(e.ctx, failed, []byte("mine")))
	e.clock.Advance(time.Hour) // long after the lease: final is final
	for tok, want := range map[idem.Token]error{completed: idem.ErrCompleted, failed: idem.ErrFailed} {
		before := e.entry(tok.Key)
		for op, do := range e.tokenOps() {
			require.ErrorIs(t, do(tok), want, "%s of %s", op, tok.Key)
			require.Equal(t, before, e.entry(tok.Key), "%s: the first stays", op)
		}
	}
}

func fencesNeverRepeat(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Second})
	swept, forgotten, expired := e.claim(idem.Request{Key: "swept"}).Token, e.claim(idem.Request{Key: "forgotten"}).Token, e.claim(idem.Request{Key: "expired"}).Token
	require.NoError(t, e.s.Complete(e.ctx, swept, nil))
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "forgotten"}))
	e.clock.Advance(2 * time.Second)
	e.sweepAll()
	old := []idem.Token{swept, forgotten, expired}
	highest := expired.Fence
	refused := func() {
		t.Helper()
		for _, tok := range old {
			for op, do := range e.tokenOps() {
				require.ErrorIs(t, do(tok), idem.ErrFenced, "%s of %s", op, tok.Key)
			}
		}
	}
	refused()
	if !e.h.Volatile {
		e.clock.StepWall(-day) // the wall clock does not help
	}
	e.reopen()
	refused()
	for _, tok := range old {
		c := e.claim(idem.Request{Key: tok.Key, Lease: time.Hour})
		require.Equal(t, 1, c.Record.Attempt)
		require.Greater(t, c.Token.Fence, highest, "a fence was given out again")
		highest = c.Token.Fence
	}
	refused()
	e.reopen()
	refused()
}

// fencesOverLives: no fence is repeated after reopening, killing, or setting clocks
// back, even if the last claim left no record.
func fencesOverLives(t *testing.T, e *env) {
	e.open(idem.Options{})
	seen := map[uint64]bool{}
	highest := uint64(0)
	claim := func(n int) {
		t.Helper()
		for i := range n {
			key := fmt.Sprint("k", i)
			f := e.claim(idem.Request{Key: key}).Token.Fence
			require.False(t, seen[f], "fence %d was given out twice", f)
			require.Greater(t, f, highest)
			seen[f], highest = true, f
			require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: key}))
		}
	}
	for life := range 6 {
		claim(1 + 7*(life%3))
		if !e.h.Volatile {
			e.clock.StepWall(-time.Hour)
		}
		e.reopen()
		if e.h.Crash != nil {
			claim(1 + 5*(life%2))
			e.crash()
		}
	}
	e.reopen()
	e.reopen() // lives without a single commit
	claim(3)
}

func lapsedNotTakenOver(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	tokens := map[string]idem.Token{}
	ops := map[string]func(tok idem.Token) error{
		"Complete":   func(tok idem.Token) error { return e.s.Complete(e.ctx, tok, []byte("late")) },
		"Fail":       func(tok idem.Token) error { return e.s.Fail(e.ctx, tok, []byte("late")) },
		"Release":    func(tok idem.Token) error { return e.s.Release(e.ctx, tok, nil) },
		"Hold":       func(tok idem.Token) error { return e.s.Hold(e.ctx, tok, []byte("late")) },
		"Checkpoint": func(tok idem.Token) error { return e.s.Checkpoint(e.ctx, tok, []byte("late")) },
		"Extend":     func(tok idem.Token) error { return e.s.Extend(e.ctx, tok, time.Minute) },
	}
	for name := range ops {
		tokens[name] = e.claim(idem.Request{Key: name}).Token
	}
	e.clock.Advance(time.Minute)
	states := map[string]idem.State{
		"Complete": idem.Completed, "Fail": idem.Failed, "Release": idem.Released,
		"Hold": idem.Held, "Checkpoint": idem.InFlight, "Extend": idem.InFlight,
	}
	for name, op := range ops {
		require.NoError(t, op(tokens[name]), name)
		require.Equal(t, states[name], e.get(name).State)
	}
	r := e.refused(idem.ErrInFlight, idem.Request{Key: "Extend"}) // it holds again
	require.True(t, start.Add(2*time.Minute).Equal(r.LeaseUntil))
	require.Equal(t, 2, e.claim(idem.Request{Key: "Checkpoint"}).Record.Attempt, "a checkpoint extends no lease")
	require.Equal(t, "late", string(e.refused(idem.ErrCompleted, idem.Request{Key: "Complete"}).Result))
}

func extendNeverShortens(t *testing.T, e *env) {
	e.open(idem.Options{Lease: 7 * time.Second, Retention: time.Hour})
	c := e.claim(idem.Request{Key: "k", Lease: time.Minute})
	until := func(want time.Duration) {
		t.Helper()
		r := e.get("k")
		require.True(t, start.Add(want).Equal(r.LeaseUntil), "the lease ends at start+%v, not +%v", want, r.LeaseUntil.Sub(start))
		require.True(t, r.LeaseUntil.Add(time.Hour).Equal(r.ExpiresAt), "it expires at lease end + retention")
	}
	require.NoError(t, e.s.Extend(e.ctx, c.Token, time.Second))
	until(time.Minute)
	e.clock.Advance(10 * time.Second)
	require.NoError(t, e.s.Extend(e.ctx, c.Token, 0))
	until(70 * time.Second) // the claim's own lease, not the store's
	require.NoError(t, e.s.Extend(e.ctx, c.Token, time.Hour))
	until(time.Hour + 10*time.Second)
	require.NoError(t, e.s.Extend(e.ctx, c.Token, time.Millisecond))
	until(time.Hour + 10*time.Second)
	require.NoError(t, e.s.Extend(e.ctx, c.Token, math.MaxInt64))
	e.clock.Advance(100 * 365 * 24 * time.Hour)
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	require.NoError(t, e.s.Complete(e.ctx, c.Token, nil))
}
