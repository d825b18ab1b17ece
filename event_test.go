package idem_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// recorder is an Observer that keeps what it is told, and on which goroutine.
type recorder struct {
	mu         sync.Mutex
	events     []idem.Event
	goroutines []string
}

func (r *recorder) observe(_ context.Context, e idem.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	r.goroutines = append(r.goroutines, goroutine())
}

// take returns the events since the last take.
func (r *recorder) take() []idem.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.events
	r.events, r.goroutines = nil, nil
	return out
}

func goroutine() string {
	b := make([]byte, 64)
	b = b[:runtime.Stack(b, false)]
	name, _, _ := bytes.Cut(b, []byte(" ["))
	return string(name)
}

func kinds(events []idem.Event) string {
	var names []string
	for _, e := range events {
		names = append(names, e.Kind.String())
	}
	return strings.Join(names, " ")
}

var (
	printA = idem.FingerprintOf([]byte("a"))
	printB = idem.FingerprintOf([]byte("b"))
)

// Each operation sends these events and no others, on an engine with a cache and
// commits.
func TestEvents(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	told := new(recorder)
	s := open(t, storetest.Rich{Stub: b}, idem.Options{
		Clock: clock, Observer: told.observe, SweepInterval: -1,
		Lease: time.Minute, Retention: time.Hour, MaxAttempts: 2, MaxResult: 10,
	})
	ctx := t.Context()
	var c idem.Claim
	claim := func(r idem.Request) func() error {
		return func() (err error) {
			var got idem.Claim
			if got, err = s.Claim(ctx, r); err == nil {
				c = got
			}
			return err
		}
	}
	request := idem.Request{Key: "k", Fingerprint: printA}
	get := func() error { _, err := s.Get(ctx, "k"); return err }
	sweep := func() error { _, err := s.Sweep(ctx, 10); return err }
	pass := func(d time.Duration) func() error { return func() error { clock.Advance(d); return nil } }
	for i, step := range []struct {
		name string
		do   func() error
		err  error
		want string
	}{
		{"read, absent", get, idem.ErrNotFound, "cache_miss"},
		{"granted", claim(request), nil, "cache_miss commit_done claim_granted"},
		{"in flight", claim(request), idem.ErrInFlight, "cache_miss claim_in_flight"},
		{"mismatch", claim(idem.Request{Key: "k", Fingerprint: printB}), idem.ErrMismatch, "cache_miss claim_mismatch"},
		{"extended", func() error { return s.Extend(ctx, c.Token, 0) }, nil, "commit_done lease_extended"},
		{"saved", func() error { return s.Checkpoint(ctx, c.Token, []byte("p")) }, nil, "commit_done checkpoint_saved"},
		{"too large to save", func() error { return s.Checkpoint(ctx, c.Token, make([]byte, 11)) }, idem.ErrTooLarge, ""},
		{"stale token", func() error { return s.Release(ctx, idem.Token{Key: "k", Fence: 1}, nil) }, idem.ErrFenced, "token_refused"},
		{"released", func() error { return s.Release(ctx, c.Token, nil) }, nil, "commit_done operation_released"},
		{"released again", func() error { return s.Release(ctx, c.Token, nil) }, nil, ""},
		{"granted again", claim(request), nil, "cache_miss commit_done claim_granted"},
		{"", pass(time.Minute), nil, ""},
		{"exhausted", claim(request), idem.ErrExhausted, "cache_miss claim_exhausted"},
		{"held", func() error { return s.Hold(ctx, c.Token, nil) }, nil, "commit_done operation_held"},
		{"held again", func() error { return s.Hold(ctx, c.Token, nil) }, nil, ""},
		{"extended, held", func() error { return s.Extend(ctx, c.Token, 0) }, idem.ErrHeld, ""},
		{"claim of held", claim(request), idem.ErrHeld, "cache_miss claim_held"},
		{"completed", func() error { return s.Complete(ctx, c.Token, []byte("r")) }, nil, "commit_done operation_completed"},
		{"completed again", func() error { return s.Complete(ctx, c.Token, []byte("r")) }, nil, ""},
		{"completed otherwise", func() error { return s.Complete(ctx, c.Token, nil) }, idem.ErrCompleted, ""},
		{"replayed", claim(request), idem.ErrCompleted, "cache_miss claim_replayed"},
		{"read, cached", get, nil, "cache_hit"},
		{"forgotten", func() error { return s.Forget(ctx, idem.Token{Key: "k"}) }, nil, "commit_done record_forgotten"},
		{"forgotten again", func() error { return s.Forget(ctx, idem.Token{Key: "k"}) }, nil, ""},
		{"granted anew", claim(request), nil, "cache_miss commit_done claim_granted"},
		{"", pass(time.Minute), nil, ""},
		{"taken over", claim(request), nil, "cache_miss commit_done claim_takeover"},
		{"failed", func() error { return s.Fail(ctx, c.Token, []byte("why")) }, nil, "commit_done operation_failed"},
		{"claim of failed", claim(request), idem.ErrFailed, "cache_miss claim_failed"},
		{"swept, nothing due", sweep, nil, ""},
		{"", pass(2 * time.Hour), nil, ""},
		{"swept", sweep, nil, "commit_done sweep_done"},
		{"too large a result", func() error {
			if err := claim(request)(); err != nil {
				return err
			}
			return s.Complete(ctx, c.Token, make([]byte, 11))
		}, idem.ErrTooLarge, "cache_miss commit_done claim_granted commit_done operation_completed"},
		{"granted and completed in one", func() error {
			_, _, err := s.DoEffect(ctx, idem.Request{Key: "effect"}, saying("r"))
			return err
		}, nil, "cache_miss commit_done claim_granted operation_completed"},
		{"completed with an effect", func() error {
			if err := claim(idem.Request{Key: "other"})(); err != nil {
				return err
			}
			return s.CompleteEffect(ctx, c.Token, saying("r"))
		}, nil, "cache_miss commit_done claim_granted commit_done operation_completed"},
		{"taken over and completed in one", func() error {
			if err := claim(idem.Request{Key: "lapsed"})(); err != nil {
				return err
			}
			clock.Advance(time.Minute)
			_, _, err := s.DoEffect(ctx, idem.Request{Key: "lapsed"}, saying("r"))
			return err
		}, nil, "cache_miss commit_done claim_granted cache_miss commit_done claim_takeover operation_completed"},
		{"refused by an invalid request", claim(idem.Request{}), idem.ErrInvalid, ""},
		{"full", func() error {
			b.Refuse = func(string) error { return fmt.Errorf("%w: no room", idem.ErrFull) }
			defer func() { b.Refuse = nil }()
			return claim(idem.Request{Key: "new"})()
		}, idem.ErrFull, "cache_miss claim_full"},
		{"corrupt", func() error {
			b.Damage("bad")
			return claim(idem.Request{Key: "bad"})()
		}, idem.ErrCorrupt, "cache_miss"},
		{"sweep fails", func() error {
			b.OnScan = func(string) error { return idem.ErrCorrupt }
			defer func() { b.OnScan = nil }()
			return sweep()
		}, idem.ErrCorrupt, "sweep_failed"},
		{"broken", func() error {
			b.OnCommit = func() error { return storetest.ErrDisk }
			return claim(idem.Request{Key: "new"})()
		}, storetest.ErrDisk, "cache_miss store_broken"},
		{"broken, told once", get, idem.ErrBroken, ""},
		{"closed", s.Close, nil, ""},
		{"closed, asked", get, idem.ErrClosed, ""},
	} {
		err := step.do()
		require.ErrorIs(t, err, step.err, "step %d: %s", i, step.name)
		require.Equal(t, step.want, kinds(told.take()), "step %d: %s", i, step.name)
	}
}

func TestEventFields(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	told := new(recorder)
	s := open(t, storetest.Rich{Stub: b}, idem.Options{
		Clock: clock, Observer: told.observe, SweepInterval: -1, CacheBytes: -1, Lease: time.Minute, Retention: time.Hour,
	})
	ctx := t.Context()
	hash := s.KeyHash("k")
	commit := idem.Event{Kind: idem.CommitDone, Count: 1, Duration: time.Millisecond}

	mustClaim(t, s, k)
	clock.Advance(time.Minute)
	c := mustClaim(t, s, k)
	fence := c.Token.Fence
	require.Equal(t, []idem.Event{
		commit,
		{Kind: idem.ClaimGranted, KeyHash: hash, Fence: fence - 1, Attempt: 1},
		commit,
		{Kind: idem.ClaimTakeover, KeyHash: hash, Fence: fence, Attempt: 2},
	}, told.take())

	clock.Advance(3 * time.Second)
	require.NoError(t, s.Extend(ctx, c.Token, 0))
	_, err := s.Claim(ctx, k)
	require.Equal(t, idem.ErrInFlight, err)
	require.Equal(t, idem.ErrFenced, s.Complete(ctx, idem.Token{Key: "k", Fence: 5}, nil))
	require.NoError(t, s.Complete(ctx, c.Token, nil))
	require.Equal(t, []idem.Event{
		commit,
		{Kind: idem.LeaseExtended, KeyHash: hash, Fence: fence, Attempt: 2},
		{Kind: idem.ClaimInFlight, KeyHash: hash, Fence: fence, Attempt: 2},
		{Kind: idem.TokenRefused, KeyHash: hash, Fence: 5},
		commit,
		{Kind: idem.OperationCompleted, KeyHash: hash, Fence: fence, Attempt: 2, Duration: 3 * time.Second},
	}, told.take(), "a settlement tells how long the claim was open")

	_, err = s.Claim(ctx, idem.Request{Key: "k", Fingerprint: printA})
	require.Equal(t, idem.ErrCompleted, err)
	mustClaim(t, s, idem.Request{Key: "print", Fingerprint: printA})
	told.take()
	_, err = s.Claim(ctx, idem.Request{Key: "print", Fingerprint: printB})
	require.Equal(t, idem.ErrMismatch, err)
	require.Equal(t, []idem.Event{{Kind: idem.ClaimMismatch, KeyHash: s.KeyHash("print")}}, told.take(), "nothing of the other request")

	mustClaim(t, s, idem.Request{Key: "bad"})
	told.take()
	clock.Advance(2 * time.Hour)
	b.Damage("bad")
	n, err := s.Sweep(ctx, 10)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	swept := told.take()
	require.Equal(t, idem.Event{Kind: idem.CommitDone, Count: 3, Duration: time.Millisecond}, swept[0])
	require.Equal(t, idem.Event{Kind: idem.SweepDone, Count: 2, Corrupt: 1, Duration: time.Hour}, swept[1], "the lag is that of the first to expire")

	b.OnCommit = func() error { return storetest.ErrDisk }
	_, err = s.Claim(ctx, k)
	require.ErrorIs(t, err, storetest.ErrDisk)
	require.ErrorIs(t, told.take()[0].Err, storetest.ErrDisk)
}

// ClaimMany and CompleteMany tell each of their operations.
func TestEventsOfBatches(t *testing.T) {
	t.Parallel()
	told := new(recorder)
	s := open(t, memory.New(memory.Options{}), idem.Options{Observer: told.observe})
	results := s.ClaimMany(t.Context(), []idem.Request{{Key: "a"}, {Key: "a"}, {}, {Key: "b"}})
	assert.Equal(t, "claim_granted claim_in_flight claim_granted", kinds(told.take()), "a memory engine has no commits and no cache")
	s.CompleteMany(t.Context(), []idem.Completion{{Token: results[0].Token}, {Token: results[0].Token}, {}, {Token: idem.Token{Key: "b", Fence: 1}}})
	assert.Equal(t, "operation_completed token_refused", kinds(told.take()))
}

// Events come on the goroutine that did the thing.
func TestEventsComeOnTheCallersGoroutine(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	told := new(recorder)
	clock := newClock()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{Observer: told.observe, SweepInterval: -1, Clock: clock})
	ctx := t.Context()
	c := mustClaim(t, s, k)
	_, _ = s.Claim(ctx, k)
	require.NoError(t, s.Extend(ctx, c.Token, 0))
	require.NoError(t, s.Complete(ctx, c.Token, nil))
	_, _ = s.Claim(ctx, k)
	_, _ = s.Claim(ctx, k)
	_ = s.Release(ctx, idem.Token{Key: "k", Fence: 1}, nil)
	require.NoError(t, s.Forget(ctx, idem.Token{Key: "k"}))
	mustClaim(t, s, k)
	clock.Advance(100 * time.Hour)
	_, err := s.Sweep(ctx, 1)
	require.NoError(t, err)

	me := goroutine()
	seen := map[idem.EventKind]bool{}
	for i, e := range told.events {
		if seen[e.Kind] = true; e.Kind != idem.CommitDone {
			assert.Equal(t, me, told.goroutines[i], "%s", e.Kind)
		}
	}
	for _, kind := range []idem.EventKind{
		idem.ClaimGranted, idem.ClaimInFlight, idem.ClaimReplayed, idem.LeaseExtended, idem.OperationCompleted,
		idem.TokenRefused, idem.RecordForgotten, idem.CacheHit, idem.CacheMiss, idem.SweepDone,
	} {
		assert.True(t, seen[kind], "%s", kind)
	}
}

// Keys, results and fingerprints never appear in an event.
func TestEventsDiscloseNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.StringMatching(`[a-zA-Z0-9/_-]{14,40}`).Draw(rt, "key")
		payload := rapid.StringMatching(`[a-z]{20}`).Draw(rt, "payload")
		var told []idem.Event
		b := storetest.NewStub()
		clock := newClock()
		s, err := idem.New(storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1, MaxResult: 100, Observer: func(_ context.Context, e idem.Event) { told = append(told, e) }})
		require.NoError(rt, err)
		defer func() { _ = s.Close() }()
		ctx := context.Background()
		r := idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte(payload))}
		c, _ := s.Claim(ctx, r)
		_ = s.Checkpoint(ctx, c.Token, []byte(payload))
		_, _ = s.Claim(ctx, r)
		_ = s.Hold(ctx, c.Token, []byte(payload))
		_ = s.Fail(ctx, c.Token, []byte(payload))
		_, _ = s.Claim(ctx, r)
		_ = s.Forget(ctx, idem.Token{Key: key})
		c, _ = s.Claim(ctx, r)
		_ = s.Complete(ctx, idem.Token{Key: key, Fence: 1}, []byte(payload))
		clock.Advance(1000 * time.Hour)
		b.Damage(key)
		_, _ = s.Sweep(ctx, 10)
		b.Breaking.Store(true)
		_ = s.Forget(ctx, idem.Token{Key: key})
		require.Greater(rt, len(told), 10)
		for _, e := range told {
			text := fmt.Sprintf("%v %+v %#v %v", e, e, e, e.Err)
			for _, secret := range []string{key, payload, fmt.Sprint(r.Fingerprint)} {
				if strings.Contains(text, secret) {
					rt.Fatalf("%s discloses %q", text, secret)
				}
			}
		}
	})
}

// Nothing is built when nobody looks: a replay and a read allocate nothing.
func TestNoAllocationWithoutObserver(t *testing.T) {
	ctx := context.Background()
	for name, b := range map[string]engine.Backend{"memory": memory.New(memory.Options{}), "cached": storetest.NewStub()} {
		s := open(t, b, idem.Options{SweepInterval: -1})
		c := mustClaim(t, s, k)
		require.NoError(t, s.Complete(ctx, c.Token, []byte("r")))
		assert.Zero(t, testing.AllocsPerRun(200, func() {
			if _, err := s.Claim(ctx, k); err != idem.ErrCompleted {
				panic(err)
			}
		}), "Claim, %s", name)
		assert.Zero(t, testing.AllocsPerRun(200, func() {
			if _, err := s.Get(ctx, "k"); err != nil {
				panic(err)
			}
		}), "Get, %s", name)
	}
}

func TestEventKinds(t *testing.T) {
	t.Parallel()
	duplicates := []idem.EventKind{idem.ClaimReplayed, idem.ClaimInFlight, idem.ClaimFailed, idem.ClaimHeld, idem.ClaimExhausted}
	names := map[string]bool{}
	for kind := idem.EventKind(0); kind <= idem.StoreBroken; kind++ {
		name := kind.String()
		assert.Regexp(t, `^[a-z]+(_[a-z]+)*$`, name)
		assert.False(t, names[name], "%s twice", name)
		names[name] = true
		assert.Equal(t, slices.Contains(duplicates, kind), kind.Duplicate(), name)
	}
	assert.Equal(t, "claim_granted", idem.ClaimGranted.String())
	assert.Equal(t, "store_broken", idem.StoreBroken.String())
	assert.Equal(t, "unknown", (idem.StoreBroken + 1).String())
	assert.False(t, (idem.StoreBroken + 1).Duplicate())
}
