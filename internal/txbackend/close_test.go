package txbackend

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

func TestClosed(t *testing.T) {
	t.Parallel()
	f, h, b := bound(t)
	require.NoError(t, b.Close())
	require.NoError(t, b.Close(), "again")
	requireCloses(t, f, 1)
	_, err := b.Read(context.Background(), "k")
	require.Equal(t, idem.ErrClosed, err)
	require.Equal(t, idem.ErrClosed, b.Apply(ctx, nil))
	require.Equal(t, idem.ErrClosed, b.Update(ctx, sameCommit(nothing)))
	_, _, err = b.Scan(ctx, "", "")
	require.Equal(t, idem.ErrClosed, err)
	_, err = b.Expiring(ctx, engine.Due{}, 1, 1)
	require.Equal(t, idem.ErrClosed, err)
	_, err = b.Size()
	require.Equal(t, idem.ErrClosed, err)
	_, err = b.Bind(h.host())
	require.Equal(t, idem.ErrClosed, err)
	_ = b.Break(errDisk)
	_, err = b.Read(context.Background(), "k")
	require.Equal(t, idem.ErrClosed, err, "closed outranks broken")
}

// Closing while callers queue: those whose commit has begun get its answer, those
// behind get ErrClosed, and the engine is closed when nothing uses it any more.
func TestCloseDuringTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, _, b := bound(t)
		reached, release := f.stall(beginning)
		update := func() <-chan error {
			done := async(func() error {
				return b.Update(ctx, sameCommit(func(tx *fakeTx) ([]byte, error) { tx.put("k", "v"); return nil, nil }))
			})
			return done
		}
		under := update()
		<-reached
		behind := update()
		synctest.Wait()
		closed := async(b.Close)
		synctest.Wait()
		requireCloses(t, f, 0, "closed under a commit")
		release()
		require.NoError(t, <-under)
		require.NoError(t, <-closed)
		require.NoError(t, <-behind, "it shared the commit that saved the time of closing")
		requireCloses(t, f, 1)
		require.Equal(t, "v", f.durable(own)["k"])
		require.Equal(t, idem.ErrClosed, <-update())
	})
}

// A backend that was never bound has nothing to save, and still waits for the caller's
// own writes.
func TestCloseWaitsForUpdate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		b := New(f)
		reached, release := f.stall(visible)
		updated := async(func() error { return b.Update(ctx, sameCommit(nothing)) })
		<-reached
		closed := async(b.Close)
		synctest.Wait()
		requireCloses(t, f, 0, "closed under a commit")
		release()
		require.NoError(t, <-updated)
		require.NoError(t, <-closed)
		requireCloses(t, f, 1)
	})
}

func TestCloseErrors(t *testing.T) {
	t.Parallel()
	for how, c := range map[string]struct {
		hook func() error
		want error
	}{
		"error": {func() error { return errDisk }, errDisk},
		"panic": {func() error { panic("lost") }, idem.ErrBroken},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f, _, b := bound(t)
			f.on(closing, c.hook)
			err := b.Close()
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, "fake.db")
			require.NoError(t, b.Close(), "again")
			requireCloses(t, f, 1)
		})
	}
}

// What closing could not save is said.
func TestCloseCannotSave(t *testing.T) {
	t.Parallel()
	f, h, b := bound(t)
	f.on(beginning, func() error { return errDisk })
	require.ErrorIs(t, b.Close(), errDisk)
	broken, _ := h.told()
	require.Len(t, broken, 1)
	requireCloses(t, f, 1, "it is freed all the same")
}

// Closing a broken engine that does not come back ends in bounded time, and
// so does closing one that breaks on the way.
func TestCloseOfAnEngineThatHangs(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(b *Backend, f *fake){
		"broken before": func(b *Backend, f *fake) { _ = b.Break(errDisk) },
		"breaks while it closes": func(b *Backend, f *fake) {
			go func() {
				time.Sleep(time.Hour) // of the bubble: nothing bounds a close that is merely slow
				_ = b.Break(errDisk)
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, h, b := bound(t)
				free := make(chan struct{})
				defer close(free)
				f.on(closing, func() error { <-free; return nil })
				breaks(b, f)
				start := time.Now()
				err := b.Close()
				require.ErrorIs(t, err, idem.ErrBroken)
				require.ErrorIs(t, err, errDisk, "it says why it is broken")
				require.ErrorContains(t, err, "did not close within")
				require.Equal(t, brokenClose, time.Since(start)%time.Hour)
				broken, _ := h.told()
				require.Len(t, broken, 1)
			})
		})
	}
}
