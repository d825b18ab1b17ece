package bolt

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// flip changes a bit of the file at path, and back.
func flip(t *testing.T, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	require.NoError(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// Whichever byte of a record is damaged, Verify says which record it is, or that its key is
// not where it should be.
func TestVerifyNamesTheRecordOfEachByte(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	s := storeAt(t, path, idem.Options{})
	hashes := map[string]string{}
	for i := range 3 {
		key := fmt.Sprint("key ", i)
		storetest.Complete(t, s, key, fmt.Sprint("result ", i))
		hashes[key] = s.KeyHash(key)
	}
	require.NoError(t, s.Close())
	type span struct {
		key             string
		from, value, to int64
	}
	var spans []span
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		at := func(b []byte) int64 { return int64(uintptr(unsafe.Pointer(&b[0])) - db.Info().Data) }
		return tx.Bucket(buckets[txbackend.Records]).ForEach(func(k, v []byte) error {
			spans = append(spans, span{string(k), at(k), at(v), at(v) + int64(len(v))})
			return nil
		})
	}))
	require.NoError(t, db.Close())
	require.Len(t, spans, 3)
	for _, sp := range spans {
		for at := sp.from; at < sp.to; at++ {
			flip(t, path, at, int(at%8))
			b := mustOpen(t, path, Options{ReadOnly: true})
			read := storetest.Open(t, b, idem.Options{})
			report := found(t, b)
			require.NotEmpty(t, report, "byte %d of %q", at-sp.from, sp.key)
			for _, d := range report {
				require.ErrorIs(t, d.Err, idem.ErrCorrupt)
			}
			if at >= sp.value {
				require.Equal(t, []string{"record"}, whats(report), "byte %d of %q", at-sp.from, sp.key)
				require.Equal(t, hashes[sp.key], report[0].KeyHash)
			}
			require.NoError(t, read.Close())
			flip(t, path, at, int(at%8))
		}
	}
	b := mustOpen(t, path, Options{ReadOnly: true})
	require.Empty(t, found(t, b))
	require.NoError(t, b.Close())
}

// One of the two meta pages may be damaged and the file still opens, perhaps as it was before
// the last commit. Verify says so.
func TestVerifyFindsADamagedMetaPage(t *testing.T) {
	t.Parallel()
	path := newFilled(t, 40)
	b := mustOpen(t, path, Options{ReadOnly: true})
	size := b.engine.pageSize
	require.NoError(t, b.Close())
	for page := range int64(2) {
		for _, at := range []int64{0, 8, 16, 40, 48, 56, 63} {
			flip(t, path, page*size+pageHeader+at, 3)
			b := mustOpen(t, path, Options{ReadOnly: true})
			report := found(t, b)
			require.Equal(t, []string{"page"}, whats(report), "byte %d of page %d", at, page)
			require.ErrorIs(t, report[0].Err, idem.ErrCorrupt)
			require.ErrorContains(t, report[0].Err, fmt.Sprintf("page %d,", page))
			require.NoError(t, b.Close())
			flip(t, path, page*size+pageHeader+at, 3)
		}
	}

	// While the store is open, one of them may be half written at any moment.
	s := storeAt(t, path, idem.Options{SweepInterval: -1})
	for page := range int64(2) {
		flip(t, path, page*size+pageHeader+8, 3)
		require.NoError(t, engine.Of(s).(*Backend).Verify(t.Context(), func(d engine.Damage) { t.Errorf("%s: %v", d.What, d.Err) }))
		flip(t, path, page*size+pageHeader+8, 3)
	}
	require.NoError(t, s.Close())
}
