package txbackend

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// While a commit is on its way to the disk nobody sees what it changes, and
// nobody waits for it.
func TestNotSeenBeforeDurable(t *testing.T) {
	t.Parallel()
	const key = "k"
	for name, c := range map[string]struct {
		before        func(e *env) idem.Token
		change        func(e *env, token idem.Token) error
		was, is       idem.State
		claimBefore   error
		claimAfter    error
		recordsBefore int
	}{
		"claim": {
			before:     func(e *env) idem.Token { return idem.Token{} },
			change:     func(e *env, _ idem.Token) error { _, err := e.s.Claim(ctx, idem.Request{Key: key}); return err },
			is:         idem.InFlight,
			claimAfter: idem.ErrInFlight,
		},
		"complete": {
			before:      func(e *env) idem.Token { return e.claim(key) },
			change:      func(e *env, token idem.Token) error { return e.s.Complete(ctx, token, []byte("r")) },
			was:         idem.InFlight,
			is:          idem.Completed,
			claimBefore: idem.ErrInFlight, claimAfter: idem.ErrCompleted, recordsBefore: 1,
		},
		"fail": {
			before:      func(e *env) idem.Token { return e.claim(key) },
			change:      func(e *env, token idem.Token) error { return e.s.Fail(ctx, token, []byte("r")) },
			was:         idem.InFlight,
			is:          idem.Failed,
			claimBefore: idem.ErrInFlight, claimAfter: idem.ErrFailed, recordsBefore: 1,
		},
		"hold": {
			before:      func(e *env) idem.Token { return e.claim(key) },
			change:      func(e *env, token idem.Token) error { return e.s.Hold(ctx, token, nil) },
			was:         idem.InFlight,
			is:          idem.Held,
			claimBefore: idem.ErrInFlight, claimAfter: idem.ErrHeld, recordsBefore: 1,
		},
		"forget": {
			before:      func(e *env) idem.Token { return e.completed(key, "r") },
			change:      func(e *env, _ idem.Token) error { return e.s.Forget(ctx, idem.Token{Key: key}) },
			was:         idem.Completed,
			claimBefore: idem.ErrCompleted, claimAfter: nil, recordsBefore: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				token := c.before(e)
				inTheDatabase := e.fake.raw(Records)[key]
				reached, release := e.fake.stall(visible)
				defer release()
				var err error
				done := make(chan struct{})
				go func() { defer close(done); err = c.change(e, token) }()
				<-reached
				require.NotEqual(t, inTheDatabase, e.fake.raw(Records)[key], "the database shows the change already")
				select {
				case <-done:
					t.Fatal("answered before it was durable")
				default:
				}

				require.Equal(t, c.was, e.state(key))
				got, _, scanErr := e.b.Scan(ctx, "", "")
				require.NoError(t, scanErr)
				require.Len(t, got, c.recordsBefore)
				if c.recordsBefore > 0 {
					require.Equal(t, c.was, got[0].Entry.State)
				}
				if c.claimBefore != nil {
					_, claimErr := e.s.Claim(ctx, idem.Request{Key: key})
					require.Equal(t, c.claimBefore, claimErr)
				}

				release()
				<-done
				require.NoError(t, err)
				require.Equal(t, c.is, e.state(key))
				_, claimErr := e.s.Claim(ctx, idem.Request{Key: key})
				require.Equal(t, c.claimAfter, claimErr)
			})
		})
	}
}

// The image of a record that cannot be read is its error: a Forget on its way does
// not make it absent.
func TestUnreadableUntilForgottenForGood(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.completed("k", "r")
		e.fake.damage(Records, "k", func(v []byte) []byte { v[20] ^= 1; return v })
		reached, release := e.fake.stall(visible)
		defer release()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := e.s.Forget(ctx, idem.Token{Key: "k"}); err != nil {
				t.Error(err)
			}
		})
		<-reached
		_, err := e.s.Get(ctx, "k")
		require.ErrorIs(t, err, idem.ErrCorrupt)
		_, err = e.s.Claim(ctx, idem.Request{Key: "k"})
		require.ErrorIs(t, err, idem.ErrCorrupt)
		page, _, err := e.b.Scan(ctx, "", "")
		require.NoError(t, err)
		require.Len(t, page, 1)
		require.ErrorIs(t, page[0].Err, idem.ErrCorrupt)
		release()
		wg.Wait()
		require.Zero(t, e.state("k"))
	})
}

// A commit that overtakes a reader: whenever the two meet, the reader answers with
// something that was durable.
func TestReaderMeetsCommit(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*env, idem.Token) {
		e := newEnv(t)
		return e, e.claim("k")
	}
	// begin starts a read that stops at p.
	begin := func(e *env, p point) (got func() idem.State, release func()) {
		reached, release := e.fake.stall(p)
		done := make(chan idem.State, 1)
		go func() {
			entry, err := e.b.Read(context.Background(), "k")
			if err != nil {
				e.t.Error(err)
			}
			done <- entry.State
		}()
		<-reached
		return func() idem.State { return <-done }, release
	}
	// complete starts a completion that stops where it can be seen.
	complete := func(e *env, token idem.Token, answer error) (finish func() error) {
		reached, let := make(chan struct{}), make(chan struct{})
		e.fake.on(visible, func() error { close(reached); <-let; return answer })
		done := async(func() error { return e.s.Complete(ctx, token, nil) })
		<-reached
		return func() error { close(let); return <-done }
	}

	t.Run("reads what is not durable yet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			e, token := start(t)
			got, release := begin(e, reading)
			finish := complete(e, token, nil)
			release()
			require.Equal(t, idem.InFlight, got())
			require.NoError(t, finish())
		})
	})
	t.Run("has read what becomes durable", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			e, token := start(t)
			got, release := begin(e, reading)
			finish := complete(e, token, nil)
			// The reader goes on to have read the new state, and stops there.
			reached, release2 := e.fake.stall(read)
			release()
			<-reached
			require.NoError(t, finish())
			release2()
			require.Equal(t, idem.Completed, got())
		})
	})
	t.Run("has read what fails to become durable", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			e, token := start(t)
			got, release := begin(e, reading)
			finish := complete(e, token, errDisk)
			reached, release2 := e.fake.stall(read)
			release()
			<-reached
			require.ErrorIs(t, finish(), idem.ErrBroken)
			release2()
			require.Equal(t, idem.InFlight, got(), "shows what nobody knows the disk to have")
		})
	})
	t.Run("has read what is old by now", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			e, token := start(t)
			got, release := begin(e, read)
			finish := complete(e, token, nil)
			require.NoError(t, finish())
			release()
			require.Equal(t, idem.InFlight, got(), "it was read before the commit")
		})
	})
}

// A commit that was given up and begun again because of a same-commit function lets
// go of what it held, and holds what it changes then.
func TestGateAfterSpoiledPass(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		token := e.claim("a")
		var seen []idem.State
		look := func() error { seen = append(seen, e.state("a")); return nil }
		e.together(
			func() {
				if err := e.s.Complete(ctx, token, nil); err != nil {
					t.Error(err)
				}
				seen = append(seen, e.state("a"))
			},
			func() {
				err := e.b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) { return nil, errDisk }))
				require.Equal(t, errDisk, err)
			},
			func() { e.fake.on(visible, look) },
		)
		require.Equal(t, []idem.State{idem.InFlight, idem.InFlight, idem.Completed}, seen,
			"of the commit before, this one not durable, and durable")
		require.Zero(t, e.b.gate.n.Load())
		require.Empty(t, e.b.gate.by)
	})
}

// The gate forgets what it held, also its memory after a large group.
func TestGateLetsGo(t *testing.T) {
	t.Parallel()
	var g gate
	g.withdraw()
	for i := range 5000 {
		g.publish(string(codec.AppendPlace(nil, engine.Due{At: engine.Instant(i)})), image{entry: &engine.Entry{Attempt: uint32(i)}}, nil)
	}
	g.publish(string(codec.AppendPlace(nil, engine.Due{At: 7})), image{entry: &engine.Entry{Attempt: 99}}, &engine.Entry{Attempt: 100})
	was, held := g.look(string(codec.AppendPlace(nil, engine.Due{At: 7})))
	require.True(t, held)
	require.EqualValues(t, 7, was.entry.Attempt, "the first image of a commit counts")
	now, held := g.changed(string(codec.AppendPlace(nil, engine.Due{At: 7})))
	require.True(t, held)
	require.EqualValues(t, 100, now.Attempt, "the commit itself goes on from its last change")
	n := 0
	g.each(func(string, image) { n++ })
	require.Equal(t, 5000, n)
	g.withdraw()
	require.Nil(t, g.by)
	_, held = g.look("x")
	require.False(t, held)
	g.publish("k", image{}, nil)
	was, held = g.look("k")
	require.True(t, held)
	require.Zero(t, was)
	_, held = g.changed("k")
	require.True(t, held, "removed is not unknown")
	_, held = g.look("other")
	require.False(t, held)
	_, held = g.changed("other")
	require.False(t, held)
	g.withdraw()
	g.each(func(string, image) { t.Error("held after it was withdrawn") })
}
