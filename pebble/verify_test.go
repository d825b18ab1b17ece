package pebble

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

// Whichever byte of a table is damaged: reading it, and verifying it, ends in order; what is
// read is what was written; and the damage is reported, wherever Pebble has a checksum.
func TestVerifyOfEachByte(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	dir := newFilled(t)
	tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	// Pebble looks for the flipped bit whenever it meets a damaged table, which takes its
	// time. Over many runs each byte has its turn.
	const step = 120
	// The footer, at the end, has no checksum in this format, and some bytes that say nothing.
	const footer = 64
	for _, table := range tables {
		whole, err := os.ReadFile(table)
		require.NoError(t, err)
		for at := rand.IntN(step); at < len(whole); at += step {
			whole[at] ^= 0x14
			require.NoError(t, os.WriteFile(table, whole, 0o600))
			whole[at] ^= 0x14
			b, err := Open(dir, Options{ReadOnly: true, CacheBytes: 1 << 20})
			if err != nil {
				require.ErrorIs(t, err, idem.ErrCorrupt, "byte %d of %d", at, len(whole))
				continue
			}
			report := found(t, b)
			if at < len(whole)-footer {
				require.NotEmpty(t, report, "byte %d of %d", at, len(whole))
			}
			for _, d := range report {
				require.ErrorIs(t, d.Err, idem.ErrCorrupt)
			}
			s, err := idem.New(b, idem.Options{})
			if err != nil {
				require.NotEmpty(t, report, "byte %d: %v", at, err)
				require.NoError(t, b.Close())
				continue
			}
			for _, key := range []string{"a", "b", "c"} {
				r, err := s.Get(t.Context(), key)
				if err != nil {
					require.NotEmpty(t, report, "byte %d: %v", at, err)
					continue
				}
				require.Equal(t, key, string(r.Result))
			}
			require.NoError(t, s.Close(), "byte %d", at)
		}
		require.NoError(t, os.WriteFile(table, whole, 0o600))
	}
	s := storeAt(t, dir, idem.Options{})
	storetest.Refused(t, s, "a", idem.ErrCompleted)
}
