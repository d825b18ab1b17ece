package txbackend

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/formattest"
)

// commitsOf returns how many commits fn makes.
func (e *env) commitsOf(fn func()) int {
	before, _, _ := e.fake.counts()
	fn()
	after, _, _ := e.fake.counts()
	return after - before
}

// What changes nothing costs no commit, and is not told as one.
func TestNothingChangedNoCommit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	done := e.completed("done", "r")
	held := e.claim("held")
	require.NoError(t, e.s.Hold(ctx, held, nil))
	stats := e.stats()
	for name, c := range map[string]struct {
		call func() error
		want error
	}{
		"complete again":    {func() error { return e.s.Complete(ctx, done, []byte("r")) }, nil},
		"complete, other":   {func() error { return e.s.Complete(ctx, done, []byte("x")) }, idem.ErrCompleted},
		"hold again":        {func() error { return e.s.Hold(ctx, held, nil) }, nil},
		"extend held":       {func() error { return e.s.Extend(ctx, held, 0) }, idem.ErrHeld},
		"stale token":       {func() error { return e.s.Fail(ctx, idem.Token{Key: "done", Fence: 1}, nil) }, idem.ErrFenced},
		"token of no key":   {func() error { return e.s.Release(ctx, idem.Token{Key: "none", Fence: 1}, nil) }, idem.ErrFenced},
		"claim a completed": {func() error { _, err := e.s.Claim(ctx, idem.Request{Key: "done"}); return err }, idem.ErrCompleted},
		"empty batch":       {func() error { e.s.ClaimMany(ctx, nil); return nil }, nil},
		"sweep of nothing":  {func() error { _, err := e.s.Sweep(ctx, 10); return err }, nil},
		"complete, refused with an effect": {
			func() error {
				return e.s.CompleteEffect(ctx, done, sameCommit(func(*fakeTx) ([]byte, error) {
					t.Error("the effect of a refused completion was run")
					return nil, nil
				}))
			}, idem.ErrCompleted,
		},
	} {
		n := e.commitsOf(func() { require.Equal(t, c.want, c.call(), name) })
		require.Zero(t, n, name)
	}
	again := e.stats()
	require.Equal(t, stats.Commits, again.Commits)
	require.Equal(t, stats.CommittedOps, again.CommittedOps)
}

// Each commit saves the store time and the highest fence as they are
// after all of its operations, and closing saves the time again.
func TestMetaIsSaved(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		require.Empty(t, e.fake.raw(Meta), "opening alone saves nothing")
		at := func() engine.Instant { return engine.Instant(begun.UnixNano()) + e.elapsed() }
		token := e.claim("a")
		first, secret := token.Fence, e.meta().Secret
		require.Greater(t, first, uint64(begun.UnixNano()))
		require.NotZero(t, secret)
		check := func(fence uint64) {
			t.Helper()
			require.Equal(t, engine.Meta{Time: at(), Wall: int64(at()), Fence: fence, Epoch: 1, Secret: secret}, e.meta())
		}
		check(first)
		e.clock.Advance(time.Second)
		require.NoError(t, e.s.Complete(ctx, token, nil))
		check(first)
		e.clock.Advance(time.Second)
		e.together(
			func() { e.claim("b") },
			func() { e.claim("c") },
			func() {
				assert.Equal(t, idem.ErrCompleted, e.s.Complete(ctx, token, []byte("x")))
			},
			func() { e.claim("d") },
		)
		check(first + 3)
		e.clock.Advance(time.Second)
		require.NoError(t, e.b.Update(ctx, sameCommit(nothing)))
		check(first + 3)

		e.clock.Advance(time.Hour)
		require.NoError(t, e.s.Close())
		check(first + 3)
		e.open()
		token = e.claim("e")
		require.Greater(t, token.Fence, first+3)
		require.Equal(t, engine.Meta{Time: at(), Wall: int64(at()), Fence: token.Fence, Epoch: 2, Secret: secret}, e.meta())
	})
}

func (e *env) elapsed() engine.Instant {
	_, d := e.clock.Now()
	return engine.Instant(d)
}

// The caller's own writes before a store is there: they commit, and leave the meta
// entry alone.
func TestUpdateBeforeBind(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := New(f)
	require.NoError(t, b.Update(ctx, sameCommit(func(tx *fakeTx) ([]byte, error) { tx.put("k", "v"); return nil, nil })))
	require.Equal(t, "v", f.durable(own)["k"])
	require.Empty(t, f.durable(Meta))
	require.NoError(t, b.Close())
	require.Empty(t, f.durable(Meta), "nor does closing write one")
}

func TestBind(t *testing.T) {
	t.Parallel()
	f, h := newFake(), &host{meta: engine.Meta{Time: 5, Wall: 6, Fence: 7, Epoch: 8}}
	b := New(f)
	require.Equal(t, engine.Binding{}, h.bind(t, b), "a new store has saved nothing, and reads want a cache")
	_, err := b.Bind(h.host())
	require.ErrorIs(t, err, idem.ErrInvalid)
	require.ErrorContains(t, err, "fake.db is in use")
	require.NoError(t, b.Close())

	b = New(f)
	require.Equal(t, engine.Binding{Saved: h.meta}, h.bind(t, b), "what closing saved")
	require.NoError(t, b.Close())

	for name, c := range map[string]struct {
		damage func([]byte) []byte
		want   error
	}{
		"damaged": {func(v []byte) []byte { v[3] ^= 1; return v }, idem.ErrCorrupt},
		"newer":   {func(v []byte) []byte { return formattest.Newer(codec.MetaKey, v) }, idem.ErrVersion},
	} {
		g := f.left()
		g.damage(Meta, codec.MetaKey, c.damage)
		s, err := idem.New(New(g), idem.Options{})
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, "fake.db", name)
		require.Nil(t, s)
	}
	// Something else sorts after the key: it is not the meta entry.
	g := f.left()
	g.damage(Meta, codec.MetaKey, func([]byte) []byte { return nil })
	g.damage(Meta, "other", func([]byte) []byte { return []byte("x") })
	b = New(g)
	require.Equal(t, engine.Binding{}, h.bind(t, b))
	require.NoError(t, b.Close())
}

// Group tells of each commit once: how many operations changed something, and never
// of one without operations that were to be saved.
func TestGroupIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var done idem.Token
		require.Equal(t, 1, e.commitsOf(func() { done = e.claim("done") }))
		require.NoError(t, e.s.Complete(ctx, done, nil))
		before := e.stats()
		n := e.commitsOf(func() {
			e.together(
				func() { e.claim("a") },
				func() { e.claim("b") },
				func() { assert.NoError(t, e.s.Complete(ctx, done, nil)) },
			)
		})
		require.Equal(t, 2, n, "one to gather them, and one for all")
		after := e.stats()
		require.EqualValues(t, 2, after.Commits-before.Commits)
		require.EqualValues(t, 2, after.CommittedOps-before.CommittedOps)
	})
}

// The engine is asked for room once a commit, and only for new records.
func TestRoom(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		open, lapsed := e.claim("open"), e.claim("lapsed")
		e.clock.Advance(time.Hour)
		require.NoError(t, e.s.Extend(ctx, open, time.Hour))
		full := fmt.Errorf("%w: 3 bytes are free on the disk", idem.ErrFull)
		_, roomsBefore, _ := e.fake.counts()
		rooms := -1
		errs := make([]error, 6)
		e.together(
			func() { _, errs[0] = e.s.Claim(ctx, idem.Request{Key: "new 1"}) },
			func() { errs[1] = e.s.Complete(ctx, open, make([]byte, 1<<10)) },
			func() { _, errs[2] = e.s.Claim(ctx, idem.Request{Key: "new 2"}) },
			func() { _, errs[3] = e.s.Claim(ctx, idem.Request{Key: "lapsed"}) },
			func() {
				_, _, errs[4] = e.s.DoEffect(ctx, idem.Request{Key: "new 3"}, sameCommit(func(*fakeTx) ([]byte, error) {
					t.Error("the effect of a claim that does not fit was run")
					return nil, nil
				}))
			},
			func() { _, errs[5] = e.s.Claim(ctx, idem.Request{Key: "new 1"}) },
			func() {
				e.fake.at(func(at point, _ string) error {
					if at == rooming {
						return full
					}
					if _, n, _ := e.fake.counts(); at == visible && n > roomsBefore && rooms < 0 {
						rooms = n - roomsBefore
					}
					return nil
				})
			},
		)
		require.Equal(t, 1, rooms, "asked for each record instead of once a commit")
		for _, i := range []int{0, 2, 4, 5} {
			require.ErrorIs(t, errs[i], idem.ErrFull, i)
			require.ErrorContains(t, errs[i], "3 bytes are free", i)
		}
		require.NoError(t, errs[1], "a token operation was refused for capacity")
		require.NoError(t, errs[3], "a takeover is no new record")
		require.Equal(t, idem.ErrFenced, e.s.Complete(ctx, lapsed, nil))

		e.fake.at(nil)
		for _, key := range []string{"new 1", "new 2", "new 3"} {
			require.Zero(t, e.state(key), key)
			e.claim(key)
		}
	})
}

// A full store makes room by a sweep, and claims once more.
func TestRoomAfterSweep(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 3 {
		e.granted(idem.Request{Key: fmt.Sprint("old ", i), Lease: time.Millisecond, Retention: 1})
	}
	e.clock.Advance(time.Second)
	e.fake.on(rooming, func() error {
		if len(e.fake.raw(Records)) >= 3 {
			return idem.ErrFull
		}
		return nil
	})
	e.claim("new")
	require.Len(t, e.fake.raw(Records), 1)
}
