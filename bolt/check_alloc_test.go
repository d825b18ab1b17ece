package bolt

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// thousands is a file of over a thousand pages: small values, large ones, buckets in
// a bucket.
func thousands(t testing.TB, path string, large int) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 26})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		small, err := tx.CreateBucket([]byte("small"))
		require.NoError(t, err)
		for i := range uint32(20_000) {
			require.NoError(t, small.Put(binary.BigEndian.AppendUint32(nil, i), make([]byte, 200)))
		}
		big, err := tx.CreateBucket([]byte("large"))
		require.NoError(t, err)
		for i := range uint32(large) {
			require.NoError(t, big.Put(binary.BigEndian.AppendUint32(nil, i), make([]byte, 1<<20)))
		}
		outer, err := tx.CreateBucket([]byte("outer"))
		require.NoError(t, err)
		for i := range uint32(2000) {
			b, err := outer.CreateBucket(binary.BigEndian.AppendUint32(nil, i))
			require.NoError(t, err)
			require.NoError(t, b.Put([]byte("k"), []byte("v")))
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

// What the check allocates depends on how deep the trees are, not on how large the
// file is. It runs alone: others would count too.
func TestCheckAllocatesLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), fileName)
	thousands(t, path, 16)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	meta, _, err := readMetas(f)
	require.NoError(t, err)
	require.Greater(t, meta.pages, uint64(5000))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, checkFile(f, meta))
	runtime.ReadMemStats(&after)
	bytes, count := after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs
	t.Logf("%d pages: %d bytes, %d allocations", meta.pages, bytes, count)
	// Up to four large values share a page with its overflow: the buffer reaches to the
	// last key there.
	require.Less(t, bytes, meta.pages*meta.pageSize/4)
	require.Less(t, bytes, uint64(6<<20))
	require.Less(t, count, meta.pages/50)
}
