package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Every field comes back as it was, nil and empty told apart.
func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key, e := drawKey().Draw(t, "key"), drawEntry().Draw(t, "entry")
		before := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "before")
		b := AppendRecord(append([]byte(nil), before...), key, e)
		require.Equal(t, before, b[:len(before):len(before)], "what was in dst stays")
		value := b[len(before):]
		require.Equal(t, value, AppendRecord(nil, key, e), "what was in dst does not matter")
		got, err := DecodeRecord(key, value)
		require.NoError(t, err)
		require.Equal(t, e, got)

		for i := range value { // the entry shares nothing with the engine's page
			value[i] ^= 0xff
		}
		require.Equal(t, e, got)
	})
}

// Decoded slices have no room to spare: appending to one cannot write into memory
// that somebody else sees.
func TestDecodedSlicesAreTheirOwn(t *testing.T) {
	t.Parallel()
	e := &engine.Entry{State: idem.Completed, Checkpoint: []byte("point"), Result: []byte("result")}
	got, err := DecodeRecord("k", AppendRecord(nil, "k", e))
	require.NoError(t, err)
	_ = append(got.Checkpoint, "overrun"...)
	_ = append(got.Result, "overrun"...)
	require.Equal(t, e, got)
}

// One flipped bit anywhere in a record is ErrCorrupt, and so is a record read
// under a key with one flipped bit.
func TestFlippedBitIsCorrupt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key, e := drawKey().Draw(t, "key"), drawEntry().Draw(t, "entry")
		if len(key) > 100 {
			key = key[:100]
		}
		value := AppendRecord(nil, key, e)
		for bit := range 8 * len(value) {
			value[bit/8] ^= 1 << (bit % 8)
			requireCorrupt(t, key, value)
			value[bit/8] ^= 1 << (bit % 8)
		}
		other := []byte(key)
		for bit := range 8 * len(other) {
			other[bit/8] ^= 1 << (bit % 8)
			requireCorrupt(t, string(other), value)
			other[bit/8] ^= 1 << (bit % 8)
		}
		_, err := DecodeRecord(key, value)
		require.NoError(t, err)
	})
}

// requireCorrupt is require.ErrorIs, without its cost for each of many bits.
func requireCorrupt(t require.TestingT, key string, value []byte) {
	if e, err := DecodeRecord(key, value); e != nil || !errors.Is(err, idem.ErrCorrupt) || errors.Is(err, idem.ErrVersion) {
		require.Nil(t, e)
		require.ErrorIs(t, err, idem.ErrCorrupt)
		require.NotErrorIs(t, err, idem.ErrVersion)
	}
}

// A record cut short or grown is ErrCorrupt, whatever its length says.
func TestWrongLengthIsCorrupt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key, e := drawKey().Draw(t, "key"), drawEntry().Draw(t, "entry")
		value := AppendRecord(nil, key, e)
		for n := range value {
			requireCorrupt(t, key, value[:n])
			if n > crcSize {
				requireCorrupt(t, key, seal(key, value[:n])) // cut, and the checksum is right
			}
		}
		more := append(append([]byte(nil), value...), rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(t, "more")...)
		requireCorrupt(t, key, more)
		requireCorrupt(t, key, seal(key, more))
	})
}

// Another version, older or newer, is told from damage: only where the checksum is
// right. The first byte and the last four keep their place in every version, whatever
// lies between.
func TestRecordOfAnotherVersion(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := drawKey().Draw(t, "key")
		body := rapid.OneOf(
			rapid.SliceOfN(rapid.Byte(), 0, 200),
			rapid.Map(drawEntry(), func(e *engine.Entry) []byte { return AppendRecord(nil, key, e)[1:] }),
		).Draw(t, "body")
		version := rapid.OneOf(rapid.Just(byte(1)), rapid.ByteRange(Version+1, 255)).Draw(t, "version")
		value := seal(key, append(append([]byte{version}, body...), 0, 0, 0, 0))
		e, err := DecodeRecord(key, value)
		require.Nil(t, e)
		require.ErrorIs(t, err, idem.ErrVersion)
		require.NotErrorIs(t, err, idem.ErrCorrupt)
		value[len(value)-1] ^= 1
		requireCorrupt(t, key, value)
	})
}

// What has a right checksum and is still not as the format says is ErrCorrupt, so
// that what the format leaves free stays free for a later version.
func TestMalformedRecordIsCorrupt(t *testing.T) {
	t.Parallel()
	whole := &engine.Entry{State: idem.Completed, Checkpoint: []byte("ab"), Result: []byte("cd")}
	const result = recordHead + 4 + 2 // where the result's length lies
	for name, change := range map[string]func(v []byte) []byte{
		"version 0":              func(v []byte) []byte { v[0] = 0; return v },
		"no state":               func(v []byte) []byte { v[1] = 0; return v },
		"state after the last":   func(v []byte) []byte { v[1] = 6; return v },
		"state 255":              func(v []byte) []byte { v[1] = 255; return v },
		"unknown flag 32":        func(v []byte) []byte { v[2] |= 32; return v },
		"unknown flag 128":       func(v []byte) []byte { v[2] |= 128; return v },
		"reserved byte":          func(v []byte) []byte { v[3] = 1; return v },
		"absent yet not empty":   func(v []byte) []byte { v[2] &^= flagCheckpoint; return v },
		"result absent, has 2":   func(v []byte) []byte { v[2] &^= flagResult; return v },
		"length past the end":    func(v []byte) []byte { v[recordHead] = 100; return v },
		"length near the limit":  func(v []byte) []byte { binary.LittleEndian.PutUint32(v[recordHead:], 1<<32-1); return v },
		"length one short":       func(v []byte) []byte { v[recordHead]--; return v },
		"result length one long": func(v []byte) []byte { v[result]++; return v },
		"result length one less": func(v []byte) []byte { v[result]--; return v },
		"only a version":         func(v []byte) []byte { return v[:1+crcSize] },
		"only the head":          func(v []byte) []byte { return v[:recordHead+crcSize] },
		"one byte under":         func(v []byte) []byte { return append(v[:recordMin-crcSize-1], 0, 0, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := AppendRecord(nil, "key", whole)
			requireCorrupt(t, "key", seal("key", change(value)))
		})
	}
}

// Errors are for people, and go to logs: they never disclose the key or the result.
// Whoever asked names the key by its hash.
func TestErrorsDiscloseNothing(t *testing.T) {
	t.Parallel()
	const key = "customer-4711"
	value := AppendRecord(nil, key, &engine.Entry{State: idem.Completed, Result: []byte("secret")})
	as := func(version byte) []byte { return seal(key, append([]byte{version}, value[1:]...)) }
	for name, value := range map[string][]byte{
		"empty": {}, "short": value[:3], "flipped": append([]byte{7}, value[1:]...),
		"newer": as(9), "older": as(1), "malformed": as(0),
	} {
		_, err := DecodeRecord(key, value)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), key, name)
		require.NotContains(t, err.Error(), "secret", name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

// What is of another version says which, and what to do about it.
func TestErrorsNameTheVersion(t *testing.T) {
	t.Parallel()
	for version, advice := range map[byte]string{
		1:           "use the library that wrote it, or make a new store",
		Version + 1: "use a newer library", 255: "use a newer library",
	} {
		record, meta := AppendRecord(nil, "k", &engine.Entry{State: idem.Completed}), AppendMeta(nil, engine.Meta{})
		record[0], meta[0] = version, version
		_, recordErr := DecodeRecord("k", seal("k", record))
		_, metaErr := DecodeMeta(seal(MetaKey, meta))
		for _, err := range []error{recordErr, metaErr} {
			require.ErrorIs(t, err, idem.ErrVersion)
			require.ErrorContains(t, err, fmt.Sprintf("is of format %d", version))
			require.ErrorContains(t, err, fmt.Sprintf("reads format %d", Version))
			require.ErrorContains(t, err, advice)
		}
	}
}

func TestChecksumIsOverKeyAndValue(t *testing.T) {
	t.Parallel()
	require.Equal(t, uint32(0xE3069283), checksum("", []byte("123456789")), "the check value of CRC-32C")
	for split := range 10 {
		require.Equal(t, uint32(0xE3069283), checksum("123456789"[:split], []byte("123456789")[split:]))
	}
	long := bytes.Repeat([]byte("0123456789abcdef"), 20) // longer than the buffer on the stack
	for _, n := range []int{1, 63, 64, 65, 128, 129, 320} {
		require.Equal(t, checksum("", long), checksum(string(long[:n]), long[n:]), n)
	}
}

func BenchmarkRecord(b *testing.B) {
	e := &engine.Entry{State: idem.Completed, Result: make([]byte, 256)}
	key := "9f2c6a3e-1d52-4d6e-8a3a-0f4f7f1f6f10"
	value := AppendRecord(nil, key, e)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			value = AppendRecord(value[:0], key, e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeRecord(key, value); err != nil {
				b.Fatal(err)
			}
		}
	})
}
