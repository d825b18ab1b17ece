package idem_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// The recipes below are part of the format: what they give is stored and shown to
// others. The values were computed by another program (Python's hashlib) and never
// change; a test that fails here has found a change that breaks stored records.

func TestFingerprintOfIsFrozen(t *testing.T) {
	t.Parallel()
	for want, parts := range map[string][][]byte{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": nil,
		"af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc": {nil},
		"374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb": {nil, {}},
		"c3494ca1a2cf8eeb8a11ded316fb55b83c3bbbedb6313cd50415251e5d09e12f": {[]byte("abc")},
		"3fafa1cf2f19a7c1129beb20cf0983f73a489a221fc0dd2f16d1be292d089205": {[]byte("a"), []byte("bc")},
		"601d5476e2ccfe2c87a2bba7a322659734a05749d5b5aa781f513e4912db0d5f": {[]byte("ab"), []byte("c")},
		"0d8f0452dfc434c896c2437c6b16779fe6bfd95116a3e0f47668735551b7a88e": {[]byte("POST"), []byte("/payments"), []byte("{\"amount\":100}\x00\xff")},
		"a9d42b4ecc000ccb5057ddb73ed9ee81501ddbc2883e9d19af255f7757841e53": {[]byte(strings.Repeat("x", 70_000))},
	} {
		f := idem.FingerprintOf(parts...)
		assert.Equal(t, want, hex.EncodeToString(f[:]))
		assert.False(t, f.IsZero())
	}
	assert.True(t, idem.Fingerprint{}.IsZero())
}

func TestDownstreamKeyIsFrozen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, step, want string }{
		{"txn_001", "charge", "Gz4orWGyhVcg51S6KIci-QidJuJiTNkC4b23efX1prE"},
		{"txn_001", "refund", "OM_rJW6f_la7YyEE_MqaB4fUWeO3KGnDVnMhJkAHt6w"},
		{"txn_002", "charge", "PdBCQbw8f7NjQfFkaJCI3DN6lEXZzB9pX8r8OsU2YlE"},
		{"", "", "WhMBcLwUouPYPch_TRUezekd18NLO6XpRUYnvaL31uk"},
		{"\x00\xff", "step 1", "tCKqTBIBNlkmIDr5RK4jEPync6q2e-RxXeEeREClKLY"},
		{"txn_001charge", "", "LwryRpxz8rmMtg25y2EiVfyJLPQzUiktLuH-Skz0hX0"},
	} {
		assert.Equal(t, c.want, idem.DownstreamKey(c.key, c.step), "%q %q", c.key, c.step)
		assert.Equal(t, c.want, idem.DownstreamKey(c.key, c.step), "the same on every attempt")
	}
}

func TestContentKeyIsFrozen(t *testing.T) {
	t.Parallel()
	for want, parts := range map[string][][]byte{
		"Uow0U57CBU8NgkGR3_7CfAS7EUDvRy0rbdfqQIrG02U": nil,
		"ElzaZxNyxoJzwRvgCtCdIsMDaKtdgAFScHVKUH94LVI": {nil},
		"LSrKhxgioaBciawQGtxDHyNoj2k4QcDgdopdAXTb2ag": {[]byte("order-7"), []byte(`{"amount":100}`)},
		"62kMuyQ0l2OBYH9J8-ne_7HRLlRKuxavwZbmZEe3oXk": {[]byte("order-7{"), []byte(`"amount":100}`)},
		"i_f5CdHfLiFC8LZAIM-LEVZJRI2vvrbOHhfMWItiyYQ": {[]byte("order-8"), []byte(`{"amount":100}`)},
		"SpkvvxBDcEgK2HJTvogRjStLk_3Caevh-Jmv0Pd5gJQ": {[]byte("\x00\xff\x00\xff\x00\xff")},
		"FQTIPgeBU3FRj6J7XMu1-DsyiUUMEnrOnnn9_UwUfL0": {[]byte("txn_001"), []byte("charge")},
	} {
		assert.Equal(t, want, idem.ContentKey(parts...), "%q", parts)
		assert.Len(t, want, 43, "fits every limit on keys")
	}
	assert.NotEqual(t, idem.DownstreamKey("txn_001", "charge"), idem.ContentKey([]byte("txn_001"), []byte("charge")), "each in a domain of its own")
}

// What clients of different make send for one operation is one key; another amount
// is another.
func TestContentKeyOfCanonicalJSON(t *testing.T) {
	t.Parallel()
	key := func(body string) string {
		c, err := idem.CanonicalJSON([]byte(body))
		require.NoError(t, err)
		return idem.ContentKey([]byte("order-7"), c)
	}
	assert.Equal(t, key(`{"amount":100,"currency":"EUR"}`), key("{ \"currency\": \"\\u0045UR\",\n \"amount\": 1.0e2 }"))
	assert.NotEqual(t, key(`{"amount":100,"currency":"EUR"}`), key(`{"amount":101,"currency":"EUR"}`))
	assert.NotEqual(t, key(`{"account":1234567890123456788}`), key(`{"account":1234567890123456789}`))
}

func TestCanonicalJSONErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"secret":1,"secret":2}`: "idem: invalid argument: JSON: at byte 12: a name that the object has already",
		`secret`:                  "idem: invalid argument: JSON: at byte 0: something else instead of a value",
		"":                        "idem: invalid argument: JSON: at byte 0: the end instead of a value",
		`[1,1e1000000000]`:        "idem: invalid argument: JSON: at byte 3: a number with an exponent beyond 999999999",
	} {
		out, err := idem.CanonicalJSON([]byte(in))
		assert.Nil(t, out)
		assert.ErrorIs(t, err, idem.ErrInvalid)
		assert.EqualError(t, err, want)
	}
}

func TestJoinKeyIsFrozen(t *testing.T) {
	t.Parallel()
	for want, parts := range map[string][]string{
		"":                          nil,
		"%":                         {""},
		"%/%":                       {"", ""},
		"txn_001":                   {"txn_001"},
		"acme/charge/txn_001":       {"acme", "charge", "txn_001"},
		"acme/charge%2Ftxn_001":     {"acme", "charge/txn_001"},
		"acme%2Fcharge/txn_001":     {"acme/charge", "txn_001"},
		"100%25/%/%252F":            {"100%", "", "%2F"},
		"%25/%25":                   {"%", "%"},
		"\x00\xff/\u00e9 \n/%2F%2F": {"\x00\xff", "\u00e9 \n", "//"},
	} {
		assert.Equal(t, want, idem.JoinKey(parts...), "%q", parts)
	}
}

func TestTokenTextIsFrozen(t *testing.T) {
	t.Parallel()
	for want, token := range map[string]idem.Token{
		"idem1.7.dHhuXzAwMQ":              {Key: "txn_001", Fence: 7},
		"idem1.18446744073709551615.AP_-": {Key: "\x00\xff\xfe", Fence: 1<<64 - 1},
		"idem1.1.YS5iL2M_":                {Key: "a.b/c?", Fence: 1},
		"idem1.1794268800000000.w6k":      {Key: "\u00e9", Fence: 1794268800000000},
	} {
		text, err := token.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
		var back idem.Token
		require.NoError(t, back.UnmarshalText([]byte(want)))
		assert.Equal(t, token, back)
	}
}

func TestTokenTextRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":            "",
		"another word":       "token",
		"another version":    "idem2.7.dHhuXzAwMQ",
		"version in capital": "IDEM1.7.dHhuXzAwMQ",
		"no fence":           "idem1.dHhuXzAwMQ",
		"empty fence":        "idem1..dHhuXzAwMQ",
		"fence zero":         "idem1.0.dHhuXzAwMQ",
		"fence with sign":    "idem1.+7.dHhuXzAwMQ",
		"fence negative":     "idem1.-7.dHhuXzAwMQ",
		"fence with zero":    "idem1.07.dHhuXzAwMQ",
		"fence in hex":       "idem1.0x7.dHhuXzAwMQ",
		"fence too large":    "idem1.18446744073709551616.dHhuXzAwMQ",
		"no key":             "idem1.7",
		"empty key":          "idem1.7.",
		"key padded":         "idem1.7.dHhuXzAwMQ==",
		"key of another abc": "idem1.7.YS5iL2M/",
		"key with stray bit": "idem1.7.dHhuXzAwMR",
		"key with newline":   "idem1.7.dHhu\nXzAwMQ",
		"key with return":    "idem1.7.dHhuXzAwMQ\r",
		"key with dot":       "idem1.7.dHhu.XzAwMQ",
		"key too long":       "idem1.7." + strings.Repeat("YWFh", idem.MaxKey/3+1),
		"space around":       " idem1.7.dHhuXzAwMQ ",
	} {
		token := idem.Token{Key: "as it was", Fence: 3}
		require.ErrorIs(t, token.UnmarshalText([]byte(text)), idem.ErrInvalid, name)
		assert.Equal(t, idem.Token{Key: "as it was", Fence: 3}, token, name)
	}
	for name, token := range map[string]idem.Token{
		"zero":     {},
		"no fence": {Key: "k"},
		"no key":   {Fence: 1},
		"long key": {Key: strings.Repeat("k", idem.MaxKey+1), Fence: 1},
	} {
		_, err := token.MarshalText()
		require.ErrorIs(t, err, idem.ErrInvalid, name)
	}
}
