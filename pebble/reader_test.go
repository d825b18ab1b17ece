package pebble

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// An idle reader keeps what a flush or compaction has replaced from being freed, and so
// it is closed without anybody writing.
func TestReadersAreClosedByFlushesAndCompactions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{})
	s, err := idem.New(b, idem.Options{CacheBytes: -1, SweepInterval: -1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	c, err := s.Claim(ctx, idem.Request{Key: "k"})
	require.NoError(t, err)
	require.NoError(t, s.Complete(ctx, c.Token, []byte("done")))
	_, err = s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, 1, b.engine.readers.Idle(), "a look-up leaves its reader")

	require.NoError(t, b.DB().Flush())
	b.engine.soon.Wait()
	require.Zero(t, b.engine.readers.Idle())
	r, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "done", string(r.Result))
	require.Equal(t, 1, b.engine.readers.Idle())

	require.NoError(t, b.DB().Compact(ctx, []byte{0}, []byte{0xff}, false))
	require.Zero(t, b.engine.readers.Idle(), "nor what a compaction has replaced")
}

// Once the engine is closing no reader is kept, whoever brings one back: Pebble would
// find it open.
func TestReadersEnd(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{})
	e := b.engine
	r, err := e.readers.Get()
	require.NoError(t, err)
	e.endReaders()
	e.expireReaders() // for a flush that ends meanwhile
	e.readers.Put(r)
	require.Zero(t, e.readers.Idle())
	require.NoError(t, b.Close())
}
