package golden_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/golden"
)

// The golden stores show every state there is, and what they are said to hold can be
// held: by a store of format 1, with fences of its own for each record.
func TestEntries(t *testing.T) {
	t.Parallel()
	states, fences := map[idem.State]bool{}, map[uint64]string{}
	for key, e := range golden.Entries() {
		states[e.State] = true
		require.Empty(t, fences[e.Fence], key)
		fences[e.Fence] = key
		require.LessOrEqual(t, e.Fence, golden.Meta().Fence, key)
		require.LessOrEqual(t, e.Opening, golden.Meta().Opening, key)
		require.Equal(t, e.ExpiresAt == idem.Never, e.Due == 0, key)
		require.LessOrEqual(t, e.Due, e.ExpiresAt, key)
		got, err := codec.DecodeRecord(key, codec.AppendRecord(nil, key, e))
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
	require.Len(t, states, 5)
	for name, token := range golden.Stale() {
		if e := golden.Entries()[token.Key]; e != nil && e.Fence == token.Fence {
			require.True(t, e.State == idem.Released || e.ExpiresAt < golden.Meta().Time, name)
		}
	}
}

func TestNewer(t *testing.T) {
	t.Parallel()
	value := codec.AppendRecord(nil, "k", golden.Entries()[golden.KeyCompleted])
	_, err := codec.DecodeRecord("k", golden.Newer("k", value))
	require.ErrorIs(t, err, idem.ErrVersion)
	_, err = codec.DecodeMeta(golden.Newer(codec.MetaKey, codec.AppendMeta(nil, golden.Meta())))
	require.ErrorIs(t, err, idem.ErrVersion)
}
