package idemtest

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Model checks random sequences of operations, one at a time, against a model made of a
// map and a clock. They contain claims and token operations of every kind, batches,
// sweeps, time that passes, wall clocks that step, and reopened and killed stores.
// Package rapid shrinks a failing sequence and prints it. Its flags and environment
// variables (-rapid.checks, RAPID_STEPS, …) set how many are tried, and try one again.
func Model(t *testing.T, h Harness) {
	t.Helper()
	mark := markGoroutines(t.Name())
	root, runs := t.TempDir(), 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		m := newMachine(t, r, h, filepath.Join(root, strconv.Itoa(runs)))
		defer m.close()
		// An action with several names is tried that many times as often.
		actions := map[string]func(*rapid.T){
			"Claim": m.claim, "claim": m.claim, "ClaimMany": m.claimMany, "Forget": m.forget,
			"token": m.token, "a token": m.token, "some token": m.token, "any token": m.token,
			"advance": m.advance, "deadline": m.deadline, "a deadline": m.deadline, "step": m.step,
			"": m.check,
		}
		if m.canExpire() {
			actions["Sweep"] = m.sweep
		}
		if !h.Volatile { // rare, because it is costly on a disk
			actions["next life"] = m.nextLife
		}
		r.Repeat(actions)
	})
	if !t.Failed() {
		mark.verifyNone(t, h.Patience)
	}
}

// machine runs a store and its model side by side.
type machine struct {
	t     *testing.T
	r     *rapid.T
	h     Harness
	dir   string
	o     idem.Options
	clock *Clock
	b     engine.Backend
	s     *idem.Store

	// The model. Times are nanoseconds of store time.
	now      int64
	opening  int
	saved    int64  // the saved wall clock, going on with elapsed time
	behind   bool   // the wall clock has been behind it since the opening
	lost     int64  // the wall clock up to which records may have been lost
	fence    uint64 // highest granted
	records  map[string]*modelRecord
	tokens   []idem.Token // granted ones, and some that never were
	timeless int          // claims of new keys, made only to commit
}

type modelRecord struct {
	state                        idem.State
	print                        idem.Fingerprint
	fence                        uint64
	attempt, opening             int
	unknown, dropped, bound      bool
	ownLease, retention          time.Duration
	claimed, lease, done, expire int64
	result, checkpoint           []byte
}

const modelNever = int64(math.MaxInt64)

var (
	modelKeys   = []string{"a", "b", "a\x00", "\xff"}
	modelTimes  = []time.Duration{1, 2, time.Microsecond, time.Second, time.Minute, time.Hour, 24 * time.Hour, math.MaxInt64 - 1, idem.Forever}
	modelLeases = []time.Duration{time.Millisecond, time.Millisecond + 1, time.Second, time.Minute, time.Hour, 24 * time.Hour, math.MaxInt64 - 1, idem.Forever}
	modelBytes  = [][]byte{nil, {}, {0}, []byte("result"), []byte("another"), make([]byte, modelMaxResult), make([]byte, modelMaxResult+1)}
)

const modelMaxResult = 2000

func newMachine(t *testing.T, r *rapid.T, h Harness, dir string) *machine {
	m := &machine{
		t: t, r: r, h: h, dir: dir, clock: NewClock(start), now: start.UnixNano(), saved: start.UnixNano(),
		records: map[string]*modelRecord{}, tokens: []idem.Token{{Key: "a", Fence: 1}, {Key: "b", Fence: math.MaxUint64}},
		o: idem.Options{
			MaxResult: modelMaxResult, SweepInterval: -1, SweepSlice: rapid.IntRange(1, 4).Draw(r, "slice"),
			MaxAttempts: rapid.SampledFrom([]int{0, 1, 3}).Draw(r, "attempts"),
			LapseOnOpen: rapid.Bool().Draw(r, "lapse on open"),
			CacheBytes:  rapid.SampledFrom([]int64{0, -1}).Draw(r, "cache"),
		},
	}
	mkdir(t, dir)
	m.open()
	return m
}

func (m *machine) open() {
	m.opening++
	m.o.Clock, m.o.Stall = m.clock, unbounded(m.o.Stall)
	m.b = m.h.Open(m.t, m.dir)
	s, err := idem.New(m.b, m.o)
	if err != nil {
		m.r.Fatalf("New: %v", err)
	}
	m.s = s
	if m.h.Volatile {
		m.lost = m.wall()
	}
}

func (m *machine) close() {
	if err := m.s.Close(); err != nil {
		m.r.Fatalf("Close: %v", err)
	}
}

func (m *machine) canExpire() bool {
	_, ok := m.b.(engine.Expirer)
	return ok
}

// live returns the record of key that a reader may see, nil if there is none.
func (m *machine) live(key string) *modelRecord {
	if r := m.records[key]; r != nil && m.now < r.expire {
		return r
	}
	return nil
}

func (m *machine) lapsed(r *modelRecord) bool {
	return m.now >= r.lease || m.o.LapseOnOpen && r.opening < m.opening
}

// after returns the time d from now, without overflow.
func (m *machine) after(d time.Duration) int64 {
	if d == idem.Forever || int64(d) > modelNever-m.now {
		return modelNever
	}
	return m.now + int64(d)
}

// inFlightExpiry: a record in flight expires a retention after its lease, or never.
func (r *modelRecord) inFlightExpiry() {
	r.expire = modelNever
	if !r.unknown && r.lease != modelNever && r.retention != idem.Forever && int64(r.retention) <= modelNever-r.lease {
		r.expire = r.lease + int64(r.retention)
	}
}

func (m *machine) drawRequest(r *rapid.T) idem.Request {
	return idem.Request{
		Key:         rapid.SampledFrom(modelKeys).Draw(r, "key"),
		Fingerprint: rapid.SampledFrom([]idem.Fingerprint{{}, printA, printA, printB}).Draw(r, "print"),
		Lease:       rapid.SampledFrom(modelLeases).Draw(r, "lease"),
		Retention:   rapid.SampledFrom(modelTimes).Draw(r, "retention"),
		HoldUnknown: rapid.IntRange(0, 4).Draw(r, "unknown") == 0,
		MaxAttempts: rapid.SampledFrom([]int{0, 0, 0, 2}).Draw(r, "max attempts"),
		IssuedAt:    m.drawIssued(r),
	}
}

// expectClaim returns the answer that a claim must get, and updates the model.
func (m *machine) expectClaim(q idem.Request) error {
	cur := m.live(q.Key)
	same := func() bool { return cur.print == q.Fingerprint || cur.print.IsZero() || q.Fingerprint.IsZero() }
	attempts := m.o.MaxAttempts
	if q.MaxAttempts > 0 {
		attempts = q.MaxAttempts
	}
	next := &modelRecord{
		state: idem.InFlight, print: q.Fingerprint, attempt: 1, opening: m.opening, unknown: q.HoldUnknown,
		ownLease: q.Lease, retention: q.Retention, claimed: m.now, lease: m.after(q.Lease),
	}
	if cur == nil && m.tooLate(q) {
		return idem.ErrTooLate
	}
	if cur != nil && !(cur.state == idem.Released && cur.checkpoint == nil && !cur.bound && !same()) {
		if !same() {
			return idem.ErrMismatch
		}
		switch {
		case cur.state == idem.Completed:
			return idem.ErrCompleted
		case cur.state == idem.Failed:
			return idem.ErrFailed
		case cur.state == idem.Held:
			return idem.ErrHeld
		case cur.state == idem.InFlight && !m.lapsed(cur):
			return idem.ErrInFlight
		case cur.state == idem.InFlight && cur.unknown:
			return idem.ErrHeld
		case attempts > 0 && cur.attempt >= attempts:
			return idem.ErrExhausted
		}
		next.attempt, next.checkpoint, next.result = cur.attempt+1, cur.checkpoint, cur.result
		if next.print.IsZero() {
			next.print = cur.print
		}
	}
	next.inFlightExpiry()
	m.records[q.Key] = next
	return nil
}

// claimed compares the answer of a claim with the expected one.
func (m *machine) claimed(r *rapid.T, q idem.Request, want error, c idem.Claim, err error) {
	if !errors.Is(err, want) || want == nil && err != nil {
		r.Fatalf("Claim of %q: %v, not %v", q.Key, err, want)
	}
	switch {
	case want == nil:
		if c.Token.Fence <= m.fence || c.Token.Key != q.Key {
			r.Fatalf("the token is %v, the highest fence before was %d", c.Token, m.fence)
		}
		m.fence = c.Token.Fence
		m.records[q.Key].fence = m.fence
		m.tokens = append(m.tokens, c.Token)
	case c.Token != idem.Token{}:
		r.Fatalf("a refused claim has token %v", c.Token)
	}
	if want == idem.ErrMismatch || want == idem.ErrTooLate {
		if !isZero(c.Record) {
			r.Fatalf("%v discloses %#v", want, c.Record)
		}
		return
	}
	m.compare(r, q.Key, c.Record)
}

func (m *machine) claim(r *rapid.T) {
	q := m.drawRequest(r)
	c, err := m.s.Claim(context.Background(), q)
	m.claimed(r, q, m.expectClaim(q), c, err)
}

func (m *machine) claimMany(r *rapid.T) {
	qs := rapid.SliceOfN(rapid.Custom(m.drawRequest), 0, 5).Draw(r, "requests")
	for i, a := range m.s.ClaimMany(context.Background(), qs) {
		// Later requests may change the record in the way. They are refused too, unless
		// this one could have changed it.
		m.claimed(r, qs[i], m.expectClaim(qs[i]), a.Claim, a.Err)
	}
}

func (m *machine) forget(r *rapid.T) {
	tok := idem.Token{Key: rapid.SampledFrom(modelKeys).Draw(r, "key")}
	if rapid.Bool().Draw(r, "by token") {
		tok = m.drawToken(r)
	}
	var want error
	if cur := m.live(tok.Key); cur != nil && tok.Fence != 0 && tok.Fence != cur.fence {
		want = idem.ErrFenced
	}
	if err := m.s.Forget(context.Background(), tok); !errors.Is(err, want) || want == nil && err != nil {
		r.Fatalf("Forget of %v: %v, not %v", tok, err, want)
	}
	if cur := m.records[tok.Key]; cur != nil && (tok.Fence == 0 || tok.Fence == cur.fence) {
		delete(m.records, tok.Key)
	}
}

func (m *machine) drawToken(r *rapid.T) idem.Token {
	return m.tokens[len(m.tokens)-1-min(rapid.IntRange(0, 8).Draw(r, "age"), len(m.tokens)-1)]
}

// token uses a token of any age for any operation.
func (m *machine) token(r *rapid.T) {
	ctx := context.Background()
	tok := m.drawToken(r)
	b := rapid.SampledFrom(modelBytes).Draw(r, "bytes")
	over := len(b) > modelMaxResult
	cur := m.live(tok.Key)
	if cur != nil && cur.fence != tok.Fence {
		cur = nil
	}
	open := cur != nil && (cur.state == idem.InFlight || cur.state == idem.Held)
	var got, want error
	want = idem.ErrFenced
	if cur != nil {
		want = map[idem.State]error{
			idem.InFlight: nil, idem.Released: idem.ErrFenced, idem.Held: idem.ErrHeld,
			idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed,
		}[cur.state]
	}
	final := func(state idem.State) {
		if over {
			b = nil
		}
		switch {
		case open:
			cur.state, cur.result, cur.dropped, cur.checkpoint = state, b, over, nil
			cur.done, cur.expire = m.now, m.after(cur.retention)
			want = nil
		case cur != nil && cur.state == state && string(cur.result) == string(b) && cur.dropped == over:
			want = nil
		}
		if over && want == nil {
			want = idem.ErrTooLarge
		}
	}
	op := rapid.SampledFrom([]string{"Complete", "CompleteMany", "Fail", "Release", "Unclaim", "Hold", "Extend", "Checkpoint"}).Draw(r, "op")
	switch op {
	case "Complete":
		got = m.s.Complete(ctx, tok, b)
		final(idem.Completed)
	case "CompleteMany":
		got = m.s.CompleteMany(ctx, []idem.Completion{{Token: tok, Result: b}})[0]
		final(idem.Completed)
	case "Fail":
		got = m.s.Fail(ctx, tok, b)
		final(idem.Failed)
	case "Release":
		if got = m.s.Release(ctx, tok, b); open {
			cur.state, cur.result, cur.expire = idem.Released, cutText(b), m.after(cur.retention)
			want = nil
		} else if cur != nil && cur.state == idem.Released {
			want = nil
		}
	case "Unclaim":
		got = m.s.Unclaim(ctx, tok)
		switch {
		case m.live(tok.Key) == nil, cur != nil && cur.state == idem.Released:
			want = nil
		case want != nil: // another claim's, or settled otherwise
		case cur.attempt == 1 && cur.checkpoint == nil:
			delete(m.records, tok.Key)
		default:
			cur.state, cur.bound, cur.attempt, cur.expire = idem.Released, true, cur.attempt-1, m.after(cur.retention)
		}
	case "Hold":
		if got = m.s.Hold(ctx, tok, b); open {
			if cur.state == idem.InFlight {
				cur.state, cur.result, cur.expire = idem.Held, cutText(b), modelNever
			}
			want = nil
		}
	case "Extend":
		lease := rapid.SampledFrom(append([]time.Duration{0}, modelLeases...)).Draw(r, "lease")
		if got = m.s.Extend(ctx, tok, lease); want == nil {
			if lease == 0 {
				lease = cur.ownLease
			}
			cur.lease, cur.opening = max(cur.lease, m.after(lease)), m.opening
			cur.inFlightExpiry()
		}
	case "Checkpoint":
		if got = m.s.Checkpoint(ctx, tok, b); over {
			want = idem.ErrTooLarge
		} else if want == nil {
			cur.checkpoint = b
		}
	}
	if !errors.Is(got, want) || want == nil && got != nil {
		r.Fatalf("%s of %v: %v, not %v", op, tok, got, want)
	}
}

// cutText returns what is kept of a text for people.
func cutText(b []byte) []byte { return b[:min(len(b), modelMaxResult)] }

// sweep removes expired records in time order. The model cannot tell which ones, only
// that they have expired, and how many there are at most.
func (m *machine) sweep(r *rapid.T) {
	expired := 0
	for key := range m.records {
		if m.live(key) == nil {
			expired++
		}
	}
	limit := rapid.SampledFrom([]int{1, 2, 3, 4, 1000}).Draw(r, "limit")
	removed, err := m.s.Sweep(context.Background(), limit)
	if err != nil {
		r.Fatalf("Sweep: %v", err)
	}
	// The limit counts the records looked at, so a small one may remove less than there
	// is.
	if removed > min(limit, expired) || limit == 1000 && removed != expired {
		r.Fatalf("a sweep of %d removed %d, %d had expired", limit, removed, expired)
	}
	before := len(m.records)
	for key := range m.records {
		e, err := m.b.Read(context.Background(), key)
		if err != nil {
			r.Fatalf("Read: %v", err)
		}
		if e == nil {
			if m.live(key) != nil {
				r.Fatalf("the sweep removed %q, which is live", key)
			}
			delete(m.records, key)
		}
	}
	if gone := before - len(m.records); gone != removed {
		r.Fatalf("a sweep removed %d, and says %d", gone, removed)
	}
}
