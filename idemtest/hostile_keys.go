package idemtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// keysOfAnyBytes returns keys that an engine may trip over.
func keysOfAnyBytes() []string {
	keys := map[string]bool{}
	add := func(parts ...string) {
		if key := strings.Join(parts, ""); key != "" && len(key) <= idem.MaxKey {
			keys[key] = true
		}
	}
	for b := range 256 {
		add(string([]byte{byte(b)}))
		add(string([]byte{byte(b), 0}))
		add(string([]byte{byte(b), 0xff}))
	}
	// Each a prefix of the next, of every length.
	text := string(noise(7, idem.MaxKey))
	for n := 1; n <= idem.MaxKey; n++ {
		add(text[:n])
	}
	for _, run := range []string{"\x00", "\xff", "\x7f", "\x80", "a", "\xfe\xff", "\x00\x01"} {
		for _, n := range []int{1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024} {
			add(strings.Repeat(run, n)[:n])
		}
	}
	// Names that engines reserve, or separators they use.
	for _, reserved := range []string{
		"idem", "idem\x00", "idem\x00\x00", "idem\x00\x01", "idem\x00\x02", "idem\x00\xff", "idem\xff", "idem\x01",
		"idem.records", "idem.expiry", "idem.meta", "meta", "IDEM", "own/", "/", "..", "../..", ".", "\\", "%", "*",
	} {
		add(reserved)
		add(reserved, "k")
		add(reserved, "\x00")
		add(reserved, "\xff")
		add(reserved, strings.Repeat("\xff", idem.MaxKey-len(reserved)))
	}
	// Keys that look like a place in an index by time, or a length before a key.
	for _, at := range []uint64{0, 1, 255, 256, uint64(start.UnixNano()), math.MaxInt64 - 1, math.MaxInt64, 1 << 63, math.MaxUint64} {
		big, little := binary.BigEndian.AppendUint64(nil, at), binary.LittleEndian.AppendUint64(nil, at)
		for _, place := range []string{string(big), string(little)} {
			add(place)
			add(place, "k")
			add(place, "\x00")
			add("\x00", place)
			add("\x01", place, place)
			add("idem\x00\x01", place, "k")
			add("idem\x00\x00", place)
		}
	}
	for _, invalid := range []string{
		"\xc3\x28", "\xa0\xa1", "\xe2\x28\xa1", "\xf0\x28\x8c\xbc", "\xed\xa0\x80", "\xed\xbf\xbf", "\xc0\x80", "\xf4\x90\x80\x80",
		"\xef\xbb\xbfk", "\u2028", "\u202e", "\ufffd", "\u00e9", "e\u0301", "\u0130", "ss", "\u00df", "K", "\u212a",
	} {
		add(invalid)
		add("k", invalid)
		add(invalid, "k")
	}
	for _, text := range []string{" ", "  ", "\t", "\n", "\r\n", "k ", " k", "k\n", "k\x00", "k", "null", "true", "0", "-1", "'", `"`, `' OR 1=1`, "${x}", "{}"} {
		add(text)
	}
	all := make([]string, 0, len(keys))
	for key := range keys {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

func hostileKeys(t *testing.T, e *env) {
	keys := keysOfAnyBytes()
	e.open(idem.Options{MaxBatch: 500, SweepSlice: 100, Lease: time.Minute})
	result := func(key string) []byte { sum := sha256.Sum256([]byte(key)); return sum[:] }
	// Every third key expires after an hour, and every third stays in flight.
	short := func(i int) bool { return i%3 == 1 }
	flying := func(i int) bool { return i%3 == 2 }
	fences := make(map[string]uint64, len(keys))
	for from := 0; from < len(keys); from += 500 {
		part := keys[from:min(from+500, len(keys))]
		requests := make([]idem.Request, len(part))
		for i, key := range part {
			requests[i] = idem.Request{Key: key, Retention: 1000 * time.Hour}
			if short(from + i) {
				requests[i].Retention = time.Hour
			}
		}
		var done []idem.Completion
		for i, c := range e.s.ClaimMany(e.ctx, requests) {
			require.NoError(t, c.Err, "%q", part[i])
			require.Equal(t, part[i], c.Claim.Token.Key)
			text, err := c.Claim.Token.MarshalText()
			require.NoError(t, err)
			var token idem.Token
			require.NoError(t, token.UnmarshalText(text))
			require.Equal(t, c.Claim.Token, token)
			fences[part[i]] = token.Fence
			if !flying(from + i) {
				done = append(done, idem.Completion{Token: token, Result: result(token.Key)})
			}
		}
		for i, err := range e.s.CompleteMany(e.ctx, done) {
			require.NoError(t, err, "%q", done[i].Token.Key)
		}
	}
	check := func(there func(i int) bool) {
		t.Helper()
		for i, key := range keys {
			r, err := e.s.Get(e.ctx, key)
			switch {
			case !there(i):
				require.ErrorIs(t, err, idem.ErrNotFound, "%q", key)
			case err != nil || r.Key != key || r.Fence != fences[key]:
				t.Fatalf("%q: %v, %v; the fence is to be %d", key, r, err, fences[key])
			case flying(i) && r.State != idem.InFlight, !flying(i) && !bytes.Equal(r.Result, result(key)):
				t.Fatalf("%q: %v: another result", key, r)
			}
		}
		if e.canScan() {
			checkPrefixes(e, keys, there)
		}
	}
	all := func(int) bool { return true }
	e.alsoReopened(func() { check(all) })
	e.clock.Advance(time.Hour)
	longer := func(i int) bool { return !short(i) }
	gone := 0
	for i := range keys {
		if short(i) {
			gone++
		}
	}
	check(longer)
	if e.canExpire() {
		require.Equal(t, gone, e.sweepAll())
	}
	e.alsoReopened(func() { check(longer) })
	for i, key := range keys { // an expired key is as good as new; its old token is not
		if short(i) && i%7 == 0 {
			c := e.claim(idem.Request{Key: key})
			require.Greater(t, c.Token.Fence, fences[key])
			require.ErrorIs(t, e.s.Complete(e.ctx, idem.Token{Key: key, Fence: fences[key]}, nil), idem.ErrFenced)
		}
	}
	t.Logf("%d keys", len(keys))
}

// checkPrefixes lists the records under many prefixes and requires exactly those there
// are.
func checkPrefixes(e *env, keys []string, there func(i int) bool) {
	e.t.Helper()
	prefixes := []string{
		"", "\xff", "\xff\xff", strings.Repeat("\xff", 8), strings.Repeat("\xff", 1023), strings.Repeat("\xff", 1024),
		strings.Repeat("\xff", 1025), "\x00", "\x00\x00", strings.Repeat("\x00", 1024), "idem", "idem\x00", "idem\x00\x01",
		"idem\x00\xff", "idem\xff", "\xfe\xff", "\xc3", "\xed\xa0", "k", "no such key",
	}
	for i := 0; i < len(keys); i += len(keys) / 16 {
		prefixes = append(prefixes, keys[i], keys[i][:(len(keys[i])+1)/2])
	}
	for _, prefix := range prefixes {
		want := map[string]bool{}
		for i, key := range keys {
			if there(i) && strings.HasPrefix(key, prefix) {
				want[key] = true
			}
		}
		for r, err := range e.s.Records(e.ctx, idem.Filter{Prefix: prefix}) {
			require.NoError(e.t, err)
			if !want[r.Key] {
				e.t.Fatalf("under %q: %q is too much, or seen twice", prefix, r.Key)
			}
			delete(want, r.Key)
		}
		require.Empty(e.t, want, fmt.Sprintf("under %q: not seen", prefix))
	}
}
