package idemhttp

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The vectors for items, and for parameters, of github.com/httpwg/structured-field-tests,
// commit 1e280c3 of 2026-06-09. Where a vector leaves it to the reader (can_fail there),
// what follows says what this one does.

// A vector is the line of a field, and whether it is an item.
type sfVector struct {
	line string
	item bool
}

// isItem reads the line as RFC 9651, 4.2, has an item read.
func isItem(line string) bool {
	rest, ok := sfBareItem(strings.Trim(line, " "))
	return ok && sfParameters(rest)
}

func checkItems(t *testing.T, vectors []sfVector) {
	t.Helper()
	for _, v := range vectors {
		require.Equal(t, v.item, isItem(v.line), "%q", v.line)
		// A request brings items as parameters of its key, without the spaces around.
		key, wrong := parseKey([]string{`"k";p=` + strings.Trim(v.line, " ")}, true)
		require.Equal(t, v.item, wrong == "", "%q: %s", v.line, wrong)
		require.Equal(t, v.item, key == "k")
	}
}

// From string.json, string-generated.json and large-generated.json.
func TestStructuredFieldStrings(t *testing.T) {
	t.Parallel()
	accepted := map[string]string{
		`"foo bar"`:                            "foo bar",
		`""`:                                   "",
		`"   "`:                                "   ",
		`"foo \"bar\" \\ baz"`:                 `foo "bar" \ baz`,
		`"` + strings.Repeat("foo ", 65) + `"`: strings.Repeat("foo ", 65),
		`"` + strings.Repeat("=", 1024) + `"`:  strings.Repeat("=", 1024),
		`"` + strings.Repeat(`\"`, 1024) + `"`: strings.Repeat(`"`, 1024),
		`"\\"`:                                 `\`,
		`"\""`:                                 `"`,
	}
	refused := []string{
		"\"f\u00fc\u00fc\"", "\"\t\"", "\" \n \"", "'foo'", `"foo`, `"foo \,"`, `"foo \"`, `"foo \`,
	}
	for c := range 128 {
		if in := fmt.Sprintf("\" %c \"", c); ' ' <= c && c <= '~' && c != '"' && c != '\\' {
			accepted[in] = fmt.Sprintf(" %c ", c)
		} else {
			refused = append(refused, in)
		}
		if in := fmt.Sprintf("\"\\%c\"", c); c != '"' && c != '\\' { // which are accepted above
			refused = append(refused, in)
		}
	}
	var vectors []sfVector
	for in, want := range accepted {
		vectors = append(vectors, sfVector{in, true})
		value, rest, ok := sfString(in)
		require.True(t, ok, in)
		require.Empty(t, rest, in)
		require.Equal(t, want, value)
		key, wrong := parseKey([]string{in}, true)
		if want == "" || len(want) > MaxKey {
			require.NotEmpty(t, wrong, in)
			continue
		}
		require.Empty(t, wrong, in)
		require.Equal(t, want, key)
	}
	for _, in := range refused {
		vectors = append(vectors, sfVector{in, false})
		_, wrong := parseKey([]string{in}, true)
		require.NotEmpty(t, wrong, in)
	}
	require.Equal(t, 13+256+2-1, len(vectors), "one is in two of the files")
	checkItems(t, vectors)

	// Two lines make one string, for a reader that joins them. A key in two lines is
	// refused.
	require.True(t, isItem(`"foo, bar"`))
	_, wrong := parseKey([]string{`"foo`, `bar"`}, true)
	require.NotEmpty(t, wrong)
}

// From token.json, token-generated.json and large-generated.json. A token is no key for
// a strict reader.
func TestStructuredFieldTokens(t *testing.T) {
	t.Parallel()
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	vectors := []sfVector{{strings.Repeat("a", 512), true}}
	for c := range 128 {
		inside := strings.ContainsRune(letters+"0123456789:/!#$%&'*+-.^_`|~", rune(c))
		vectors = append(vectors,
			sfVector{fmt.Sprintf("a%ca", c), inside || c == ';'},
			sfVector{fmt.Sprintf("%ca", c), c == ' ' || strings.ContainsRune(letters+"*", rune(c))})
	}
	require.Equal(t, 256+1, len(vectors))
	checkItems(t, vectors)
	for _, v := range vectors {
		_, wrong := parseKey([]string{v.line}, true)
		require.NotEmpty(t, wrong, "%q", v.line)
	}
}

// From number-generated.json.
func TestStructuredFieldNumbers(t *testing.T) {
	t.Parallel()
	var vectors []sfVector
	zeros, ones, nines := strings.Repeat("0", 15), strings.Repeat("1", 15), strings.Repeat("9", 15)
	for n := 1; n <= 15; n++ {
		for _, digits := range []string{zeros, ones, nines} {
			vectors = append(vectors, sfVector{digits[:n], true})
		}
	}
	for n := 1; n <= 12; n++ {
		for fraction := 1; fraction <= 3; fraction++ {
			for _, digits := range [][2]string{{zeros, ones}, {ones, zeros}, {ones, ones}, {nines, nines}} {
				vectors = append(vectors, sfVector{digits[0][:n] + "." + digits[1][:fraction], true})
			}
		}
	}
	for _, digits := range []string{zeros, nines} {
		vectors = append(vectors, sfVector{digits + "." + digits[:1], false}, sfVector{digits[:12] + "." + digits[:4], false})
	}
	require.Equal(t, 193, len(vectors))
	checkItems(t, vectors)
}

// From the files by these names, and a large byte sequence from large-generated.json.
// Left to the reader and accepted: a byte sequence that lacks its padding, or whose
// padding has bits, and dates beyond the year 9999.
func TestStructuredFieldItems(t *testing.T) {
	t.Parallel()
	vectors := []sfVector{{":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", 16384))) + ":", true}}
	for _, of := range map[string]struct{ accepted, refused []string }{
		"token": {
			accepted: []string{"a_b-c.d3:f%00/*", "fooBar", "FooBar"},
		},
		"number": {
			accepted: []string{
				"42", "0", "-0", "-42", "042", "-042", "00", "123456789012345", "-123456789012345", "1.23", "-1.23",
				"123456789012.1", "1.123", "-1.123", "1.20", "1.200", "1.230",
			},
			refused: []string{
				"--0", "2,3", "-a23", "4-2", "- 42", "1234567890123456", "-1234567890123456", "1. 23", "1 .23", "- 1.23",
				"1.5.4", "1..4", "1.", "1.1234", "-1.1234", "1234567890123.0", "-1234567890123.0",
			},
		},
		"binary": {
			accepted: []string{":aGVsbG8=:", "::", ":aGVsbG8:", ":iZ==:", ":/+Ah:"},
			refused: []string{
				":=aGVsbG8=:", ":a=GVsbG8=:", ":aGVsbG8.:", ":aGVsbG8=", ":aGVsb G8=:", ":    :", ":aGVsbG!8=:", ":aGVsbG8=!:",
				":_-Ah:", ":",
			},
		},
		"boolean": {
			accepted: []string{"?1", "?0"},
			refused:  []string{"?Q", "? 1", "?-0", "?T", "?F", "?t", "?f", "?True", "?False", "?"},
		},
		"date": {
			accepted: []string{
				"@0", "@1659578233", "@-1659578233", "@2147483648", "@4294967296", "@253402214400", "@-62135596800",
				"@999999999999999", "@-999999999999999", "@-0",
			},
			refused: []string{"@1659578233.12", "@1000000000000000", "@-1000000000000000", "@", "@-", "@ 12345678", "@abc"},
		},
		"display-string": {
			accepted: []string{
				`%"foo bar"`,
				"%\" !%22#$%25&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\"",
				`%"f%c3%bc%c3%bc"`, `%"foo %22bar%22 \ baz"`, `%"BOM: %ef%bb%bf"`, `%"%61"`,
			},
			refused: []string{
				`%"f%C3%BC%C3%BC"`, "%\"f\u00fc\u00fc\"", "%\"\t\"", "%\"\n\"", "%'foo'", "%foo", `%foo"`, `%"foo`, `%"foo %a`,
				`%"%c3%28"`, `%"%a0%a1"`, `%"%g0%1w"`, `%"%e2%28%a1"`, `%"%f0%28%8c%28"`, `%"%"`,
			},
		},
		"item": {
			accepted: []string{"  1  ", "     1  "},
			refused:  []string{"", " \t 1", "1 \t "},
		},
		"examples": {
			accepted: []string{
				`2; foourl="https://foo.example.com/"`, "1; a; b=?0", "5", "5; foo=bar", "42", "4.5", `"hello world"`,
				":cHJldGVuZCB0aGlzIGlzIGJpbmFyeSBjb250ZW50Lg==:", "?1",
			},
		},
	} {
		for _, line := range of.accepted {
			vectors = append(vectors, sfVector{line, true})
		}
		for _, line := range of.refused {
			vectors = append(vectors, sfVector{line, false})
		}
	}
	// Two lines make one display string.
	vectors = append(vectors, sfVector{`%"foo, bar"`, true})
	require.Equal(t, 118, len(vectors))
	checkItems(t, vectors)
}

// From param-list.json, key-generated.json and large-generated.json: the lists of one
// member, and single members of the others, which are items as well.
func TestStructuredFieldParameters(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 256 {
		fmt.Fprintf(&many, ";a%d=1", i)
	}
	vectors := []sfVector{
		{"text/html;q=1.0", true},
		{"text/html;a;q=1.0", true},
		{"text/html;q=1.0;a", true},
		{"text/html", true},
		{"a;b=1;c=2;b=3", true},
		{"a;m;z;t", true},
		{"a;b=1;", false},
		{"a;b=1; ", false},
		{"a;=1", false},
		{"a;", false},
		{"a; ", false},
		{"text/plain;q =0.5", false},
		{"text/plain;q= 0.5", false},
		{"text/plain ;q=0.5", false},
		{"text/plain;  q=0.5;  charset=utf-8", true},
		{"foo" + many.String(), true},
		{"foo;" + strings.Repeat("a", 64) + "=1", true},
	}
	const letters = "abcdefghijklmnopqrstuvwxyz"
	for c := range 128 {
		vectors = append(vectors,
			sfVector{fmt.Sprintf("foo; a%ca=1", c), strings.ContainsRune(letters+"0123456789_-.*;", rune(c))},
			sfVector{fmt.Sprintf("foo; %ca=1", c), strings.ContainsRune(letters+"* ", rune(c))})
	}
	checkItems(t, vectors)
	for _, v := range vectors { // and of a key
		_, parameters, _ := strings.Cut(v.line, ";")
		if strings.HasPrefix(v.line, "text/plain ;") || !strings.Contains(v.line, ";") {
			continue
		}
		key, wrong := parseKey([]string{`"k";` + parameters}, true)
		require.Equal(t, v.item, wrong == "", "%q: %s", v.line, wrong)
		require.Equal(t, v.item, key == "k")
	}
}

// What a byte sequence holds is what the standard library decodes, with its padding or
// without.
func TestStructuredFieldBytesAreBase64(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[A-Za-z0-9+/]{0,9}=?=?=?[a=]?`).Draw(t, "text")
		_, padded := base64.StdEncoding.DecodeString(text)
		_, bare := base64.RawStdEncoding.DecodeString(text)
		rest, ok := sfBytes(":" + text + ":x")
		require.Equal(t, padded == nil || bare == nil, ok, text)
		require.True(t, !ok || rest == "x")
	})
}
