package idemtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// contractCases look at the engine directly, without the store.
var contractCases = []testCase{
	{"Backend keeps every field", everyField},
	{"Backend runs ops of a commit in order", opsInOrder},
	{"Backend calls Committed in the order of Run", committedInOrder},
	{"Backend is bound once", boundOnce},
	{"Open locks", openLocks},
	{"Backend keeps Meta", metaKept},
	{"Backend tells of each commit", groupsTold},
	{"Backend heeds a ctx that ended", ctxEnded},
	{"reads and refusals make no commit", noCommit},
	{"Scanner returns each entry once", scanOnce},
	{"Expirer keeps the order of Due", expiringOrder},
}

func everyField(t *testing.T, e *env) {
	e.open(idem.Options{MaxResult: 1000})
	want := map[string]*engine.Entry{}
	now := engine.Instant(start.UnixNano())
	put := func(key string, entry engine.Entry) {
		t.Helper()
		entry.Epoch, entry.Attempt, entry.ClaimedAt = 1, 1, now
		got := e.entry(key)
		require.NotNil(t, got, key)
		entry.Fence = got.Fence
		require.NotZero(t, entry.Fence)
		require.Equal(t, &entry, got, key)
		want[key] = got
	}
	claim := func(key string, r idem.Request) idem.Token {
		r.Key = key
		return e.claim(r).Token
	}
	const lease, retention = time.Minute + 1, time.Hour + 1
	until, gone := now+engine.Instant(lease), now+engine.Instant(retention)
	r := idem.Request{Lease: lease, Retention: retention, Fingerprint: printA}
	open := engine.Entry{
		State: idem.InFlight, Fingerprint: printA, LeaseUntil: until, Lease: lease, Retention: retention,
		ExpiresAt: until + engine.Instant(retention), Due: gone,
	}

	claim("in flight", r)
	put("in flight", open)
	held := r
	held.HoldUnknown, held.Fingerprint = true, idem.Fingerprint{}
	claim("unknown", held)
	entry := open
	entry.HoldUnknown, entry.ExpiresAt, entry.Due, entry.Fingerprint = true, engine.Never, 0, idem.Fingerprint{}
	put("unknown", entry)
	forever := r
	forever.Retention = idem.Forever
	claim("forever", forever)
	entry = open
	entry.ExpiresAt, entry.Due, entry.Retention = engine.Never, 0, idem.Forever
	put("forever", entry)

	for name, p := range map[string][]byte{"nil": nil, "empty": {}, "bytes": []byte("\x00p\xff")} {
		tok := claim("checkpoint "+name, r)
		require.NoError(t, e.s.Checkpoint(e.ctx, tok, p))
		entry = open
		entry.Checkpoint = p
		put("checkpoint "+name, entry)

		tok = claim("held "+name, r)
		require.NoError(t, e.s.Checkpoint(e.ctx, tok, p))
		require.NoError(t, e.s.Hold(e.ctx, tok, p))
		entry = open
		entry.State, entry.Checkpoint, entry.Result, entry.ExpiresAt, entry.Due = idem.Held, p, p, engine.Never, 0
		put("held "+name, entry)

		tok = claim("released "+name, r)
		require.NoError(t, e.s.Checkpoint(e.ctx, tok, p))
		require.NoError(t, e.s.Release(e.ctx, tok, p))
		entry = open
		entry.State, entry.Checkpoint, entry.Result, entry.ExpiresAt = idem.Released, p, p, gone
		put("released "+name, entry)

		require.NoError(t, e.s.Release(e.ctx, claim("undone "+name, r), p))
		require.NoError(t, e.s.Unclaim(e.ctx, claim("undone "+name, r)))
		entry.Checkpoint, entry.Bound = nil, true
		put("undone "+name, entry)

		require.NoError(t, e.s.Complete(e.ctx, claim("completed "+name, r), p))
		entry = open
		entry.State, entry.Result, entry.FinishedAt, entry.ExpiresAt = idem.Completed, p, now, gone
		put("completed "+name, entry)

		require.NoError(t, e.s.Fail(e.ctx, claim("failed "+name, r), p))
		entry.State = idem.Failed
		put("failed "+name, entry)
	}
	require.ErrorIs(t, e.s.Complete(e.ctx, claim("dropped", r), make([]byte, 1001)), idem.ErrTooLarge)
	entry = open
	entry.State, entry.ResultDropped, entry.FinishedAt, entry.ExpiresAt = idem.Completed, true, now, gone
	put("dropped", entry)
	for range 300 { // more attempts than fit in a byte
		require.NoError(t, e.s.Release(e.ctx, claim("attempts", r), nil))
	}
	want["attempts"] = e.entry("attempts")
	require.Equal(t, uint32(300), want["attempts"].Attempt)

	check := func() {
		t.Helper()
		for key, entry := range want {
			require.Equal(t, entry, e.entry(key), key)
		}
		if !e.canScan() {
			return
		}
		found := 0
		for cursor := ""; ; {
			page, next, err := e.scanner().Scan(e.ctx, "", cursor)
			require.NoError(t, err)
			for _, sc := range page {
				require.NoError(t, sc.Err)
				require.Equal(t, want[sc.Key], sc.Entry, "listed %q", sc.Key)
				found++
			}
			if next == "" {
				break
			}
			cursor = next
		}
		require.Len(t, want, found)
	}
	check()
	if !e.h.Volatile {
		e.reopen()
		check()
		e.reopen()
		check()
	}
	e.clock.Advance(1000 * time.Hour)
	check() // expired entries are read like any others
}

func opsInOrder(t *testing.T, e *env) {
	e.open(idem.Options{})
	for round := range 5 {
		key := fmt.Sprint("k", round)
		c := e.s.ClaimMany(e.ctx, []idem.Request{{Key: key}, {Key: key}, {Key: "other " + key}, {Key: key}})
		require.NoError(t, c[0].Err, "the first is granted")
		require.ErrorIs(t, c[1].Err, idem.ErrInFlight, "the second sees it")
		require.NoError(t, c[2].Err)
		require.ErrorIs(t, c[3].Err, idem.ErrInFlight)
		tok, other := c[0].Token, c[2].Token
		require.Greater(t, other.Fence, tok.Fence)
		done := e.s.CompleteMany(e.ctx, []idem.Completion{
			{Token: other, Result: []byte("1")},
			{Token: tok, Result: []byte("2")},
			{Token: tok, Result: []byte("3")},
			{Token: other, Result: []byte("4")},
			{Token: other, Result: []byte("1")},
		})
		require.NoError(t, done[0])
		require.NoError(t, done[1])
		require.ErrorIs(t, done[2], idem.ErrCompleted)
		require.ErrorIs(t, done[3], idem.ErrCompleted)
		require.NoError(t, done[4])
		require.Equal(t, "2", string(e.get(key).Result))
		require.Equal(t, "1", string(e.get("other "+key).Result))
	}
}

// committedInOrder: the store keeps what the last Committed of a key says.
func committedInOrder(t *testing.T, e *env) {
	e.open(idem.Options{})
	var committed []uint32
	var ops []engine.Op
	for attempt := uint32(1); attempt <= 5; attempt++ {
		for _, key := range []string{"k", fmt.Sprint("other ", attempt)} {
			entry := &engine.Entry{State: idem.InFlight, Attempt: attempt, Fence: uint64(attempt), Epoch: 1, ExpiresAt: engine.Never}
			ops = append(ops, &settingOp{key: key, entry: entry, committed: func() {
				if key == "k" {
					committed = append(committed, attempt)
				}
			}})
		}
	}
	require.NoError(t, e.backend.Apply(e.ctx, ops))
	require.Equal(t, uint32(5), e.entry("k").Attempt, "the last op's entry stays")
	require.Equal(t, []uint32{1, 2, 3, 4, 5}, committed)
}

// settingOp is an Op of the suite's own: it sets the entry of its key, whatever is there.
type settingOp struct {
	key       string
	entry     *engine.Entry
	committed func()
}

func (o *settingOp) Key() string                                    { return o.key }
func (o *settingOp) Size() int                                      { return 0 }
func (o *settingOp) Due() engine.Instant                            { return 0 }
func (o *settingOp) Current() (e *engine.Entry, known bool)         { return nil, false }
func (o *settingOp) Run(*engine.Entry, error) (*engine.Entry, bool) { return o.entry, true }
func (o *settingOp) Grants() bool                                   { return false }
func (o *settingOp) Refuse(error)                                   {}
func (o *settingOp) Effect() any                                    { return nil }
func (o *settingOp) Finish([]byte, error) (*engine.Entry, bool)     { return o.entry, true }
func (o *settingOp) Committed()                                     { o.committed() }

func boundOnce(t *testing.T, e *env) {
	e.open(idem.Options{})
	c := e.claim(idem.Request{Key: "k"})
	_, err := idem.New(e.backend, idem.Options{Clock: e.clock})
	require.ErrorIs(t, err, idem.ErrInvalid, "in use by another store")
	require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("r")), "which it does not harm")
	e.close()

	e.dir = t.TempDir()
	b := e.h.Open(t, e.dir)
	_, err = idem.New(b, idem.Options{Lease: -1})
	require.ErrorIs(t, err, idem.ErrInvalid)
	e.openWith(idem.Options{}, b) // still the caller's, and usable
	e.claim(idem.Request{Key: "k"})

	e.dir = t.TempDir()
	b = e.h.Open(t, e.dir)
	e.within("Close of an engine never bound", func() { require.NoError(t, b.Close()) })
	b = e.h.Open(t, e.dir)
	e.openWith(idem.Options{}, b)
	e.absent("k")
}

func openLocks(t *testing.T, e *env) {
	e.durable()
	require.NotNil(t, e.h.OpenAgain, "Harness.OpenAgain is nil: opening locks, and the suite has to see it")
	b := e.h.Open(t, e.dir)
	require.ErrorIs(t, e.h.OpenAgain(t, e.dir), idem.ErrLocked, "before a store has it")
	e.openWith(idem.Options{}, b)
	c := e.claim(idem.Request{Key: "k"})
	require.ErrorIs(t, e.h.OpenAgain(t, e.dir), idem.ErrLocked)
	require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("r")), "which it does not harm")
	e.close()
	require.NoError(t, e.h.OpenAgain(t, e.dir), "Close unlocks")
	e.open(idem.Options{})
	require.Equal(t, []byte("r"), e.refused(idem.ErrCompleted, idem.Request{Key: "k"}).Result)
	e.close()
}

func metaKept(t *testing.T, e *env) {
	const lost int64 = 1234567890123456789
	e.durable()
	s := e.spied()
	s.meta = func(m engine.Meta) engine.Meta { m.LostUntil, m.Importing = lost, true; return m }
	importing := false
	s.bound = func(m engine.Meta) engine.Meta {
		importing, m.Importing = m.Importing, false // or the store would grant nothing
		return m
	}
	e.open(idem.Options{})
	require.Zero(t, s.saved, "a new store has saved nothing")
	fence, secret := uint64(0), [16]byte{}
	for opening := range uint64(4) {
		e.clock.Advance(time.Minute)
		e.clock.StepWall(time.Duration(opening) * time.Hour)
		fence = e.claim(idem.Request{Key: fmt.Sprint("k", opening)}).Token.Fence
		e.clock.Advance(time.Second)
		wall, elapsed := e.clock.Now()
		e.reopen()
		require.Equal(t, opening+1, s.saved.Epoch)
		require.Equal(t, fence, s.saved.Fence, "the highest granted")
		require.Equal(t, wall.UnixNano(), s.saved.Wall, "as it was when Close was called")
		require.Equal(t, engine.Instant(start.UnixNano()+int64(elapsed)), s.saved.Time, "store time, at the same instant")
		require.EqualValues(t, lost, s.saved.LostUntil)
		require.True(t, importing)
		require.NotZero(t, s.saved.Secret)
		if opening > 0 {
			require.Equal(t, secret, s.saved.Secret, "drawn once")
		}
		secret = s.saved.Secret
	}
	if e.h.Crash == nil {
		return
	}
	wall, elapsed := e.clock.Now()
	fence = e.claim(idem.Request{Key: "last"}).Token.Fence
	e.clock.Advance(time.Hour)
	e.crash()
	require.Equal(t, fence, s.saved.Fence, "saved with the commit")
	require.Equal(t, uint64(5), s.saved.Epoch)
	require.Equal(t, wall.UnixNano(), s.saved.Wall)
	require.Equal(t, engine.Instant(start.UnixNano()+int64(elapsed)), s.saved.Time)
}

func groupsTold(t *testing.T, e *env) {
	e.durable()
	const n = 12
	o := idem.Options{}
	events := watch(&o, idem.CommitDone)
	e.open(o)
	for i := range n {
		e.claim(idem.Request{Key: fmt.Sprint("k", i)})
		ev := e.next("commit", events)
		require.Equal(t, 1, ev.Count, "a lone caller waits for nobody")
		require.GreaterOrEqual(t, ev.Duration, time.Duration(0))
	}
	e.s.ClaimMany(e.ctx, []idem.Request{{Key: "a"}, {Key: "b"}, {Key: "c"}})
	require.Equal(t, 3, e.next("commit", events).Count)
	e.together(n, func(i int) { _, _ = e.s.Claim(e.ctx, idem.Request{Key: fmt.Sprint("many", i)}) })
	for told := 0; told < n; {
		told += e.next("commit", events).Count
		require.LessOrEqual(t, told, n, "each operation is counted once")
	}
}

func ctxEnded(t *testing.T, e *env) {
	e.open(idem.Options{})
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if e.canScan() {
		_, _, err := e.scanner().Scan(ctx, "", "")
		require.ErrorIs(t, err, context.Canceled, "Scan")
	}
	if e.canExpire() {
		_, err := e.expirer().Expiring(ctx, engine.Due{}, engine.Never, 10)
		require.ErrorIs(t, err, context.Canceled, "Expiring")
	}
	// The store checks ctx before it calls Apply. End ctx in between.
	e.dir = t.TempDir()
	between := &cancelBetween{}
	e.wrap = func(b engine.Backend) engine.Backend { between.Backend = b; return between }
	e.open(idem.Options{})
	tok := e.claim(idem.Request{Key: "k"}).Token
	before := e.entry("k")
	for range 20 {
		ctx, between.cancel = context.WithCancel(e.ctx)
		_, err := e.s.Claim(ctx, idem.Request{Key: "new"})
		require.ErrorIs(t, err, context.Canceled)
		ctx, between.cancel = context.WithCancel(e.ctx)
		require.ErrorIs(t, e.s.Checkpoint(ctx, tok, []byte("p")), context.Canceled)
	}
	between.cancel = nil
	require.Equal(t, before, e.entry("k"))
	e.absent("new")
}

// cancelBetween is an engine whose callers cancel just before Apply.
type cancelBetween struct {
	engine.Backend
	cancel context.CancelFunc
}

func (b *cancelBetween) Apply(ctx context.Context, ops []engine.Op) error {
	if b.cancel != nil {
		b.cancel()
	}
	return b.Backend.Apply(ctx, ops)
}

func noCommit(t *testing.T, e *env) {
	s := e.spied()
	e.open(idem.Options{Lease: time.Second, MaxAttempts: 1})
	for _, key := range []string{"open", "completed", "failed", "held", "exhausted", "unknown"} {
		e.claim(idem.Request{Key: key, Fingerprint: printA, HoldUnknown: key == "unknown"})
	}
	token := func(key string) idem.Token { return e.get(key).Token() }
	require.NoError(t, e.s.Complete(e.ctx, token("completed"), nil))
	require.NoError(t, e.s.Fail(e.ctx, token("failed"), nil))
	require.NoError(t, e.s.Hold(e.ctx, token("held"), nil))
	require.NoError(t, e.s.Release(e.ctx, token("exhausted"), nil))
	s.takeApplies()
	e.refused(idem.ErrInFlight, idem.Request{Key: "open"})
	e.clock.Advance(time.Second)
	for key, want := range map[string]error{
		"open": idem.ErrExhausted, "completed": idem.ErrCompleted, "failed": idem.ErrFailed,
		"held": idem.ErrHeld, "exhausted": idem.ErrExhausted, "unknown": idem.ErrHeld,
	} {
		e.refused(want, idem.Request{Key: key})
		if key != "exhausted" { // released without a checkpoint: free for another request
			e.refused(idem.ErrMismatch, idem.Request{Key: key, Fingerprint: printB})
		}
		e.get(key)
		_, err := e.s.Wait(e.ctx, key)
		require.NoError(t, err)
	}
	e.absent("absent")
	if e.canScan() {
		require.Len(t, e.records(idem.Filter{}), 6)
		_ = e.stats()
	}
	if e.canExpire() {
		require.Zero(t, e.sweepAll())
	}
	require.Empty(t, s.takeApplies())
}
