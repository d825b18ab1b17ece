package idemtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var claimCases = []testCase{
	{"one owner", oneOwner},
	{"a claim tells what it granted", grantedRecord},
	{"no second grant after reopening", ownerOutlivesReopen},
	{"release, then claim", releaseThenClaim},
	{"heartbeat races takeover", heartbeatRacesTakeover},
	{"mismatch discloses nothing", mismatch},
	{"zero fingerprint agrees with any", zeroFingerprint},
	{"released, another fingerprint", releasedFingerprint},
	{"HoldUnknown", holdUnknown},
	{"Hold", hold},
	{"MaxAttempts", maxAttempts},
	{"LapseOnOpen", lapseOnOpen},
	{"cancelled before the call", cancelledBefore},
	{"cancelled under way", cancelledUnderWay},
}

var (
	printA = idem.FingerprintOf([]byte("request A"))
	printB = idem.FingerprintOf([]byte("request B"))
)

func oneOwner(t *testing.T, e *env) {
	const callers, keys = 16, 6
	e.open(idem.Options{Lease: time.Minute, Retention: time.Hour})
	situations := []struct {
		name    string
		prepare func(key string)
		attempt int
	}{
		{"new", func(string) {}, 1},
		{"expired", func(key string) {
			e.completed(idem.Request{Key: key, Retention: time.Second}, []byte("old"))
		}, 1},
		{"lapsed", func(key string) { e.claim(idem.Request{Key: key, Lease: time.Second}) }, 2},
		{"lapsed and expired", func(key string) {
			e.claim(idem.Request{Key: key, Lease: time.Second / 2, Retention: time.Second / 2})
		}, 1},
		{"released", func(key string) {
			c := e.claim(idem.Request{Key: key})
			require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
		}, 2},
	}
	var all []string
	attempts := map[string]int{}
	for _, s := range situations {
		for i := range keys {
			key := fmt.Sprintf("%s %d", s.name, i)
			s.prepare(key)
			all = append(all, key)
			attempts[key] = s.attempt
		}
	}
	e.clock.Advance(time.Second)

	type answer struct {
		claim idem.Claim
		err   error
	}
	race := func(lease time.Duration) {
		answers := make([][callers]answer, len(all))
		e.together(callers, func(i int) {
			for k, key := range all {
				answers[k][i].claim, answers[k][i].err = e.s.Claim(e.ctx, idem.Request{Key: key, Lease: lease})
			}
		})
		for k, key := range all {
			var owners []idem.Claim
			for _, a := range answers[k] {
				if a.err == nil {
					owners = append(owners, a.claim)
				} else {
					require.ErrorIs(t, a.err, idem.ErrInFlight, key)
				}
			}
			require.Len(t, owners, 1, "owners of %q", key)
			require.Equal(t, attempts[key], owners[0].Record.Attempt, key)
			for _, a := range answers[k] {
				require.Equal(t, owners[0].Record, a.claim.Record, "everybody sees the owner's record of %q", key)
			}
			require.Equal(t, owners[0].Record, e.get(key))
			attempts[key]++
		}
	}
	race(time.Minute)
	e.clock.Advance(time.Minute)
	race(time.Minute) // over lapsed leases, all of them
}

func grantedRecord(t *testing.T, e *env) {
	e.open(idem.Options{Lease: 10 * time.Second, Retention: time.Hour})
	c := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	want := idem.Record{
		Key: "k", State: idem.InFlight, Fingerprint: printA, Fence: c.Token.Fence, Attempt: 1,
		ClaimedAt: start, LeaseUntil: start.Add(10 * time.Second), ExpiresAt: start.Add(10*time.Second + time.Hour),
	}
	e.same(want, c.Record)
	e.same(want, e.get("k"))
	require.Equal(t, c.Token, c.Record.Token())

	c = e.claim(idem.Request{Key: "own", Lease: time.Minute, Retention: idem.Forever, HoldUnknown: true})
	e.same(idem.Record{
		Key: "own", State: idem.InFlight, Fence: c.Token.Fence, Attempt: 1, HoldUnknown: true,
		ClaimedAt: start, LeaseUntil: start.Add(time.Minute),
	}, e.get("own"))
}

func ownerOutlivesReopen(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "k", Lease: time.Minute})
	e.reopen()
	rec := e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	e.same(c.Record, rec)

	granted := make([]error, 16)
	e.clock.Advance(time.Minute)
	e.reopen()
	e.together(len(granted), func(i int) {
		_, granted[i] = e.s.Claim(e.ctx, idem.Request{Key: "k", Lease: time.Minute})
	})
	owners := 0
	for _, err := range granted {
		if err == nil {
			owners++
		}
	}
	require.Equal(t, 1, owners, "owners after the lease lapsed")
	e.reopen()
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, nil), idem.ErrFenced)
}

func releaseThenClaim(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	first := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Checkpoint(e.ctx, first.Token, []byte("half-way")))
	e.clock.Advance(time.Second)
	require.NoError(t, e.s.Release(e.ctx, first.Token, nil))

	r := e.get("k")
	require.Equal(t, idem.Released, r.State)
	require.Equal(t, []byte("half-way"), r.Checkpoint)
	require.True(t, start.Add(time.Second+time.Hour).Equal(r.ExpiresAt), "a released record expires at release + retention, not %v", r.ExpiresAt)
	require.NoError(t, e.s.Release(e.ctx, first.Token, nil), "released already")
	e.same(r, e.get("k"))

	second := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.Greater(t, second.Token.Fence, first.Token.Fence)
	require.Equal(t, 2, second.Record.Attempt)
	require.Equal(t, []byte("half-way"), second.Record.Checkpoint)

	require.NoError(t, e.s.Checkpoint(e.ctx, second.Token, nil), "nil removes it")
	require.NoError(t, e.s.Release(e.ctx, second.Token, nil))
	third := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.Equal(t, 3, third.Record.Attempt)
	require.Nil(t, third.Record.Checkpoint)
}

func heartbeatRacesTakeover(t *testing.T, e *env) {
	const rounds = 24
	e.open(idem.Options{Lease: time.Second})
	for i := range rounds {
		complete := i%2 == 1
		key := fmt.Sprint("k", i)
		old := e.claim(idem.Request{Key: key})
		e.clock.Advance(time.Second)
		var beat, claimed error
		var c idem.Claim
		e.together(2, func(n int) {
			switch {
			case n == i/2%2:
				c, claimed = e.s.Claim(e.ctx, idem.Request{Key: key})
			case complete:
				beat = e.s.Complete(e.ctx, old.Token, []byte("done"))
			default:
				beat = e.s.Extend(e.ctx, old.Token, time.Second)
			}
		})
		if claimed == nil {
			require.ErrorIs(t, beat, idem.ErrFenced, "the claim was taken over")
			require.Equal(t, c.Token.Fence, e.get(key).Fence)
			continue
		}
		require.NoError(t, beat, "the takeover was refused: %v", claimed)
		require.Equal(t, old.Token.Fence, e.get(key).Fence)
		if complete {
			require.ErrorIs(t, claimed, idem.ErrCompleted)
		} else {
			require.ErrorIs(t, claimed, idem.ErrInFlight)
		}
	}
}

func mismatch(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, MaxAttempts: 1})
	keys := []string{"in flight"}
	for state := range outcomes {
		keys = append(keys, state.String())
	}
	check := func(key string) {
		t.Helper()
		before := e.entry(key)
		r := e.refused(idem.ErrMismatch, idem.Request{Key: key, Fingerprint: printB})
		require.Equal(t, idem.Record{Key: key}, r, "a mismatch discloses the key alone")
		many := e.s.ClaimMany(e.ctx, []idem.Request{{Key: key, Fingerprint: printB}})
		require.ErrorIs(t, many[0].Err, idem.ErrMismatch)
		require.Equal(t, idem.Record{Key: key}, many[0].Record)
		require.Equal(t, before, e.entry(key))
	}
	claim := func(key string) idem.Token {
		tok := e.claim(idem.Request{Key: key, Fingerprint: printA}).Token
		require.NoError(t, e.s.Checkpoint(e.ctx, tok, []byte("secret")))
		return tok
	}
	claim("in flight")
	check("in flight")
	for state := range outcomes {
		require.NoError(t, e.end(claim(state.String()), state, []byte("secret")))
		check(state.String())
	}
	e.clock.Advance(time.Second)
	check("in flight") // lapsed: not taken over by another request, nor exhausted
	if !e.h.Volatile {
		e.reopen()
		for _, key := range keys {
			check(key)
		}
	}
}

func zeroFingerprint(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second})
	e.claim(idem.Request{Key: "k", Fingerprint: printA})
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	e.clock.Advance(time.Second)
	c := e.claim(idem.Request{Key: "k"})
	require.Equal(t, printA, c.Record.Fingerprint, "a takeover with zero keeps the stored fingerprint")
	require.NoError(t, e.s.Complete(e.ctx, c.Token, nil))
	e.refused(idem.ErrCompleted, idem.Request{Key: "k"})
	e.refused(idem.ErrCompleted, idem.Request{Key: "k", Fingerprint: printA})
	e.refused(idem.ErrMismatch, idem.Request{Key: "k", Fingerprint: printB})

	c = e.claim(idem.Request{Key: "blank"})
	e.refused(idem.ErrInFlight, idem.Request{Key: "blank", Fingerprint: printB})
	require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
	c = e.claim(idem.Request{Key: "blank", Fingerprint: printB})
	require.Equal(t, 2, c.Record.Attempt, "zero stored agrees with any: the same operation")
	require.Equal(t, printB, c.Record.Fingerprint, "a grant stores the request's fingerprint")
	e.refused(idem.ErrMismatch, idem.Request{Key: "blank", Fingerprint: printA})
}

func releasedFingerprint(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "saved", Fingerprint: printA})
	require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, []byte{}))
	require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
	e.refused(idem.ErrMismatch, idem.Request{Key: "saved", Fingerprint: printB})

	old := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Release(e.ctx, old.Token, nil))
	c = e.claim(idem.Request{Key: "k", Fingerprint: printB})
	require.Equal(t, 1, c.Record.Attempt, "a new operation")
	require.Equal(t, printB, c.Record.Fingerprint)
	require.Greater(t, c.Token.Fence, old.Token.Fence)
	e.refused(idem.ErrMismatch, idem.Request{Key: "k", Fingerprint: printA})
	require.ErrorIs(t, e.s.Release(e.ctx, old.Token, nil), idem.ErrFenced)
}

func holdUnknown(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Second})
	c := e.claim(idem.Request{Key: "k", HoldUnknown: true})
	other := e.claim(idem.Request{Key: "failed", HoldUnknown: true})
	again := e.claim(idem.Request{Key: "again", HoldUnknown: true})
	e.refused(idem.ErrInFlight, idem.Request{Key: "k"})
	for _, wait := range []time.Duration{time.Second, time.Second, 50 * 365 * 24 * time.Hour} {
		e.clock.Advance(wait)
		r := e.refused(idem.ErrHeld, idem.Request{Key: "k"})
		require.Equal(t, c.Token.Fence, r.Fence)
		require.Equal(t, idem.InFlight, e.get("k").State, "computed on reading, not stored")
		e.sweepAll()
	}
	if !e.h.Volatile {
		e.reopen()
		e.refused(idem.ErrHeld, idem.Request{Key: "k"})
	} else {
		e.refused(idem.ErrHeld, idem.Request{Key: "k"})
	}
	require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("found out")))
	require.Equal(t, []byte("found out"), e.refused(idem.ErrCompleted, idem.Request{Key: "k"}).Result)
	require.NoError(t, e.s.Fail(e.ctx, other.Token, []byte("no")))
	e.refused(idem.ErrFailed, idem.Request{Key: "failed"})
	require.NoError(t, e.s.Release(e.ctx, again.Token, nil))
	require.Equal(t, 2, e.claim(idem.Request{Key: "again"}).Record.Attempt)
	e.clock.Advance(time.Second)
	e.absent("k") // once settled it expires as any other
}

func hold(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Second})
	c := e.claim(idem.Request{Key: "k"})
	require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, []byte("point")))
	require.NoError(t, e.s.Hold(e.ctx, c.Token, []byte("ask the bank")))
	r := e.refused(idem.ErrHeld, idem.Request{Key: "k"})
	require.Equal(t, idem.Held, r.State)
	require.Equal(t, []byte("ask the bank"), r.Result)
	require.Equal(t, []byte("point"), r.Checkpoint)
	require.True(t, r.ExpiresAt.IsZero(), "held records do not expire")
	require.NoError(t, e.s.Hold(e.ctx, c.Token, []byte("another note")), "held already")
	e.same(r, e.get("k"))
	require.ErrorIs(t, e.s.Extend(e.ctx, c.Token, 0), idem.ErrHeld)
	require.ErrorIs(t, e.s.Checkpoint(e.ctx, c.Token, nil), idem.ErrHeld)
	e.clock.Advance(1000 * time.Hour)
	e.sweepAll()
	require.Equal(t, idem.Held, e.get("k").State)
	e.refused(idem.ErrHeld, idem.Request{Key: "k"})
	require.NoError(t, e.s.Release(e.ctx, c.Token, nil))
	next := e.claim(idem.Request{Key: "k"})
	require.Equal(t, []byte("point"), next.Record.Checkpoint)
	require.Nil(t, next.Record.Result)
}

func maxAttempts(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, MaxAttempts: 2})
	e.claim(idem.Request{Key: "lapsed"})
	e.clock.Advance(time.Second)
	last := e.claim(idem.Request{Key: "lapsed"})
	e.refused(idem.ErrInFlight, idem.Request{Key: "lapsed"})
	e.clock.Advance(time.Second)
	r := e.refused(idem.ErrExhausted, idem.Request{Key: "lapsed"})
	require.Equal(t, 2, r.Attempt)
	require.NoError(t, e.s.Complete(e.ctx, last.Token, nil), "the last attempt may still finish")
	e.refused(idem.ErrCompleted, idem.Request{Key: "lapsed"})

	for range 2 {
		require.NoError(t, e.s.Release(e.ctx, e.claim(idem.Request{Key: "released"}).Token, nil))
	}
	e.refused(idem.ErrExhausted, idem.Request{Key: "released"})

	if e.h.Volatile {
		return
	}
	require.NoError(t, e.s.Release(e.ctx, e.claim(idem.Request{Key: "once"}).Token, nil))
	e.close()
	e.open(idem.Options{MaxAttempts: 1}) // lowered later
	e.refused(idem.ErrExhausted, idem.Request{Key: "once"})
	e.close()
	e.open(idem.Options{}) // and lifted
	require.Equal(t, 2, e.claim(idem.Request{Key: "once"}).Record.Attempt)
	require.Equal(t, 3, e.claim(idem.Request{Key: "released"}).Record.Attempt)
}

func lapseOnOpen(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{LapseOnOpen: true, Lease: time.Hour})
	gone := e.claim(idem.Request{Key: "gone"})
	e.refused(idem.ErrInFlight, idem.Request{Key: "gone"}) // claims of this process are not
	unsure := e.claim(idem.Request{Key: "unsure", HoldUnknown: true})
	back := e.claim(idem.Request{Key: "back"})
	e.reopen()

	got := e.waitFor(e.ctx, "gone").wait(e, "Wait on a claim of the process before")
	require.NoError(t, got.err)
	require.Equal(t, gone.Token.Fence, got.r.Fence)
	if e.canScan() {
		stats := e.stats()
		require.Equal(t, 3, stats.InFlight)
		require.Equal(t, 3, stats.Lapsed)
	}
	c := e.claim(idem.Request{Key: "gone"})
	require.Equal(t, 2, c.Record.Attempt)
	require.ErrorIs(t, e.s.Complete(e.ctx, gone.Token, nil), idem.ErrFenced)
	e.refused(idem.ErrInFlight, idem.Request{Key: "gone"})

	e.refused(idem.ErrHeld, idem.Request{Key: "unsure"})
	require.NoError(t, e.s.Complete(e.ctx, unsure.Token, nil))

	require.NoError(t, e.s.Extend(e.ctx, back.Token, 0), "its holder came back")
	e.refused(idem.ErrInFlight, idem.Request{Key: "back"})

	e.close()
	e.open(idem.Options{Lease: time.Hour}) // without LapseOnOpen, leases outlive the process
	e.refused(idem.ErrInFlight, idem.Request{Key: "gone"})
}

func cancelledBefore(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "k"})
	before := e.entry("k")
	ctx, cancel := context.WithCancelCause(e.ctx)
	cancel(errors.New("the caller left"))
	_, claimErr := e.s.Claim(ctx, idem.Request{Key: "new"})
	_, getErr := e.s.Get(ctx, "k")
	_, waitErr := e.s.Wait(ctx, "k")
	_, sweepErr := e.s.Sweep(ctx, 1)
	errs := map[string]error{
		"Claim": claimErr, "Get": getErr, "Wait": waitErr, "Sweep": sweepErr,
		"Extend":     e.s.Extend(ctx, c.Token, time.Hour),
		"Checkpoint": e.s.Checkpoint(ctx, c.Token, nil),
		"Forget":     e.s.Forget(ctx, idem.Token{Key: "k"}),
		"ClaimMany":  e.s.ClaimMany(ctx, []idem.Request{{Key: "new"}})[0].Err,
		"Health":     e.s.Health(ctx),
	}
	if e.canScan() {
		_, errs["Stats"] = e.s.Stats(ctx)
		errs["Records"] = nil
		for _, err := range e.s.Records(ctx, idem.Filter{}) {
			errs["Records"] = err
		}
	}
	for name, err := range errs {
		require.ErrorIs(t, err, context.Canceled, name)
	}
	require.Equal(t, before, e.entry("k"))
	e.absent("new")
}

func cancelledUnderWay(t *testing.T, e *env) {
	const rounds = 40
	e.open(idem.Options{})
	outcomes := make([]error, rounds)
	tokens := make([]idem.Token, rounds)
	for i := range rounds {
		ctx, cancel := context.WithCancel(e.ctx)
		e.together(2, func(n int) {
			if n == i%2 {
				cancel()
				return
			}
			var c idem.Claim
			c, outcomes[i] = e.s.Claim(ctx, idem.Request{Key: fmt.Sprint(i)})
			tokens[i] = c.Token
		})
		cancel()
	}
	e.reopenDurable()
	for i, err := range outcomes {
		if err == nil {
			require.Equal(t, tokens[i].Fence, e.get(fmt.Sprint(i)).Fence, "granted, so it is there")
			continue
		}
		require.ErrorIs(t, err, context.Canceled)
		e.absent(fmt.Sprint(i)) // not granted, so it left no record
	}
}
