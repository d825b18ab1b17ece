package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

func drawDue() *rapid.Generator[engine.Due] {
	return rapid.Custom(func(t *rapid.T) engine.Due {
		at := rapid.OneOf(rapid.SampledFrom([]int64{0, 1, 255, 256, 1 << 32, int64(engine.Never) - 1, int64(engine.Never)}),
			rapid.Int64Range(0, int64(engine.Never))).Draw(t, "at")
		return engine.Due{At: engine.Instant(at), Key: drawKey().Draw(t, "key")}
	})
}

func TestPlaceRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := drawDue().Draw(t, "place")
		got, ok := DecodePlace(AppendPlace(nil, d))
		require.True(t, ok)
		require.Equal(t, d, got)
		require.Equal(t, "before"+string(AppendPlace(nil, d)), string(AppendPlace([]byte("before"), d)))
	})
}

// Places sort by time, those of one time by key: the sweep goes in time order
// and can go on from any place.
func TestPlacesSort(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawDue().Draw(t, "a"), drawDue().Draw(t, "b")
		if rapid.Bool().Draw(t, "same time") {
			b.At = a.At
		}
		want := cmp.Or(cmp.Compare(a.At, b.At), strings.Compare(a.Key, b.Key))
		require.Equal(t, want, bytes.Compare(AppendPlace(nil, a), AppendPlace(nil, b)))
	})
}

func TestNoPlace(t *testing.T) {
	t.Parallel()
	for n := range 9 {
		_, ok := DecodePlace(make([]byte, n))
		require.False(t, ok, "%d bytes hold no key", n)
	}
	_, ok := DecodePlace(make([]byte, 9))
	require.True(t, ok)
	_, ok = DecodePlace(append(binary.BigEndian.AppendUint64(nil, 1<<63), 'k'))
	require.False(t, ok, "a time below zero would sort last: nothing writes it")
}

func TestMetaRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMeta().Draw(t, "meta")
		got, err := DecodeMeta(AppendMeta(nil, m))
		require.NoError(t, err)
		require.Equal(t, m, got)
		require.Equal(t, "before"+string(AppendMeta(nil, m)), string(AppendMeta([]byte("before"), m)))
	})
}

// A time that cannot be stored is stored as the earliest: it says neither "none" nor that
// records are being imported.
func TestMetaOfAClockBefore1970(t *testing.T) {
	t.Parallel()
	for _, importing := range []bool{false, true} {
		got, err := DecodeMeta(AppendMeta(nil, engine.Meta{LostUntil: -5, Importing: importing}))
		require.NoError(t, err)
		require.Equal(t, engine.Meta{LostUntil: 1, Importing: importing}, got)
	}
}

// A backup's meta entry differs from its store's in the mark alone.
func TestMarkBackup(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawMeta().Draw(t, "meta")
		marked, err := MarkBackup(AppendMeta(nil, want))
		require.NoError(t, err)
		got, err := DecodeMeta(marked)
		require.NoError(t, err)
		want.LostUntil = engine.Restored
		require.Equal(t, want, got)
	})
	_, err := MarkBackup([]byte("damaged"))
	require.ErrorIs(t, err, idem.ErrCorrupt)
	_, err = MarkBackup(nil)
	require.ErrorIs(t, err, idem.ErrCorrupt)
}

// A damaged meta entry is never believed.
func TestDamagedMeta(t *testing.T) {
	t.Parallel()
	value := AppendMeta(nil, engine.Meta{Time: 1, Wall: 2, Fence: 3, Epoch: 4, LostUntil: 5, Secret: [16]byte{6, 15: 7}})
	corrupt := func(value []byte) {
		t.Helper()
		m, err := DecodeMeta(value)
		require.ErrorIs(t, err, idem.ErrCorrupt)
		require.NotErrorIs(t, err, idem.ErrVersion)
		require.Zero(t, m)
	}
	for bit := range 8 * len(value) {
		damaged := bytes.Clone(value)
		damaged[bit/8] ^= 1 << (bit % 8)
		corrupt(damaged)
	}
	for n := range value {
		corrupt(value[:n])
		if n > crcSize {
			corrupt(seal(MetaKey, value[:n]))
		}
	}
	corrupt(append(bytes.Clone(value), 0))
	corrupt(seal(MetaKey, append(bytes.Clone(value), 0)))
	corrupt(seal(MetaKey, append([]byte{0}, value[1:]...)))
	corrupt(seal("another key", value))
}

func TestMetaOfAnotherVersion(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 + crcSize, metaSize, metaSize + 40} {
		for _, version := range []byte{1, Version + 1, 255} {
			value := make([]byte, size)
			value[0] = version
			m, err := DecodeMeta(seal(MetaKey, value))
			require.ErrorIs(t, err, idem.ErrVersion)
			require.NotErrorIs(t, err, idem.ErrCorrupt)
			require.Zero(t, m)
		}
	}
}
