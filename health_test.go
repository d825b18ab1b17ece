package idem_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// checked is a stub that can tell whether it has room.
type checked struct {
	storetest.Rich
	check func(ctx context.Context) error
}

func (b *checked) Check(ctx context.Context) error { return b.check(ctx) }

// Health says what a claim of a new key would meet.
func TestHealth(t *testing.T) {
	t.Parallel()
	b := &checked{Rich: storetest.NewRich()}
	b.check = func(context.Context) error {
		if b.Full.Load() {
			return fmt.Errorf("%w: the stub", idem.ErrFull)
		}
		return nil
	}
	s := open(t, b, idem.Options{SweepInterval: -1})
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, s.Health(ctx))
	b.Full.Store(true)
	_, err := s.Claim(ctx, k)
	require.ErrorIs(t, err, idem.ErrFull)
	require.Equal(t, err, s.Health(ctx))
	b.Full.Store(false)
	require.NoError(t, s.Health(ctx))
	assert.Empty(t, b.Entries, "it writes nothing")
	cancel()
	require.Equal(t, context.Canceled, s.Health(ctx))

	b.Fail(storetest.ErrDisk)
	require.ErrorIs(t, s.Health(t.Context()), idem.ErrBroken)
	require.ErrorIs(t, s.Health(t.Context()), storetest.ErrDisk)
	require.NoError(t, s.Close())
	require.Equal(t, idem.ErrClosed, s.Health(t.Context()))
}

// sized is a stub whose size is told by a function.
type sized struct {
	storetest.Rich
	size func() (int64, error)
}

func (b sized) Size() (int64, error) { return b.size() }

// A caller that recovers from a panic of the engine, as an HTTP server does, can still
// close the store: Close does not wait for the call that ended so.
func TestCloseAfterThePanicOfAnEngine(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(t *testing.T){
		"Health": func(t *testing.T) {
			s := open(t, &checked{storetest.NewRich(), func(context.Context) error { panic("check") }}, idem.Options{SweepInterval: -1})
			assert.Panics(t, func() { _ = s.Health(context.Background()) })
			require.NoError(t, s.Close())
		},
		"Stats": func(t *testing.T) {
			s := open(t, sized{storetest.NewRich(), func() (int64, error) { panic("size") }}, idem.Options{SweepInterval: -1})
			assert.Panics(t, func() { _, _ = s.Stats(context.Background()) })
			require.NoError(t, s.Close())
		},
	} {
		t.Run(name, ask)
	}
}

// Whether a full store would make room depends on the slice that a claim would sweep, and
// that is the one after the slice that was swept last.
func TestHealthLooksWhereAClaimWouldSweep(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := &checked{Rich: newBounded(3)}
	b.check = func(context.Context) error {
		if len(b.Entries) < b.Most {
			return nil
		}
		return fmt.Errorf("%w: the stub", idem.ErrFull)
	}
	s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1, SweepSlice: 1})
	fillUp(t, s, clock, 3)
	b.Damage("old0")
	// The first slice is a record that cannot be read, and stays.
	require.ErrorIs(t, s.Health(t.Context()), idem.ErrFull)
	_, err := s.Claim(t.Context(), k)
	require.ErrorIs(t, err, idem.ErrFull)
	for _, key := range []string{"new1", "new2"} { // the next two have expired
		require.NoError(t, s.Health(t.Context()), key)
		mustClaim(t, s, idem.Request{Key: key})
	}
	require.ErrorIs(t, s.Health(t.Context()), idem.ErrFull, "old0 again, and two claims")
}

// A store that is shutting down grants nothing, although it is open to tokens.
func TestHealthWhileDraining(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
		require.NoError(t, s.Health(t.Context()), "of an engine that cannot tell")
		claim := mustClaim(t, s, k)
		down := shutdown(t.Context(), s)
		require.Equal(t, idem.ErrClosed, s.Health(t.Context()))
		require.NoError(t, s.Complete(t.Context(), claim.Token, nil))
		require.NoError(t, <-down)
	})
}

// The store closes while its engine is asked.
func TestHealthWhileClosing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := &checked{Rich: storetest.NewRich()}
		var asked gate
		asked.shut()
		b.check = func(context.Context) error {
			asked.pass()
			return fmt.Errorf("%w: the stub", idem.ErrClosed)
		}
		s := open(t, b, idem.Options{SweepInterval: -1})
		answer, closed := make(chan error, 1), make(chan error, 1)
		go func() { answer <- s.Health(context.Background()) }()
		synctest.Wait()
		go func() { closed <- s.Close() }()
		synctest.Wait()
		require.Empty(t, closed, "it waits for the call")
		asked.open()
		require.Equal(t, idem.ErrClosed, <-answer)
		require.NoError(t, <-closed)
	})
}
