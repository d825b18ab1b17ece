package jcs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func canonical(t *testing.T, in string) string {
	t.Helper()
	out, err := Canonical([]byte(in))
	require.NoError(t, err, in)
	return string(out)
}

// A text and its canonical form.
type written struct{ name, in, want string }

func checkWritten(t *testing.T, cases []written) {
	t.Helper()
	for _, c := range cases {
		assert.Equal(t, c.want, canonical(t, c.in), c.name)
		assert.Equal(t, c.want, canonical(t, c.want), "%s, again", c.name)
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"null":                       "null",
		" \t\r\n true \n":            "true",
		"[ ]":                        "[]",
		"{ }":                        "{}",
		`""`:                         `""`,
		`[ 1 , [ ] , { } , "a" ]`:    `[1,[],{},"a"]`,
		"-0":                         "0",
		"-0.0e5":                     "0",
		"1.0":                        "1",
		"1e2":                        "100",
		"100E-2":                     "1",
		"0.1e1":                      "1",
		"1e-400":                     "1e-400",
		"1e-7":                       "1e-7",
		"123456789012345680000":      "123456789012345680000",
		"1.5e300":                    "1.5e+300",
		`{"b":1,"a":2}`:              `{"a":2,"b":1}`,
		`{"a":1,"b":2}`:              `{"a":1,"b":2}`,
		`{"":1,"\u0061":2}`:          `{"":1,"a":2}`,
		`{"aa":1,"a":2,"":3}`:        `{"":3,"a":2,"aa":1}`,
		`"\u0000\u001F\b\t\n\f\r\v"`: "", // \v is none of JSON's
		`"\u0000\u0008\u0009\u000a\u000b\u000c\u000d\u001F"`: `"\u0000\b\t\n\u000b\f\r\u001f"`,
		`"\/\u002f/"`:                          `"///"`,
		`"\u007f\u0085\u2028\u2029\ufeff"`:     "\"\u007f\u0085\u2028\u2029\ufeff\"",
		`"<>&\u003c"`:                          `"<>&<"`,
		`"\ud834\udd1e \uD834\uDD1E \uFFFD"`:   "\"\U0001D11E \U0001D11E \uFFFD\"",
		"\"\uFFFD\U0010FFFF\"":                 "\"\uFFFD\U0010FFFF\"",
		`{"z":[{"d":{"f":1,"e":2}},3],"c":{}}`: `{"c":{},"z":[{"d":{"e":2,"f":1}},3]}`,
		`[{"b":{"d":1,"c":2},"a":0},{"a":0,"b":0},{"b":[{"y":0,"x":0}],"a":{}}]`: `[{"a":0,"b":{"c":2,"d":1}},{"a":0,"b":0},{"a":{},"b":[{"x":0,"y":0}]}]`,
		`{"a":{"y":0,"x":0},"b":[{"n":0,"m":0},1],"c":2}`:                        `{"a":{"x":0,"y":0},"b":[{"m":0,"n":0},1],"c":2}`,
		// Above U+FFFF comes before U+E000 to U+FFFF, and after everything else.
		"{\"\U00010000\":0,\"\uE000\":1,\"\uD7FF\":2,\"\U0010FFFF\":3,\"\U00010001\":4}": "{\"\uD7FF\":2,\"\U00010000\":0,\"\U00010001\":4,\"\U0010FFFF\":3,\"\uE000\":1}",
	} {
		if want == "" {
			_, err := Canonical([]byte(in))
			assert.Error(t, err, in)
			continue
		}
		assert.Equal(t, want, canonical(t, in), in)
		assert.Equal(t, want, canonical(t, want), "%s, again", in)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in     string
		offset int
		says   string
	}{
		{"", 0, "the end instead of a value"},
		{"  ", 2, "the end instead of a value"},
		{"{", 1, "the end instead of a name"},
		{"[1", 2, "the end instead of a comma"},
		{"[1,]", 3, "something else instead of a value"},
		{"[,1]", 1, "something else instead of a value"},
		{"[1 2]", 3, "something else instead of a comma"},
		{`{"a" 1}`, 5, "instead of a colon"},
		{`{"a":1,}`, 7, "instead of a name"},
		{`{a:1}`, 1, "instead of a name"},
		{`{"a":1 "b":2}`, 7, "instead of a comma"},
		{`{"a":}`, 5, "instead of a value"},
		{"nul", 0, "instead of a value"},
		{"nullx", 4, "data after the value"},
		{"{} {}", 3, "data after the value"},
		{"1\x00", 1, "data after the value"},
		{"\x00", 0, "something else instead of a value"},
		{"NaN", 0, "instead of a value"},
		{"-Infinity", 1, "instead of a digit"},
		{"+1", 0, "instead of a value"},
		{".5", 0, "instead of a value"},
		{"1.", 2, "the end instead of a digit after the point"},
		{"1e+", 3, "the end instead of a digit of the exponent"},
		{"01", 1, "data after the value"},
		{"0x10", 1, "data after the value"},
		{"1_0", 1, "data after the value"},
		{"[1e1000000000]", 1, "an exponent beyond 999999999"},
		{"-1e-999999999999", 0, "an exponent beyond 999999999"},
		{`"abc`, 4, "the end instead of the end of the string"},
		{`"abc\`, 4, "an escape that JSON does not have"},
		{`"\n`, 3, "the end instead of the end of the string"},
		{`"\x41"`, 1, "an escape that JSON does not have"},
		{`"\u12"`, 1, "without four hexadecimal digits"},
		{`"\u+123"`, 1, "without four hexadecimal digits"},
		{"\"a\nb\"", 2, "control character"},
		{"\"\\\\\tb\"", 3, "control character"},
		{`"\ud800"`, 1, "lone surrogate"},
		{`"a\ud800x"`, 2, "lone surrogate"},
		{`"\udc00\ud800"`, 1, "lone surrogate"},
		{`"\ud800\ud800"`, 1, "lone surrogate"},
		{`"\ud800\u0041"`, 1, "lone surrogate"},
		{"\"a\xffb\"", 2, "invalid UTF-8"},
		{"\"\xed\xa0\x80\"", 1, "invalid UTF-8"}, // a surrogate
		{"\"\xc0\x80\"", 1, "invalid UTF-8"},     // overlong
		{"\"\uFFFD\xf4\x90\x80\x80\"", 4, "invalid UTF-8"},
		{"\xef\xbb\xbf1", 0, "something else instead of a value"}, // a byte order mark
		{`{"a":1,"a":1}`, 7, "already"},
		{`{"a":1,"\u0061":2}`, 7, "already"},
		{`{"b":0,"a":1,"c":0,"a":2}`, 19, "already"},
		{`[{"x":{"b":0,"a":1,"a":2}}]`, 19, "already"},
		{strings.Repeat("[", MaxDepth+1), MaxDepth, "deeper than 10000"},
		{strings.Repeat(`{"":`, MaxDepth) + "[]", 4 * MaxDepth, "deeper than 10000"},
	} {
		name := c.in[:min(len(c.in), 40)]
		out, err := Canonical([]byte(c.in))
		assert.Nil(t, out, "%q", name)
		var e *Error
		require.ErrorAs(t, err, &e, "%q", name)
		assert.Equal(t, c.offset, e.Offset, "%q: %v", name, err)
		assert.ErrorContains(t, err, c.says, "%q", name)
		assert.Contains(t, err.Error(), fmt.Sprintf("at byte %d: ", c.offset))
	}
}

// An error can be logged: it quotes nothing of what it is about.
func TestErrorsDiscloseNothing(t *testing.T) {
	t.Parallel()
	for _, in := range []string{`{"secret":secret}`, `["secret" "secret"]`, `{"secret":1,"secret":2}`, `"secret\q"`, "1secret", `"secret` + "\xff", "1e7777777777777777777777"} {
		_, err := Canonical([]byte(in))
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "secret")
		assert.NotContains(t, err.Error(), "777")
	}
}

func TestDeepNestingIsLinear(t *testing.T) {
	t.Parallel()
	// Each level unsorted, around a large value: sorting at each object's end would
	// copy 10,000 times 100 kB.
	inner := `"` + strings.Repeat("x", 100_000) + `"`
	in := strings.Repeat(`{"b":0,"a":`, MaxDepth) + inner + strings.Repeat("}", MaxDepth)
	want := strings.Repeat(`{"a":`, MaxDepth) + inner + strings.Repeat(`,"b":0}`, MaxDepth)
	p := parser{src: in}
	require.NoError(t, p.value(0))
	s := sorter{parser: &p}
	s.emit(0, len(p.out), 0)
	assert.Equal(t, want, string(s.dst))
	assert.Empty(t, p.members)
	assert.Len(t, p.unsorted, MaxDepth)
}

// Names are in the order of their UTF-16 code units, as the standard library has them.
func TestCompareUTF16(t *testing.T) {
	t.Parallel()
	runes := rapid.SliceOfN(rapid.OneOf(
		rapid.SampledFrom([]rune{0, 'a', 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x103FF, 0x10400, 0x10FFFF}), rapid.Rune()), 0, 4)
	sign := func(n int) int { return min(max(n, -1), 1) }
	rapid.Check(t, func(t *rapid.T) {
		a, b := string(runes.Draw(t, "a")), string(runes.Draw(t, "b"))
		want := slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		if got := compareUTF16(a, b); sign(got) != want {
			t.Fatalf("%q and %q compare as %d, want %d", a, b, got, want)
		}
	})
}

func TestInputIsOnlyRead(t *testing.T) {
	t.Parallel()
	in := []byte(` { "b" : 1 , "a" : 2 } `)
	kept := slices.Clone(in)
	out, err := Canonical(in)
	require.NoError(t, err)
	assert.Equal(t, kept, in)
	clear(in)
	assert.Equal(t, `{"a":2,"b":1}`, string(out))
}
