package txbackend

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/formattest"
)

// The engine stays open until a visit has returned, and the visit is told to.
func TestCloseEndsAVisitAndWaitsForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, _, b := bound(t)
		goOn := make(chan struct{})
		visit := async(func() error {
			return b.Visit(ctx, func(ctx context.Context) error {
				<-ctx.Done()
				<-goOn
				return fmt.Errorf("reading: %w", ctx.Err())
			})
		})
		synctest.Wait()
		require.NoError(t, b.Update(ctx, sameCommit(nothing)), "commits do not wait for it")
		closed := async(b.Close)
		synctest.Wait()
		requireCloses(t, f, 0, "closed under a visit")
		require.ErrorIs(t, b.Visit(ctx, func(context.Context) error { return errDisk }), idem.ErrClosed)
		close(goOn)
		require.Equal(t, idem.ErrClosed, <-visit)
		require.NoError(t, <-closed)
		requireCloses(t, f, 1)
	})
}

// A visit that does not return holds up Close no longer than a commit might.
func TestCloseUnderAVisitThatIsStuck(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		stuck := make(chan struct{})
		visit := async(func() error {
			return e.b.Visit(ctx, func(context.Context) error { <-stuck; return nil })
		})
		synctest.Wait()
		require.ErrorIs(t, e.s.Close(), idem.ErrBroken)
		requireCloses(t, e.fake, 0, "its lock is kept")
		close(stuck)
		require.NoError(t, <-visit)
		synctest.Wait()
		requireCloses(t, e.fake, 1)
	})
}

func TestABreakEndsAVisit(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		visit := async(func() error {
			return e.b.Visit(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		})
		synctest.Wait()
		require.NoError(t, e.b.Intact())
		broken := e.b.Break(errDisk)
		require.Equal(t, broken, <-visit)
		require.Equal(t, broken, e.b.Intact())
		require.Equal(t, broken, e.b.Visit(ctx, func(context.Context) error { return nil }))
	})
}

func TestAVisitHasItsCallersContext(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	type key struct{}
	mine, cancel := context.WithCancel(context.WithValue(ctx, key{}, "value"))
	require.Equal(t, errDisk, e.b.Visit(mine, func(ctx context.Context) error {
		require.Equal(t, "value", ctx.Value(key{}))
		cancel()
		require.Error(t, ctx.Err())
		return errDisk
	}))
	require.ErrorIs(t, e.b.Visit(mine, func(context.Context) error { return nil }), context.Canceled)
	require.ErrorIs(t, e.b.Visit(ctx, func(context.Context) error { panic("engine") }), idem.ErrBroken)
}

// What a visit reports to may panic, and that is its caller's own. The visit ends, and the
// backend goes on.
func TestAPanicInAVisitsReport(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	mine := engine.WithProgress(ctx, func(int64, int64) { panic("mine") })
	ended := false
	require.PanicsWithValue(t, "mine", func() {
		_ = e.b.Visit(mine, func(ctx context.Context) error {
			defer func() { ended = true }()
			engine.Progress(ctx)(1, 2)
			return nil
		})
	})
	require.True(t, ended)
	quiet := engine.WithProgress(ctx, func(int64, int64) {})
	require.NoError(t, e.b.Intact())
	require.ErrorIs(t, e.b.Visit(quiet, func(ctx context.Context) error {
		engine.Progress(ctx)(1, 2)
		panic("engine")
	}), idem.ErrBroken)
}

// A visit to a database that is no longer where it was opened vouches for nothing, whether it
// was moved before or meanwhile.
func TestAVisitToAMovedDatabase(t *testing.T) {
	t.Parallel()
	moved := func() error { return errDisk }
	e := newEnv(t)
	e.fake.on(moving, moved)
	err := e.b.Visit(ctx, func(context.Context) error { t.Error("it begins"); return nil })
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, errDisk)

	e = newEnv(t)
	err = e.b.Visit(ctx, func(context.Context) error {
		e.fake.on(moving, moved)
		return errors.New("a file is not there")
	})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, errDisk)
}

// A backend opened read-only never asks its engine for a transaction.
func TestReadOnlyNeverUpdates(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.completed("k", "result")
	require.NoError(t, e.s.Close())
	commits, _, _ := e.fake.counts()
	b := NewReadOnly(e.fake)
	s, err := idem.New(b, idem.Options{Clock: e.clock, LapseOnOpen: true})
	require.NoError(t, err)
	r, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "result", string(r.Result))
	for what, err := range map[string]error{
		"Update": b.Update(ctx, sameCommit(nothing)), "Apply": b.Apply(ctx, nil), "Check": b.Check(ctx), "Health": s.Health(ctx),
	} {
		require.ErrorIs(t, err, idem.ErrInvalid, what)
		require.ErrorContains(t, err, "read-only", what)
	}
	require.NoError(t, s.Close())
	after, _, _ := e.fake.counts()
	require.Equal(t, commits, after)
}

func TestVerifyOfAnEngineThatCannotBe(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	require.ErrorIs(t, e.b.Verify(ctx, nil), idem.ErrInvalid)
}

// fakeView is a view of pairs.
type fakeView struct {
	pairs []fakePair
	get   func(space Space, key []byte) ([]byte, bool, error)
	err   error
}

type fakePair struct {
	space      Space
	key, value []byte
}

func (v *fakeView) Walk(ctx context.Context, pair func(Space, []byte, []byte), damaged func(string, error)) error {
	for _, p := range v.pairs {
		pair(p.space, p.key, p.value)
	}
	if v.err != nil {
		damaged("page", v.err)
	}
	return ctx.Err()
}

func (v *fakeView) Get(space Space, key []byte) ([]byte, bool, error) {
	if v.get != nil {
		return v.get(space, key)
	}
	for _, p := range v.pairs {
		if p.space == space && string(p.key) == string(key) {
			return p.value, true, nil
		}
	}
	return nil, false, nil
}

// A backup is refused for a record that cannot be read, not for a place in the index.
func TestWhole(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	record := func(key string, due engine.Instant) fakePair {
		r := &engine.Entry{State: engine.InFlight, Fence: 5, Epoch: 1, Due: due, ExpiresAt: due}
		if due == 0 {
			r.ExpiresAt = engine.Never
		}
		return fakePair{Records, []byte(key), codec.AppendRecord(nil, key, r)}
	}
	place := func(key string, at engine.Instant) fakePair {
		return fakePair{Expiry, codec.AppendPlace(nil, engine.Due{At: at, Key: key}), nil}
	}
	meta := fakePair{Meta, []byte(codec.MetaKey), codec.AppendMeta(nil, engine.Meta{Time: 1, Wall: 1, Fence: 9, Epoch: 3})}
	whole := []fakePair{record("a", 10), place("a", 10), record("b", 0), meta}
	verify := func(v *fakeView) (all []engine.Damage) {
		require.NoError(t, e.b.verify(ctx, v, func(d engine.Damage) { all = append(all, d) }))
		return all
	}
	require.NoError(t, e.b.Whole(ctx, &fakeView{pairs: whole}))
	require.Empty(t, verify(&fakeView{pairs: whole}))

	orphan := &fakeView{pairs: append([]fakePair{place("c", 11)}, whole...)}
	require.NoError(t, e.b.Whole(ctx, orphan))
	all := verify(orphan)
	require.Len(t, all, 1)
	require.Equal(t, "expiry index", all[0].What)
	require.Equal(t, e.s.KeyHash("c"), all[0].KeyHash)

	newer := record("n", 12)
	newer.value = formattest.Newer("n", newer.value)
	other := &fakeView{pairs: append([]fakePair{newer, place("n", 12)}, whole...)}
	require.NoError(t, e.b.Whole(ctx, other), "a record of another version is copied as it is")
	all = verify(other)
	require.Len(t, all, 1)
	require.ErrorIs(t, all[0].Err, idem.ErrVersion)

	damaged := record("d", 13)
	damaged.value[30] ^= 1
	bad := &fakeView{pairs: append([]fakePair{damaged, place("d", 13)}, whole...)}
	err := e.b.Whole(ctx, bad)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, e.s.KeyHash("d"))

	page := &fakeView{pairs: whole, err: fmt.Errorf("%w: page", engine.ErrCorrupt)}
	require.ErrorIs(t, e.b.Whole(ctx, page), idem.ErrCorrupt)

	// What a damaged page hides is named by way of the index.
	hidden := &fakeView{pairs: append([]fakePair{place("h", 14)}, whole...), get: func(Space, []byte) ([]byte, bool, error) {
		return nil, false, fmt.Errorf("%w: page", engine.ErrCorrupt)
	}}
	all = verify(hidden)
	require.NotEmpty(t, all)
	require.Equal(t, "record", all[0].What)
	require.Equal(t, e.s.KeyHash("h"), all[0].KeyHash)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, e.b.Whole(cancelled, page), context.Canceled)
}
