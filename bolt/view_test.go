package bolt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/selfexec"
	"github.com/idemkv/idem/internal/storetest"
)

func TestView(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{})
	b := engine.Of(s).(*Backend)
	require.NoError(t, b.Update(ctx, func(tx *bbolt.Tx) error { kv{tx}.Put("k", []byte("v")); return nil }))
	type mine struct{}
	cause := errors.New("not now")
	err := b.View(context.WithValue(ctx, mine{}, 7), func(ctx context.Context, tx *bbolt.Tx) error {
		require.Equal(t, "v", string(kv{tx}.Get("k")))
		require.Equal(t, 7, ctx.Value(mine{}))
		require.False(t, tx.Writable())
		return cause
	})
	require.Equal(t, cause, err)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	never := func(context.Context, *bbolt.Tx) error { t.Error("it ran"); return nil }
	require.ErrorIs(t, b.View(ended, never), context.Canceled)
	require.PanicsWithValue(t, "boom", func() {
		_ = b.View(ctx, func(context.Context, *bbolt.Tx) error { panic("boom") })
	})
	storetest.Claim(t, s, "the store lives")
	require.NoError(t, s.Close())
	require.ErrorIs(t, b.View(ctx, never), idem.ErrClosed)
}

// The function of a View that goes on to something that may wait for it is told at
// once.
func TestViewRefusesToBeEnteredAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{})
	defer func() { require.NoError(t, b.Close()) }()
	other := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{})
	defer func() { require.NoError(t, other.Close()) }()
	ran := 0
	nothing := func(context.Context, *bbolt.Tx) error { ran++; return nil }
	require.NoError(t, b.View(ctx, func(ctx context.Context, _ *bbolt.Tx) error {
		require.ErrorIs(t, b.View(ctx, nothing), idem.ErrInvalid)
		require.ErrorIs(t, b.Update(ctx, func(*bbolt.Tx) error { ran++; return nil }), idem.ErrInvalid)
		require.Zero(t, ran)
		return other.View(ctx, nothing) // nothing of b's
	}))
	require.Equal(t, 1, ran)
	require.NoError(t, b.View(ctx, nothing))
}

// A file cut short under the map is met by fn: that breaks the store, not the process.
func TestViewOfATruncatedFile(t *testing.T) {
	t.Parallel()
	selfexec.NeedsFaultAddress(t)
	if runtime.GOOS == "windows" {
		t.Skip("a mapped file cannot be truncated on windows")
	}
	path := newFilled(t, 900)
	b := mustOpen(t, path, Options{})
	require.NoError(t, os.Truncate(path, 8192))
	err := b.View(context.Background(), func(_ context.Context, tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error { return nil })
		})
	})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.NotContains(t, err.Error(), "\n")
	_, err = b.Size()
	require.ErrorIs(t, err, idem.ErrBroken)
	_ = b.Close()
}

// A commit that waits for a reader, to let the map grow, holds up new readers; asking
// for the size needs none.
func TestSizeWhileTheMapWaitsToGrow(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{MapSize: 1 << 15})
	before, err := b.Size()
	require.NoError(t, err)
	reader, err := b.DB().Begin(false)
	require.NoError(t, err)
	grown := make(chan error)
	go func() {
		grown <- b.Update(ctx, func(tx *bbolt.Tx) error { kv{tx}.Put("large", make([]byte, 1<<20)); return nil })
	}()
	// Nobody gets this lock while a commit waits for the reader that has it.
	lock := (*sync.RWMutex)(reflect.ValueOf(b.DB()).Elem().FieldByName("mmaplock").Addr().UnsafePointer())
	for lock.TryRLock() {
		lock.RUnlock()
		runtime.Gosched()
	}
	size, err := b.Size()
	require.NoError(t, err)
	require.Equal(t, before, size)
	require.NoError(t, reader.Rollback())
	require.NoError(t, <-grown)
	size, err = b.Size()
	require.NoError(t, err)
	require.Greater(t, size, before+1<<20)
	require.NoError(t, b.Close())
}
