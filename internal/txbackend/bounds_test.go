package txbackend

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A commit that has grown past the bound ends there, also within what one caller
// brought, and the next one goes on. All are answered, and each commit is told.
func TestCommitsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		e.b.commitBytes = 10 << 10
		largest, size := 0, 0
		e.fake.at(func(p point, _ string) error {
			switch p {
			case beginning:
				size = 0
			case visible:
				largest = max(largest, size)
			case setting:
				size++ // records, places and the meta entry
			}
			return nil
		})
		requests := make([]idem.Request, 20)
		for i := range requests {
			requests[i] = idem.Request{Key: fmt.Sprint("k", i)}
		}
		completions := make([]idem.Completion, 0, len(requests))
		for _, g := range e.s.ClaimMany(ctx, requests) {
			require.NoError(t, g.Err)
			completions = append(completions, idem.Completion{Token: g.Claim.Token, Result: make([]byte, 3<<10)})
		}
		before := e.stats()
		largest = 0
		n := e.commitsOf(func() {
			for i, err := range e.s.CompleteMany(ctx, completions) {
				assert.NoError(t, err, i)
			}
		})
		require.Equal(t, 5, n, "four results of 3 KiB make more than 10 KiB")
		require.Less(t, largest, 4*3)
		for i := range requests {
			require.Equal(t, idem.Completed, e.state(fmt.Sprint("k", i)))
		}
		after := e.stats()
		require.EqualValues(t, n, after.Commits-before.Commits)
		require.EqualValues(t, len(requests), after.CommittedOps-before.CommittedOps)
		requireInStep(t, e.fake)
	})
}

// A function fails behind what filled commits: only what is in its own is run again.
func TestBoundAndSpoil(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, spoils bool) {
		e.b.commitBytes = 1 << 10
		errs := make([]error, 6)
		var fns []func()
		for i := range errs {
			fns = append(fns, func() {
				_, _, errs[i] = e.s.DoEffect(ctx, idem.Request{Key: fmt.Sprint("k", i)}, sameCommit(func(tx *fakeTx) ([]byte, error) {
					tx.put(fmt.Sprint("own", i), "x")
					if i == 3 {
						return nil, errDisk
					}
					return make([]byte, 700), nil
				}))
			})
		}
		e.together(fns...)
		for i, err := range errs {
			if i == 3 {
				require.Equal(t, errDisk, err)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, idem.Completed, e.state(fmt.Sprint("k", i)))
		}
		require.Len(t, e.fake.durable(own), 5)
	})
}

// Breaking in the middle of what one caller brought: nobody is told that nothing
// happened.
func TestBreakBetweenTheCommitsOfOneCaller(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.b.commitBytes = 1
		n := 0
		e.fake.on(visible, func() error {
			if n++; n == 2 {
				return errDisk
			}
			return nil
		})
		for _, g := range e.s.ClaimMany(ctx, []idem.Request{{Key: "a"}, {Key: "b"}, {Key: "c"}}) {
			require.ErrorIs(t, g.Err, idem.ErrBroken)
		}
		require.Len(t, e.fake.durable(Records), 1)
	})
}

// Once a commit the path is looked at, before anybody is told of the commit. Where it
// names something else the store breaks.
func TestMovedUnderCommits(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		asked := 0
		e.fake.on(moving, func() error { asked++; return nil })
		token := e.claim("a")
		require.NoError(t, e.s.Complete(ctx, token, nil))
		require.Equal(t, idem.ErrCompleted, e.s.Complete(ctx, token, []byte("other")))
		require.Equal(t, 2, asked, "once for each commit that wrote")

		moved := errors.New("fake.db was replaced")
		e.fake.on(moving, func() error { return moved })
		c, err := e.s.Claim(ctx, idem.Request{Key: "b"})
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorIs(t, err, moved)
		require.Zero(t, c.Token)
		_, held := e.b.gate.look("b")
		require.True(t, held, "what nobody was told can be seen")
		requireBroken(t, e.b, moved)
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("%w: no room", idem.ErrFull)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		at     point
		hook   func() error
		want   error
		breaks bool
	}{
		"well":   {ctx: ctx},
		"ended":  {ctx: ended, want: context.Canceled},
		"moved":  {ctx: ctx, at: moving, hook: func() error { return errDisk }, want: errDisk, breaks: true},
		"full":   {ctx: ctx, at: rooming, hook: func() error { return full }, want: full},
		"panics": {ctx: ctx, at: rooming, hook: func() error { panic("lost") }, want: idem.ErrBroken, breaks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, h, b := bound(t)
			f.on(c.at, c.hook)
			require.ErrorIs(t, b.Check(c.ctx), c.want)
			broken, _ := h.told()
			require.Equal(t, c.breaks, len(broken) == 1)
			f.at(nil)
			require.NoError(t, b.Close())
			require.Equal(t, idem.ErrClosed, b.Check(ctx))
		})
	}
}

// Keys are named by the host's hash.
func TestKeysAreNamedByTheirHash(t *testing.T) {
	t.Parallel()
	f, h := newFake(), &host{}
	b := New(f)
	bound := h.host()
	bound.KeyHash = func(key string) string { return "hash of " + fmt.Sprint(len(key)) }
	_, err := b.Bind(bound)
	require.NoError(t, err)
	f.on(reading, func() error { return errDisk })
	_, err = b.Read(context.Background(), "secret")
	require.ErrorContains(t, err, "reading key hash of 6")
	require.NotContains(t, err.Error(), "secret")
	require.NoError(t, b.Close())
}
