package txbackend

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/codec"
)

// requireInStep checks, in what the engine holds, all that docs/FORMAT.md says holds
// between records, index and meta entry.
func requireInStep(t require.TestingT, f *fake) {
	records, index := f.raw(Records), f.raw(Expiry)
	want := map[string]string{}
	var fence, opening uint64
	for key, value := range records {
		e, err := codec.DecodeRecord(key, []byte(value))
		require.NoError(t, err)
		require.Equal(t, e.ExpiresAt == engine.Never, e.Due == 0, "%q: %+v", key, e)
		require.LessOrEqual(t, e.Due, e.ExpiresAt, "%q: %+v", key, e)
		if e.Due != 0 {
			want[string(codec.AppendPlace(nil, engine.Due{At: e.Due, Key: key}))] = ""
		}
		final := e.State == idem.Completed || e.State == idem.Failed
		require.Equal(t, final, e.FinishedAt != 0, "%q: %+v", key, e)
		if final {
			require.Nil(t, e.Checkpoint, "%q", key)
		}
		require.False(t, e.ResultDropped && (!final || e.Result != nil), "%q: %+v", key, e)
		require.False(t, e.Bound && e.State != idem.Released, "%q: %+v", key, e)
		require.False(t, e.State == idem.InFlight && e.Attempt == 1 && e.Result != nil, "%q: a reason from nowhere: %+v", key, e)
		fence, opening = max(fence, e.Fence), max(opening, e.Epoch)
	}
	require.Equal(t, want, index, "the index is not in step with the records")
	if len(records) > 0 {
		m, err := codec.DecodeMeta([]byte(f.raw(Meta)[codec.MetaKey]))
		require.NoError(t, err)
		require.GreaterOrEqual(t, m.Fence, fence)
		require.GreaterOrEqual(t, m.Epoch, opening)
		require.NotZero(t, m.Secret)
	}
}

// script is a random use of a store by one goroutine.
type script struct {
	t      *rapid.T
	f      *fake
	clock  *idemtest.Clock
	s      *idem.Store
	tokens []idem.Token   // ever given out
	time   engine.Instant // of the meta entry, the last time it was seen
}

func (s *script) open() {
	st, err := idem.New(New(s.f), idem.Options{
		Clock: s.clock, SweepInterval: -1, CacheBytes: -1, MaxResult: 64, SweepSlice: 2,
		LapseOnOpen: rapid.Bool().Draw(s.t, "lapse on open"),
	})
	require.NoError(s.t, err)
	s.s = st
}

func (s *script) request() idem.Request {
	durations := func(least time.Duration) *rapid.Generator[time.Duration] {
		return rapid.SampledFrom([]time.Duration{0, least, time.Second, time.Hour, idem.Forever - 1, idem.Forever})
	}
	return idem.Request{
		Key:         rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(s.t, "key"),
		Lease:       durations(time.Millisecond).Draw(s.t, "lease"),
		Retention:   durations(1).Draw(s.t, "retention"),
		HoldUnknown: rapid.Bool().Draw(s.t, "hold unknown"),
	}
}

func (s *script) granted(c idem.Claim, err error) {
	if err == nil {
		s.tokens = append(s.tokens, c.Token)
	}
	s.known(err)
}

// known: an error that is an answer.
func (s *script) known(err error) {
	for _, answer := range []error{
		nil, idem.ErrCompleted, idem.ErrFailed, idem.ErrInFlight, idem.ErrHeld, idem.ErrFenced, idem.ErrTooLarge, errDisk,
	} {
		if err == nil || answer != nil && errors.Is(err, answer) {
			return
		}
	}
	s.t.Fatalf("error %v", err)
}

func (s *script) token() idem.Token {
	if len(s.tokens) == 0 {
		return idem.Token{Key: "a", Fence: 1}
	}
	return rapid.SampledFrom(s.tokens).Draw(s.t, "token")
}

func (s *script) step() {
	result := rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(s.t, "result")
	effect := sameCommit(func(tx *fakeTx) ([]byte, error) { tx.put("x", "y"); return result, nil })
	if rapid.Bool().Draw(s.t, "effect fails") {
		effect = func(tx *fakeTx) ([]byte, error) { tx.put("x", "y"); return nil, errDisk }
	}
	steps := map[string]func(){
		"claim":      func() { s.granted(s.s.Claim(ctx, s.request())) },
		"complete":   func() { s.known(s.s.Complete(ctx, s.token(), result)) },
		"fail":       func() { s.known(s.s.Fail(ctx, s.token(), result)) },
		"release":    func() { s.known(s.s.Release(ctx, s.token(), nil)) },
		"give up":    func() { s.known(s.s.Release(ctx, s.token(), result)) },
		"unclaim":    func() { s.known(s.s.Unclaim(ctx, s.token())) },
		"hold":       func() { s.known(s.s.Hold(ctx, s.token(), result)) },
		"extend":     func() { s.known(s.s.Extend(ctx, s.token(), s.request().Lease)) },
		"checkpoint": func() { s.known(s.s.Checkpoint(ctx, s.token(), result)) },
		"forget":     func() { s.known(s.s.Forget(ctx, idem.Token{Key: s.request().Key})) },
		"sweep": func() {
			_, err := s.s.Sweep(ctx, rapid.IntRange(1, 5).Draw(s.t, "limit"))
			s.known(err)
		},
		"time passes": func() {
			s.clock.Advance(rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second, time.Hour, 25 * time.Hour, 1000 * time.Hour}).Draw(s.t, "time"))
		},
		"wall clock steps": func() {
			s.clock.StepWall(rapid.SampledFrom([]time.Duration{-48 * time.Hour, time.Hour}).Draw(s.t, "step"))
		},
		"claim many": func() {
			for _, r := range s.s.ClaimMany(ctx, []idem.Request{s.request(), s.request(), s.request()}) {
				s.granted(r.Claim, r.Err)
			}
		},
		"complete many": func() {
			cs := []idem.Completion{{Token: s.token(), Result: result}, {Token: s.token()}, {Token: s.token(), Result: []byte{}}}
			for _, err := range s.s.CompleteMany(ctx, cs) {
				s.known(err)
			}
		},
		"do": func() {
			// Without waiting: what is in flight would be waited for.
			r := s.request()
			if rec, err := s.s.Get(ctx, r.Key); err == nil && rec.State == idem.InFlight {
				return
			}
			_, _, err := s.s.DoEffect(ctx, r, effect)
			s.known(err)
		},
		"complete with effect": func() { s.known(s.s.CompleteEffect(ctx, s.token(), effect)) },
		"close and reopen": func() {
			require.NoError(s.t, s.s.Close())
			s.open()
		},
		"crash and reopen": func() {
			left := s.f.left()
			require.NoError(s.t, s.s.Close())
			s.f = left
			s.open()
		},
	}
	steps[rapid.SampledFrom(slices.Sorted(maps.Keys(steps))).Draw(s.t, "step")]()
}

func (s *script) check() {
	requireInStep(s.t, s.f)
	if value, ok := s.f.raw(Meta)[codec.MetaKey]; ok {
		m, err := codec.DecodeMeta([]byte(value))
		require.NoError(s.t, err)
		require.GreaterOrEqual(s.t, m.Time, s.time, "store time went back")
		s.time = m.Time
	}
}

// After every operation of any sequence the index has exactly one place for each
// record that can expire, and no other; and in the end, when time has passed, sweeps
// leave what never expires and nothing else.
func TestIndexStaysInStep(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := &script{t: rt, f: newFake(), clock: idemtest.NewClock(begun)}
		s.f.savepoints = rapid.Bool().Draw(rt, "savepoints")
		s.open()
		defer func() { require.NoError(rt, s.s.Close()) }()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			s.step()
			s.check()
		}
		s.clock.Advance(100 * 365 * 24 * time.Hour)
		_, err := s.s.Sweep(ctx, 1000)
		require.NoError(rt, err)
		s.check()
		stats, err := s.s.Stats(ctx)
		require.NoError(rt, err)
		require.Zero(rt, stats.Expired, "expired and not swept")
		require.Len(rt, s.f.raw(Expiry), len(s.f.raw(Records))-forever(rt, s.f))
	})
}

// forever counts the records that never expire.
func forever(t require.TestingT, f *fake) (n int) {
	for key, value := range f.raw(Records) {
		e, err := codec.DecodeRecord(key, []byte(value))
		require.NoError(t, err)
		if e.ExpiresAt == engine.Never {
			n++
		}
	}
	return n
}
