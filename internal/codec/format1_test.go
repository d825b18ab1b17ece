package codec

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A completed record and a meta entry as format 1 wrote them, before the first release.
const (
	format1Key    = "txn_008"
	format1Record = "010408000100000041f34cf65e47060001000000000000000632961cf2ca861806deb918f9ca8618" +
		"06249c46f3ca86180624ebd7871987180632e5ad8619871800ac23fc0600000000004f91944e0000" +
		"cb68e028b60c45736b198356dca72117240d662cd80468cef300670fc8be417e" +
		"000000000f0000007b2263686172676564223a3130307dcd574001"
	format1Meta = "010632961cf2ca86180632961cf2ca861840f34cf65e470600010000000000000087c389d4"
)

func format1(t testing.TB, text string) []byte {
	b, err := hex.DecodeString(text)
	require.NoError(t, err)
	return b
}

// What format 1 wrote is told from damage, and nothing of it is taken for format 2.
func TestFormat1IsRefused(t *testing.T) {
	t.Parallel()
	e, err := DecodeRecord(format1Key, format1(t, format1Record))
	require.ErrorIs(t, err, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.Nil(t, e)
	m, err := DecodeMeta(format1(t, format1Meta))
	require.ErrorIs(t, err, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	require.Zero(t, m)

	damaged := format1(t, format1Record)
	damaged[40] ^= 1
	requireCorrupt(t, format1Key, damaged)
}
