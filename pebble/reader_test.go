package pebble

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// An idle reader keeps what a flush has replaced from being freed, and so it is closed
// without anybody writing.
func TestReadersAreClosedByAFlush(t *testing.T) {
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
}
