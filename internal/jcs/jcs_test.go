package jcs

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
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

// The example of RFC 8785, 3.2.2 to 3.2.4, with the bytes given there.
func TestRFC8785Example(t *testing.T) {
	t.Parallel()
	const in = `{
  "numbers": [333333333.33333329, 1E30, 4.50,
              2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}`
	want := []byte{
		0x7b, 0x22, 0x6c, 0x69, 0x74, 0x65, 0x72, 0x61, 0x6c, 0x73, 0x22, 0x3a, 0x5b, 0x6e, 0x75, 0x6c, 0x6c, 0x2c, 0x74, 0x72,
		0x75, 0x65, 0x2c, 0x66, 0x61, 0x6c, 0x73, 0x65, 0x5d, 0x2c, 0x22, 0x6e, 0x75, 0x6d, 0x62, 0x65, 0x72, 0x73, 0x22, 0x3a,
		0x5b, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x2e, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x2c, 0x31,
		0x65, 0x2b, 0x33, 0x30, 0x2c, 0x34, 0x2e, 0x35, 0x2c, 0x30, 0x2e, 0x30, 0x30, 0x32, 0x2c, 0x31, 0x65, 0x2d, 0x32, 0x37,
		0x5d, 0x2c, 0x22, 0x73, 0x74, 0x72, 0x69, 0x6e, 0x67, 0x22, 0x3a, 0x22, 0xe2, 0x82, 0xac, 0x24, 0x5c, 0x75, 0x30, 0x30,
		0x30, 0x66, 0x5c, 0x6e, 0x41, 0x27, 0x42, 0x5c, 0x22, 0x5c, 0x5c, 0x5c, 0x5c, 0x5c, 0x22, 0x2f, 0x22, 0x7d,
	}
	assert.Equal(t, string(want), canonical(t, in))
}

// The sorting example of RFC 8785, 3.2.3.
func TestRFC8785Sorting(t *testing.T) {
	t.Parallel()
	out := canonical(t, `{
  "\u20ac": "Euro Sign",
  "\r": "Carriage Return",
  "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face",
  "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}`)
	var order []string
	d := json.NewDecoder(strings.NewReader(out))
	for {
		tok, err := d.Token()
		if err != nil {
			break
		}
		if s, ok := tok.(string); ok {
			order = append(order, s)
		}
	}
	assert.Equal(t, []string{
		"\r", "Carriage Return", "1", "One", "\u0080", "Control", "\u00f6", "Latin Small Letter O With Diaeresis",
		"\u20ac", "Euro Sign", "\U0001F600", "Emoji: Grinning Face", "\ufb33", "Hebrew Letter Dalet With Dagesh",
	}, order)
}

// The numbers of RFC 8785, appendix B.
func TestRFC8785Numbers(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0",
		0x8000000000000000: "0",
		0x0000000000000001: "5e-324",
		0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308",
		0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992",
		0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22",
		0x44b52d02c7e14af6: "1e+23",
		0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000",
		0x444b1ae4d6e2ef4f: "999999999999999900000",
		0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7",
		0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332",
		0x41b3de4355555554: "333333333.33333325",
		0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334",
		0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		f := math.Float64frombits(bits)
		assert.Equal(t, want, string(appendNumber(nil, f)), "%x", bits)
		assert.Equal(t, want, canonical(t, strconv.FormatFloat(f, 'e', -1, 64)), "%x, read", bits)
		assert.Equal(t, want, canonical(t, want), "%x, canonical already", bits)
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
		"1e-400":                     "0",
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
		{"[1e309]", 1, "beyond the range"},
		{"-1e999999999999", 0, "beyond the range"},
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

// Of the integers that round to one float64 only the canonical one passes: two
// account numbers never look the same.
func TestIntegersAreNotRounded(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"9007199254740991": true, "9007199254740992": true, "9007199254740993": false, "9007199254740994": true,
		"-9007199254740993": false, "1234567890123456789": false, "1234567890123456800": true,
		"9223372036854775807": false, "9223372036854775808": false, "9223372036854776000": true,
		"18446744073709551615": false, "18446744073709552000": true,
		"999999999999999900000": true, "1000000000000000000000": false, "1e21": true,
		// With a point or an exponent it is a float by its writer's own choice.
		"9007199254740993.0": true, "1E30": true, "333333333.33333329": true,
	} {
		out, err := Canonical([]byte(in))
		if ok {
			assert.NoError(t, err, in)
		} else {
			assert.ErrorContains(t, err, "send it as a string", in)
			assert.Nil(t, out)
		}
	}
}

// An error can be logged: it quotes nothing of what it is about.
func TestErrorsDiscloseNothing(t *testing.T) {
	t.Parallel()
	for _, in := range []string{`{"secret":secret}`, `["secret" "secret"]`, `{"secret":1,"secret":2}`, `"secret\q"`, "1secret", `"secret` + "\xff", "7777777777777777777777"} {
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

// Numbers in their shortest form read back as themselves, and no shorter one does.
func TestNumbersAreShortest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			t.Skip("no JSON number")
		}
		s := string(appendNumber(nil, f))
		back, err := strconv.ParseFloat(s, 64)
		if err != nil || back != f {
			t.Fatalf("%b is written %s, read back as %b (%v)", f, s, back, err)
		}
		digits := strings.Trim(strings.NewReplacer(".", "", "-", "").Replace(strings.Split(s, "e")[0]), "0")
		if n := len(digits); n > 1 {
			if shorter, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'e', n-2, 64), 64); shorter == f {
				t.Fatalf("%s has %d digits where %d do", s, n, n-1)
			}
		}
		if abs := math.Abs(f); strings.Contains(s, "e") != (f != 0 && (abs < 1e-6 || abs >= 1e21)) || strings.Contains(s, "e-0") || strings.Contains(s, "e+0") {
			t.Fatalf("%b is written %s", f, s)
		}
	})
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
