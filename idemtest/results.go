package idemtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var resultCases = []testCase{
	{"replay is byte-identical", replayIdentical},
	{"any key", anyKey},
	{"replays are not written over", replayNotAliased},
	{"appending to a slice of a record copies it", appendCopies},
	{"completing twice", completeTwice},
	{"one of many results stays", oneResultStays},
	{"Fail", fail},
	{"result over MaxResult", tooLarge},
	{"limits of input", limits},
}

// payloads returns results, reasons, notes and checkpoints of every kind.
func payloads() map[string][]byte {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return map[string][]byte{
		"nil":      nil,
		"empty":    {},
		"zero":     {0},
		"NUL":      []byte("\x00\x00a\x00"),
		"not text": []byte("\xff\xfe\xfd"),
		"every":    every,
		"JSON":     []byte(`{"id": "ch_1", "amount": 4200}`),
		"page":     bytes.Repeat([]byte("0123456789abcdef"), 4096/16),
		"large":    bytes.Repeat([]byte("\x00\x01\xfe\xff"), 300_000/4),
	}
}

func replayIdentical(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	keys := map[string][]byte{}
	for name, p := range payloads() {
		for state := range outcomes {
			key := name + " " + state.String()
			keys[key] = p
			c := e.claim(idem.Request{Key: key, Fingerprint: printA})
			own := bytes.Clone(p)
			require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, own))
			require.Equal(t, p, e.get(key).Checkpoint, key)
			require.NoError(t, e.end(c.Token, state, own))
			for i := range own { // the slice is the caller's again
				own[i] ^= 0xff
			}
		}
	}
	check := func() {
		t.Helper()
		for key, p := range keys {
			r := e.get(key)
			want := idem.Record{
				Key: key, State: r.State, Fingerprint: printA, Fence: r.Fence, Attempt: 1,
				ClaimedAt: start, LeaseUntil: start.Add(30 * time.Second),
			}
			switch r.State {
			case idem.Completed, idem.Failed:
				want.Result, want.FinishedAt, want.ExpiresAt = p, start, start.Add(time.Hour)
			case idem.Held:
				want.Result, want.Checkpoint = p, p
			case idem.Released:
				want.Result, want.Checkpoint, want.ExpiresAt = p, p, start.Add(time.Hour)
			}
			require.True(t, strings.HasSuffix(key, r.State.String()), "%q is %v", key, r.State)
			e.same(want, r)
			if r.State == idem.Released {
				continue
			}
			c, err := e.s.Claim(e.ctx, idem.Request{Key: key, Fingerprint: printA})
			require.Error(t, err)
			e.same(want, c.Record)
		}
	}
	check()
	check()
	e.clock.Advance(time.Hour - 1)
	check()
	if !e.h.Volatile {
		e.reopen()
		check()
		e.reopen()
		check()
	}
}

func anyKey(t *testing.T, e *env) {
	long := strings.Repeat("k", idem.MaxKey)
	keys := []string{
		"\x00", "\x00\x00", "a", "a\x00", "a\x00b", "A", "a/b", "a/", "%", " ", "\n", "\xff", "\xff\xff", "\xc3\x28", "ключ", "🔑",
		"meta", "records", "idem", "\x00meta", long, long[1:], long[1:] + "l", strings.Repeat("\xff", idem.MaxKey), strings.Repeat("\x00", idem.MaxKey),
	}
	e.open(idem.Options{})
	for i, key := range keys {
		e.completed(idem.Request{Key: key}, fmt.Append(nil, "result ", i))
	}
	check := func() {
		t.Helper()
		for i, key := range keys {
			r := e.refused(idem.ErrCompleted, idem.Request{Key: key})
			require.Equal(t, key, r.Key)
			require.Equal(t, fmt.Sprint("result ", i), string(r.Result))
		}
		if !e.canScan() {
			return
		}
		var seen []string
		for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
			require.NoError(t, err)
			seen = append(seen, r.Key)
		}
		require.ElementsMatch(t, keys, seen)
	}
	e.alsoReopened(check)
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "a\x00"}))
	e.absent("a\x00")
	for _, key := range []string{"a", "a\x00b"} {
		e.refused(idem.ErrCompleted, idem.Request{Key: key})
	}
}

// replayNotAliased: what the engine returned stays as it was, whatever happens to the
// record and the engine's buffers afterwards.
func replayNotAliased(t *testing.T, e *env) {
	e.open(idem.Options{CacheBytes: -1})
	result := bytes.Repeat([]byte("first "), 200)
	e.completed(idem.Request{Key: "k"}, result)
	e.reopenDurable()
	var kept []idem.Record
	for range 8 {
		kept = append(kept, e.get("k"), e.refused(idem.ErrCompleted, idem.Request{Key: "k"}))
		if e.canScan() {
			for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
				require.NoError(t, err)
				kept = append(kept, r)
			}
		}
	}
	require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "k"}))
	for i := range 30 {
		e.completed(idem.Request{Key: "k"}, bytes.Repeat([]byte("second"), 200+i))
		require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "k"}))
	}
	e.close()
	for _, r := range kept {
		require.Equal(t, "k", r.Key)
		require.Equal(t, result, r.Result)
	}
}

// appendCopies: callers share the bytes of a record. If they also shared the spare
// capacity behind them, two that append would overwrite each other.
func appendCopies(t *testing.T, e *env) {
	e.open(idem.Options{})
	for _, n := range []int{1, 5, 33, 1000, 5000} { // copies of them have spare capacity
		req, b := idem.Request{Key: fmt.Sprint("k", n)}, bytes.Repeat([]byte("x"), n)
		check := func(state idem.State, got func(idem.Record) []byte) {
			t.Helper()
			records := []idem.Record{e.get(req.Key), e.get(req.Key)}
			if state != idem.InFlight {
				r, err := e.s.Wait(e.ctx, req.Key)
				require.NoError(t, err)
				records = append(records, r)
			}
			if state != idem.Released {
				one, err := e.s.Claim(e.ctx, req)
				require.Error(t, err)
				many := e.s.ClaimMany(e.ctx, []idem.Request{req})
				records = append(records, one.Record, many[0].Claim.Record)
			}
			if e.canScan() {
				for r, err := range e.s.Records(e.ctx, idem.Filter{Prefix: req.Key}) {
					require.NoError(t, err)
					if r.Key == req.Key {
						records = append(records, r)
					}
				}
			}
			longer := make([][]byte, len(records))
			for i, r := range records {
				require.Equal(t, state, r.State)
				longer[i] = append(got(r), byte('0'+i))
			}
			for i := range records {
				require.Equal(t, string(b)+string(rune('0'+i)), string(longer[i]), "%v, slice %d of %d bytes", state, i, n)
			}
		}
		result := func(r idem.Record) []byte { return r.Result }
		checkpoint := func(r idem.Record) []byte { return r.Checkpoint }

		c := e.claim(req)
		require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, b))
		check(idem.InFlight, checkpoint)
		require.NoError(t, e.s.Release(e.ctx, c.Token, b))
		check(idem.Released, checkpoint)
		check(idem.Released, result)
		c = e.claim(req)
		first, second := append(c.Record.Checkpoint, '1'), append(e.get(req.Key).Checkpoint, '2')
		require.Equal(t, []string{string(b) + "1", string(b) + "2"}, []string{string(first), string(second)}, "a granted claim's")
		require.NoError(t, e.s.Hold(e.ctx, c.Token, b))
		check(idem.Held, result)
		require.NoError(t, e.s.Complete(e.ctx, c.Token, b))
		check(idem.Completed, result)

		c = e.claim(idem.Request{Key: req.Key + " failed"})
		require.NoError(t, e.s.Fail(e.ctx, c.Token, b))
		req.Key += " failed"
		check(idem.Failed, result)
	}
}

func completeTwice(t *testing.T, e *env) {
	e.open(idem.Options{})
	for name, p := range payloads() {
		c := e.completed(idem.Request{Key: name}, p)
		before := e.entry(name)
		e.clock.Advance(time.Millisecond)
		require.NoError(t, e.s.Complete(e.ctx, c.Token, bytes.Clone(p)), "the same result again")
		require.Equal(t, before, e.entry(name), "nothing changes, the times neither")
		for _, other := range [][]byte{[]byte("another"), append(bytes.Clone(p), 0)} {
			require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, other), idem.ErrCompleted)
		}
		require.Equal(t, before, e.entry(name), "the first stays")
	}
}

func oneResultStays(t *testing.T, e *env) {
	const callers = 32
	e.open(idem.Options{})
	for round := range 4 {
		key := fmt.Sprint("k", round)
		c := e.claim(idem.Request{Key: key})
		errs := make([]error, callers)
		e.together(callers, func(i int) { errs[i] = e.s.Complete(e.ctx, c.Token, fmt.Append(nil, i)) })
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two results were accepted")
				winner = i
				continue
			}
			require.ErrorIs(t, err, idem.ErrCompleted)
		}
		require.NotEqual(t, -1, winner)
		require.Equal(t, fmt.Sprint(winner), string(e.refused(idem.ErrCompleted, idem.Request{Key: key}).Result))
	}
}

func fail(t *testing.T, e *env) {
	e.open(idem.Options{Retention: time.Hour})
	c := e.claim(idem.Request{Key: "k", Fingerprint: printA})
	require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, []byte("point")))
	require.NoError(t, e.s.Fail(e.ctx, c.Token, []byte("card declined")))
	check := func() {
		t.Helper()
		for range 2 {
			r := e.refused(idem.ErrFailed, idem.Request{Key: "k", Fingerprint: printA})
			require.Equal(t, idem.Failed, r.State)
			require.Equal(t, "card declined", string(r.Result))
			require.Nil(t, r.Checkpoint, "dropped when final")
		}
	}
	check()
	before := e.entry("k")
	require.NoError(t, e.s.Fail(e.ctx, c.Token, []byte("card declined")), "the same again")
	require.ErrorIs(t, e.s.Fail(e.ctx, c.Token, []byte("another reason")), idem.ErrFailed)
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, []byte("card declined")), idem.ErrFailed)
	require.Equal(t, before, e.entry("k"))
	e.clock.Advance(time.Hour - 1)
	e.alsoReopened(check)
	e.clock.Advance(1)
	e.absent("k")
	require.Equal(t, 1, e.claim(idem.Request{Key: "k"}).Record.Attempt)
}

func tooLarge(t *testing.T, e *env) {
	const limit = 100
	e.open(idem.Options{MaxResult: limit})
	fits, over := bytes.Repeat([]byte("x"), limit), bytes.Repeat([]byte("x"), limit+1)

	c := e.claim(idem.Request{Key: "fits"})
	require.NoError(t, e.s.Checkpoint(e.ctx, c.Token, fits))
	require.NoError(t, e.s.Complete(e.ctx, c.Token, fits))
	require.Equal(t, fits, e.refused(idem.ErrCompleted, idem.Request{Key: "fits"}).Result)

	c = e.claim(idem.Request{Key: "k"})
	before := e.entry("k")
	require.ErrorIs(t, e.s.Checkpoint(e.ctx, c.Token, over), idem.ErrTooLarge)
	require.Equal(t, before, e.entry("k"), "nothing was changed")
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, over), idem.ErrTooLarge)
	check := func() {
		t.Helper()
		r := e.refused(idem.ErrCompleted, idem.Request{Key: "k"})
		require.True(t, r.ResultDropped)
		require.Nil(t, r.Result)
	}
	check()
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, over), idem.ErrTooLarge, "the same again")
	require.ErrorIs(t, e.s.Complete(e.ctx, c.Token, nil), idem.ErrCompleted)
	check()

	c = e.claim(idem.Request{Key: "failed"})
	require.ErrorIs(t, e.s.Fail(e.ctx, c.Token, over), idem.ErrTooLarge)
	r := e.refused(idem.ErrFailed, idem.Request{Key: "failed"})
	require.True(t, r.ResultDropped, "recorded, without its reason")
	require.Nil(t, r.Result)
	require.ErrorIs(t, e.s.Fail(e.ctx, c.Token, over), idem.ErrTooLarge, "the same again")
	require.ErrorIs(t, e.s.Fail(e.ctx, c.Token, nil), idem.ErrFailed)

	// Texts for people are cut.
	c = e.claim(idem.Request{Key: "cut"})
	require.NoError(t, e.s.Hold(e.ctx, c.Token, over))
	require.Equal(t, fits, e.get("cut").Result)
	require.NoError(t, e.s.Release(e.ctx, c.Token, append([]byte("why "), over...)))
	require.Equal(t, append([]byte("why "), fits[4:]...), e.get("cut").Result)

	c = e.claim(idem.Request{Key: "many"})
	errs := e.s.CompleteMany(e.ctx, []idem.Completion{{Token: c.Token, Result: over}})
	require.ErrorIs(t, errs[0], idem.ErrTooLarge)
	require.True(t, e.refused(idem.ErrCompleted, idem.Request{Key: "many"}).ResultDropped)
	if !e.h.Volatile {
		e.close()
		e.open(idem.Options{MaxResult: 1}) // lowered later: what is stored replays
		check()
		require.Equal(t, fits, e.refused(idem.ErrCompleted, idem.Request{Key: "fits"}).Result)
	}
	e.close()
	require.ErrorIs(t, e.s.Checkpoint(e.ctx, c.Token, over), idem.ErrClosed, "a closed store judges nothing")
	require.ErrorIs(t, e.s.Extend(e.ctx, c.Token, 1), idem.ErrClosed)
}

func limits(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "k"})
	before := e.entry("k")
	invalid := map[string]error{
		"negative Extend": e.s.Extend(e.ctx, c.Token, -1),
		"short Extend":    e.s.Extend(e.ctx, c.Token, time.Millisecond-1),
		"zero fence":      e.s.Complete(e.ctx, idem.Token{Key: "k"}, nil),
	}
	for name, key := range map[string]string{"empty key": "", "long key": strings.Repeat("k", idem.MaxKey+1)} {
		tok := idem.Token{Key: key, Fence: 1}
		_, invalid[name+" Claim"] = e.s.Claim(e.ctx, idem.Request{Key: key})
		_, invalid[name+" Get"] = e.s.Get(e.ctx, key)
		_, invalid[name+" Wait"] = e.s.Wait(e.ctx, key)
		invalid[name+" Forget"] = e.s.Forget(e.ctx, idem.Token{Key: key})
		invalid[name+" Complete"] = e.s.Complete(e.ctx, tok, nil)
		invalid[name+" Fail"] = e.s.Fail(e.ctx, tok, nil)
		invalid[name+" Release"] = e.s.Release(e.ctx, tok, nil)
		invalid[name+" Unclaim"] = e.s.Unclaim(e.ctx, tok)
		invalid[name+" Hold"] = e.s.Hold(e.ctx, tok, nil)
		invalid[name+" Extend"] = e.s.Extend(e.ctx, tok, 0)
		invalid[name+" Checkpoint"] = e.s.Checkpoint(e.ctx, tok, nil)
		invalid[name+" ClaimMany"] = e.s.ClaimMany(e.ctx, []idem.Request{{Key: key}})[0].Err
		invalid[name+" CompleteMany"] = e.s.CompleteMany(e.ctx, []idem.Completion{{Token: tok}})[0]
	}
	_, invalid["negative lease"] = e.s.Claim(e.ctx, idem.Request{Key: "new", Lease: -1})
	_, invalid["short lease"] = e.s.Claim(e.ctx, idem.Request{Key: "new", Lease: time.Millisecond - 1})
	_, invalid["negative attempts"] = e.s.Claim(e.ctx, idem.Request{Key: "new", MaxAttempts: -1})
	_, invalid["negative retention"] = e.s.Claim(e.ctx, idem.Request{Key: "new", Retention: -1})
	if e.canExpire() {
		_, invalid["sweep of none"] = e.s.Sweep(e.ctx, 0)
		_, invalid["sweep of less"] = e.s.Sweep(e.ctx, -1)
	}
	for name, err := range invalid {
		require.True(t, errors.Is(err, idem.ErrInvalid), "%s: %v", name, err)
	}
	require.Equal(t, before, e.entry("k"))
	e.absent("new")
	require.NoError(t, e.s.Complete(e.ctx, c.Token, nil), "the store works on")
}
