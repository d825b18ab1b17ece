package pebble

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// Each byte of a manifest, changed; and each length to which a power cut may have cut
// it. Records cross blocks, and one ends close to a block's end.
func TestC5DamagedChunk(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var begins []int
	w := record.NewWriter(&b)
	for _, size := range []int{100, 1, 32<<10 - 100 - 1 - 3*chunkHead - 2, 300, 40 << 10, 50} {
		rec, err := w.Next()
		require.NoError(t, err)
		_, err = rec.Write(bytes.Repeat([]byte{0xa5}, size))
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		begins = append(begins, b.Len())
	}
	require.NoError(t, w.Close())
	whole := b.Bytes()
	last := begins[len(begins)-2] // where the last record begins
	require.Equal(t, -1, damagedChunk(whole))
	for at := 0; at < len(whole); at += 1 + at/200 {
		whole[at] ^= 0x04
		found := damagedChunk(whole)
		whole[at] ^= 0x04
		switch {
		case at >= last:
			require.Equal(t, -1, found, "byte %d: it may be what a power cut left", at)
		case whole[at] == 0 && at/chunkBlock == 0 && at >= chunkBlock-2: // bytes that nobody uses
			require.Equal(t, -1, found, "byte %d", at)
		default:
			require.GreaterOrEqual(t, found, 0, "byte %d", at)
			require.LessOrEqual(t, found, at)
		}
	}
	for n := 0; n < len(whole); n += 1 + n/100 {
		require.Equal(t, -1, damagedChunk(whole[:n]), "cut to %d bytes", n)
		torn := append(bytes.Clone(whole[:n]), make([]byte, 100)...)
		require.Equal(t, -1, damagedChunk(torn), "cut to %d bytes, and zeroes", n)
	}
}

// C5: a store that was killed has no seal. Damage in its manifest is found all the same
// where a later record shows that it is none of a power cut, and nothing is changed.
func TestC5DamagedManifest(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := idem.New(mustOpen(t, dir, Options{}), idem.Options{SweepInterval: -1})
	require.NoError(t, err)
	for i := range 4 { // each flush is a record
		c, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint(i)})
		require.NoError(t, err)
		require.NoError(t, s.Complete(ctx, c.Token, []byte("result")))
		require.NoError(t, s.Backend().(*Backend).DB().Flush())
	}
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, sealName)))
	desc, err := pebble.Peek(filepath.Join(dir, dbName), vfs.Default)
	require.NoError(t, err)
	b, err := os.ReadFile(desc.ManifestFilename)
	require.NoError(t, err)
	at, lasts := 0, 0
	for at < len(b) {
		n, ok := chunk(b, at)
		require.True(t, ok)
		lasts, at = at, at+n
	}
	require.Greater(t, lasts, 200)
	for at := 0; at < lasts; at += 1 + at/10 {
		b[at] ^= 1
		require.NoError(t, os.WriteFile(desc.ManifestFilename, b, 0o600))
		refused(t, dir, idem.ErrCorrupt)
		b[at] ^= 1
	}
	require.NoError(t, os.WriteFile(desc.ManifestFilename, b, 0o600))
	s, err = idem.New(mustOpen(t, dir, Options{}), idem.Options{})
	require.NoError(t, err)
	for i := range 4 {
		_, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint(i)})
		require.ErrorIs(t, err, idem.ErrCompleted)
	}
	require.NoError(t, s.Close())
}
