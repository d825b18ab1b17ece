package txbackend

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx   = context.Background()
	begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	errDisk = errors.New("input/output error")
)

// env is a store on a fake engine.
type env struct {
	t     testing.TB
	fake  *fake
	b     *Backend
	s     *idem.Store
	clock *idemtest.Clock
}

func newEnv(t testing.TB, options ...func(*idem.Options)) *env {
	t.Helper()
	e := &env{t: t, fake: newFake(), clock: idemtest.NewClock(begun)}
	e.open(options...)
	return e
}

// open opens a store on what e.fake holds. It has no cache, so that reads come to
// the engine, and is swept by hand.
func (e *env) open(options ...func(*idem.Options)) {
	e.t.Helper()
	o := idem.Options{Clock: e.clock, SweepInterval: -1, CacheBytes: -1}
	for _, set := range options {
		set(&o)
	}
	e.b = New(e.fake)
	s, err := idem.New(e.b, o)
	require.NoError(e.t, err)
	e.s = s
	e.t.Cleanup(func() {
		e.fake.at(nil)
		_ = s.Close()
	})
}

func (e *env) claim(key string) idem.Token {
	e.t.Helper()
	c, err := e.s.Claim(ctx, idem.Request{Key: key})
	require.NoError(e.t, err)
	return c.Token
}

func (e *env) completed(key, result string) idem.Token {
	e.t.Helper()
	token := e.claim(key)
	require.NoError(e.t, e.s.Complete(ctx, token, []byte(result)))
	return token
}

func (e *env) state(key string) idem.State {
	e.t.Helper()
	r, err := e.s.Get(ctx, key)
	if errors.Is(err, idem.ErrNotFound) {
		return 0
	}
	require.NoError(e.t, err)
	return r.State
}

// granted claims what r asks for.
func (e *env) granted(r idem.Request) {
	e.t.Helper()
	_, err := e.s.Claim(ctx, r)
	require.NoError(e.t, err)
}

func (e *env) sweep(limit int) (removed int) {
	e.t.Helper()
	removed, err := e.s.Sweep(ctx, limit)
	require.NoError(e.t, err)
	return removed
}

func (e *env) stats() idem.Stats {
	e.t.Helper()
	stats, err := e.s.Stats(ctx)
	require.NoError(e.t, err)
	return stats
}

// meta returns the meta entry as stored.
func (e *env) meta() engine.Meta {
	e.t.Helper()
	m, err := codec.DecodeMeta([]byte(e.fake.raw(Meta)[codec.MetaKey]))
	require.NoError(e.t, err)
	return m
}

// together runs fns so that what they bring shares one commit, in their order. It
// is for synctest bubbles.
func (e *env) together(fns ...func()) {
	e.t.Helper()
	reached, release := e.fake.stall(beginning)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) { return nil, nil })); err != nil {
			e.t.Error(err)
		}
	})
	<-reached
	for _, fn := range fns {
		wg.Go(fn)
		synctest.Wait()
	}
	release()
	wg.Wait()
}

// bubble runs a test with a store of its own in a synctest bubble.
func bubble(t *testing.T, test func(t *testing.T, e *env)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newEnv(t)) })
}

// both runs a test with same-commit functions that spoil the transaction when they
// fail, as in bbolt, and with such as do not, as in Pebble.
func both(t *testing.T, test func(t *testing.T, e *env, spoils bool)) {
	for name, savepoints := range map[string]bool{"spoils": false, "savepoints": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				e.fake.savepoints = savepoints
				test(t, e, !savepoints)
			})
		})
	}
}
