package formattest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// made is as a golden store could have been made.
func made() Made {
	m := Made{KeyHash: "0123456789ab"}
	for i, key := range claimed() {
		fence := uint64(Base) + 100 + uint64(i)
		if i >= secondOpening {
			fence += 1 << 20
		}
		m.Tokens = append(m.Tokens, idem.Token{Key: key, Fence: fence})
	}
	return m
}

// The golden stores show every state there is, and what they are said to hold can be
// held: by a store, with fences of its own for each record.
func TestEntries(t *testing.T) {
	t.Parallel()
	m := made()
	m.check(t)
	states, fences := map[idem.State]bool{}, map[uint64]string{}
	for key, e := range m.Entries() {
		states[e.State] = true
		require.Empty(t, fences[e.Fence], key)
		fences[e.Fence] = key
		require.Contains(t, m.Tokens, idem.Token{Key: key, Fence: e.Fence})
		require.LessOrEqual(t, e.Fence, m.Meta().Fence, key)
		require.LessOrEqual(t, e.Epoch, m.Meta().Epoch, key)
		require.Equal(t, e.ExpiresAt == engine.Never, e.Due == 0, key)
		require.LessOrEqual(t, e.Due, e.ExpiresAt, key)
		got, err := codec.DecodeRecord(key, codec.AppendRecord(nil, key, e))
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
	require.Len(t, states, 5)
	for name, claim := range stale() {
		token := m.Tokens[claim]
		if e := m.Entries()[token.Key]; e != nil && e.Fence == token.Fence {
			require.True(t, e.State == idem.Released || e.ExpiresAt < m.Meta().Time, name)
		}
	}
}

// What is kept of a golden store in a file comes back.
func TestMadeText(t *testing.T) {
	t.Parallel()
	text, err := made().Text()
	require.NoError(t, err)
	got, err := ParseMade(text)
	require.NoError(t, err)
	require.Equal(t, made(), got)
	_, err = ParseMade(append(text, "idem9.1.YQ\n"...))
	require.ErrorIs(t, err, idem.ErrInvalid)
}

func TestOtherVersions(t *testing.T) {
	t.Parallel()
	m := made()
	value := codec.AppendRecord(nil, "k", m.Entries()[KeyCompleted])
	meta := codec.AppendMeta(nil, m.Meta())
	for _, as := range []func(key string, value []byte) []byte{Newer, Older} {
		_, err := codec.DecodeRecord("k", as("k", value))
		require.ErrorIs(t, err, idem.ErrVersion)
		_, err = codec.DecodeMeta(as(codec.MetaKey, meta))
		require.ErrorIs(t, err, idem.ErrVersion)
	}
	_, err := codec.DecodeMeta(Format1Meta())
	require.ErrorIs(t, err, idem.ErrVersion)
	require.ErrorContains(t, err, "is of format 1")
}
