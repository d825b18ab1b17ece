package idem_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
)

func TestKeyTime(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]time.Time{
		"017F22E2-79B0-7CC3-98C4-DC0C0C07398F": time.Date(2022, 2, 22, 19, 22, 22, 0, time.UTC), // RFC 9562, A.6
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398f": time.Date(2022, 2, 22, 19, 22, 22, 0, time.UTC),
		"00000000-0000-7000-8000-000000000000": time.UnixMilli(0),
		"ffffffff-ffff-7fff-bfff-ffffffffffff": time.UnixMilli(1<<48 - 1),
		"01ARYZ6S41TSV4RRFFQ69G5FAV":           time.UnixMilli(1469918176385), // the ULID specification
		"01aryz6s41tsv4rrffq69g5fav":           time.UnixMilli(1469918176385),
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ":           time.UnixMilli(1<<48 - 1), // the largest there is
	} {
		got, ok := idem.KeyTime(key)
		require.True(t, ok, key)
		require.True(t, want.Equal(got), "%s: %v", key, got)
	}
	for name, key := range map[string]string{
		"empty":             "",
		"UUIDv4":            "919108f7-52d1-4320-9bac-f847db4148a8",
		"UUIDv1":            "c232ab00-9414-11ec-b3c8-9f6bdeced846",
		"another variant":   "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
		"no dashes":         "017f22e279b07cc398c4dc0c0c07398f",
		"dashes elsewhere":  "017f22e27-9b0-7cc3-98c4-dc0c0c07398f",
		"no digit":          "017g22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"braces":            "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
		"a scope":           "shop/017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"ULID of 129 bits":  "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"a letter left out": "01ARYZ6S41TSV4RRFFQ69G5FAU",
		"an order":          "order-2026-11-0000000001-x",
		"not ASCII":         "01ARYZ6S41TSV4RRFFQ69G5F\u00e9",
	} {
		got, ok := idem.KeyTime(key)
		require.False(t, ok, name)
		require.Zero(t, got, name)
	}
}

// Whatever the time and the random bits, the time is read.
func TestKeyTimeOfAnyKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")
		random := rapid.SliceOfN(rapid.Byte(), 10, 10).Draw(t, "random")
		random[0] = random[0]&0x0f | 0x70
		random[2] = random[2]&0x3f | 0x80
		digits := fmt.Sprintf("%012x", ms) + hex.EncodeToString(random)
		uuid := strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-")
		ulid := make([]byte, 26)
		for i := range ulid {
			shift := 45 - 5*i
			digit := int64(random[i%10] & 31)
			if i < 10 {
				digit = ms >> shift & 31
			}
			ulid[i] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[digit]
		}
		for _, key := range []string{uuid, strings.ToUpper(uuid), string(ulid), strings.ToLower(string(ulid))} {
			got, ok := idem.KeyTime(key)
			require.True(t, ok, key)
			require.Equal(t, ms, got.UnixMilli(), key)
		}
	})
}

// A request whose key says that it is older than its retention is not run again.
func TestKeyTimeAsIssuedAt(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := memoryStore(idem.Options{Clock: clock, SweepInterval: -1, Retention: time.Hour})
	defer s.Close()
	clock.Advance(time.Hour)
	wall, _ := clock.Now()
	key := fmt.Sprintf("%08x-%04x-7cc3-98c4-dc0c0c07398f", wall.UnixMilli()>>16, wall.UnixMilli()&0xffff)
	ask := func() error {
		issued, ok := idem.KeyTime(key)
		require.True(t, ok)
		c, err := s.Claim(t.Context(), idem.Request{Key: key, IssuedAt: issued})
		if err == nil {
			require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		}
		return err
	}
	require.NoError(t, ask())
	clock.Advance(time.Hour - 1)
	require.ErrorIs(t, ask(), idem.ErrCompleted)
	clock.Advance(1)
	require.ErrorIs(t, ask(), idem.ErrTooLate)
}
