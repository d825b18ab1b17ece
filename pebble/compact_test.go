package pebble

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

func TestCompact(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	empty := mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{})
	require.NoError(t, empty.Compact(t.Context()), "unbound, and empty but for its meta entry")
	require.NoError(t, empty.Close())

	s, b := newStore(t, Options{MinFree: -1, MemTableBytes: 1 << 20}, idem.Options{})
	for i := range 40 {
		require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
			return batch.Set(fmt.Append(nil, "own/", i), make([]byte, 64<<10), nil)
		}))
		storetest.Complete(t, s, fmt.Sprint("k", i), fmt.Sprint("result ", i))
	}
	require.NoError(t, b.Update(t.Context(), func(batch *pebble.Batch) error {
		return batch.DeleteRange([]byte("own/"), []byte("own0"), nil)
	}))
	last, total := int64(-1), int64(0)
	require.NoError(t, b.Compact(engine.WithProgress(t.Context(), func(done, of int64) { last, total = done, of })))
	require.Equal(t, total, last)
	m := b.DB().Metrics()
	require.Zero(t, m.Levels[0].TablesCount)
	tables, size := int64(0), int64(0)
	for _, l := range m.Levels {
		tables, size = tables+l.TablesCount, size+l.TablesSize
	}
	require.EqualValues(t, 1, tables)
	require.Less(t, size, int64(64<<10))
	for i := range 40 {
		require.Equal(t, fmt.Sprint("result ", i), string(storetest.Refused(t, s, fmt.Sprint("k", i), idem.ErrCompleted).Result))
	}
	require.Empty(t, found(t, b))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Compact(ctx), context.Canceled)
	require.NoError(t, s.Close())
	require.ErrorIs(t, b.Compact(t.Context()), idem.ErrClosed)
}
