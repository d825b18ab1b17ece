package pebble

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// An idle reader keeps what a flush or compaction has replaced from being freed, and so
// it is closed without anybody writing.
func TestReadersAreClosedByFlushesAndCompactions(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, filepath.Join(t.TempDir(), "store"), Options{})
	defer func() { require.NoError(t, b.Close()) }()
	e := b.engine
	look := func() {
		r, err := e.readers.Get()
		require.NoError(t, err)
		e.readers.Put(r)
	}
	require.NoError(t, b.DB().Set([]byte("k"), nil, pebble.Sync)) // something to flush
	look()
	require.Equal(t, 1, e.readers.Idle(), "a look-up leaves its reader")
	require.NoError(t, b.DB().Flush())
	e.soon.Wait()
	require.Zero(t, e.readers.Idle())

	// Pebble answers who asks for a compaction before it tells its scheduler, and has
	// others of its own going meanwhile: so this is one that only the scheduler hears of.
	look()
	e.compactions.mu.Lock()
	e.compactions.running++
	e.compactions.mu.Unlock()
	grantHandle{&e.compactions}.Done()
	require.Zero(t, e.readers.Idle(), "nor what a compaction has replaced")
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
