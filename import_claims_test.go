package idem_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// An import waits for the claims under way. If it gives up, a Shutdown still waits for them,
// and for their work.
func TestShutdownAfterAnImportThatGaveUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		export := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{}).export(t)
		b := storetest.NewStub()
		reached, free := make(chan struct{}), make(chan struct{})
		b.OnCommit = func() error {
			close(reached)
			<-free
			return nil
		}
		s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
		claimed := make(chan idem.Token, 1)
		go func() {
			c, err := s.Claim(ctx, idem.Request{Key: "k"})
			if err != nil {
				t.Error(err)
			}
			claimed <- c.Token
		}()
		<-reached
		b.OnCommit = nil
		for range 3 {
			hasty, cancel := context.WithTimeout(ctx, time.Second)
			_, err := s.Import(hasty, bytes.NewReader(export))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		require.NoError(t, s.Health(ctx), "nothing was begun")
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, down, "a claim has no answer yet")
		close(free)
		token := <-claimed
		synctest.Wait()
		require.Empty(t, down, "the claim is open")
		require.NoError(t, s.Complete(ctx, token, nil))
		require.NoError(t, <-down)
	})
}

// A record that is not there yet may be about to come: a request of old is told to wait, not
// that it is too late.
func TestNothingIsTooLateDuringAnImport(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	a.many(t, 100, 10<<20)
	export := a.export(t)
	b := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	old := idem.Request{Key: "many/99", IssuedAt: b.now().Add(-48 * time.Hour)}
	_, err := b.Claim(ctx, old)
	require.ErrorIs(t, err, idem.ErrTooLate)
	_, err = b.Import(ctx, piped(bytes.NewReader(export[:len(export)/2])))
	require.ErrorIs(t, err, idem.ErrCorrupt)
	for _, key := range []string{"many/99", "of nobody"} {
		if _, err := b.Get(ctx, key); err == nil {
			continue
		}
		old.Key = key
		_, err = b.Claim(ctx, old)
		require.ErrorIs(t, err, idem.ErrInvalid)
		require.ErrorContains(t, err, "being imported")
		require.ErrorIs(t, b.ClaimMany(ctx, []idem.Request{old})[0].Err, idem.ErrInvalid)
	}
	_, err = b.Import(ctx, bytes.NewReader(export))
	require.NoError(t, err)
	old.Key = "many/99"
	_, err = b.Claim(ctx, old)
	require.ErrorIs(t, err, idem.ErrCompleted)
	old.Key = "of nobody"
	_, err = b.Claim(ctx, old)
	require.ErrorIs(t, err, idem.ErrTooLate)
}
