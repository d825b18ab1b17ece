package idemhttp

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", MaxKey)
	const refused = "\x00" // no key
	for _, c := range []struct{ line, loose, strict string }{
		{`"abc"`, "abc", "abc"},
		{`  "abc"  `, "abc", "abc"},
		{`"a\"b"`, `a"b`, `a"b`},
		{`"a\\b"`, `a\b`, `a\b`},
		{`"\"\\\""`, `"\"`, `"\"`},
		{`"a b,c;d(e)"`, "a b,c;d(e)", "a b,c;d(e)"},
		{`"k";p=1`, "k", "k"},
		{`"k";p`, "k", "k"},
		{`"k"; p=?1; q=-1.5; r="x\"y" ;`, refused, refused}, // a space before ;
		{`"k"; p=?1; q=-1.5; r="x\"y"; *s=tok:en/*; t=:aGk=:; u=@-17; v=%"f%c3%bc"; w-_.*1=?0`, "k", "k"},
		{`abc`, "abc", refused},
		{`8e03978e-40d5-43e8-bc93-6894a57f9324`, "8e03978e-40d5-43e8-bc93-6894a57f9324", refused},
		{`a:b/c=d+e?f@g*h[i]{j}`, "a:b/c=d+e?f@g*h[i]{j}", refused},
		{`?1`, "?1", refused},
		{`:aGk=:`, ":aGk=:", refused},
		{long, long, refused},
		{`"` + long + `"`, long, long},
		{`"` + strings.Repeat(`\"`, MaxKey) + `"`, strings.Repeat(`"`, MaxKey), strings.Repeat(`"`, MaxKey)},

		{``, refused, refused},
		{`   `, refused, refused},
		{`""`, refused, refused},
		{`"";p=1`, refused, refused},
		{`"`, refused, refused},
		{`"abc`, refused, refused},
		{`"abc\"`, refused, refused},
		{`"abc\`, refused, refused},
		{`"a\bc"`, refused, refused},
		{`"abc"x`, refused, refused},
		{`"abc" "def"`, refused, refused},
		{`"abc", "def"`, refused, refused},
		{`"abc","abc"`, refused, refused},
		{`abc,def`, refused, refused},
		{`abc, abc`, refused, refused},
		{`abc;p=1`, refused, refused},
		{`ab"c`, refused, refused},
		{`ab\c`, refused, refused},
		{`a b`, refused, refused},
		{`("a" "b")`, refused, refused},
		{`(a)`, refused, refused},
		{"a\tb", refused, refused},
		{"\"a\tb\"", refused, refused},
		{"a\x00", refused, refused},
		{"a\x7f", refused, refused},
		{"\"a\x7f\"", refused, refused},
		{"ü", refused, refused},
		{`"ü"`, refused, refused},
		{"a\xff", refused, refused},
		{long + "k", refused, refused},
		{`"` + long + `k"`, refused, refused},
		{`"k";`, refused, refused},
		{`"k";P=1`, refused, refused},
		{`"k";1p`, refused, refused},
		{`"k";p=`, refused, refused},
		{`"k";p="x`, refused, refused},
		{`"k";p=1.`, refused, refused},
		{`"k";p=1.1234`, refused, refused},
		{`"k";p=1234567890123.1`, refused, refused},
		{`"k";p=1234567890123456`, refused, refused},
		{`"k";p=123456789012345`, "k", "k"},
		{`"k";p=-`, refused, refused},
		{`"k";p=@1.5`, refused, refused},
		{`"k";p=@`, refused, refused},
		{`"k";p=?2`, refused, refused},
		{`"k";p=?`, refused, refused},
		{`"k";p=:a`, refused, refused},
		{`"k";p=:a_:`, refused, refused},
		{`"k";p=%x`, refused, refused},
		{`"k";p=%"%C3"`, refused, refused},
		{`"k";p=%"%c`, refused, refused},
		{`"k";p=%"ab`, refused, refused},
		{"\"k\";p=%\"a\x01\"", refused, refused},
		{`"k";p=(1 2)`, refused, refused},
		{`"k";p=1,"l"`, refused, refused},
	} {
		for strict, want := range map[bool]string{false: c.loose, true: c.strict} {
			key, wrong := parseKey([]string{c.line}, strict)
			if want == refused {
				require.Contains(t, keyFaults, wrong, "%q is %q, strict %v", c.line, key, strict)
				require.Empty(t, key)
				continue
			}
			require.Empty(t, wrong, "%q strict %v", c.line, strict)
			require.Equal(t, want, key, "%q", c.line)
		}
	}
	for c := range 256 { // without quotes
		_, wrong := parseKey([]string{"a" + string([]byte{byte(c)}) + "a"}, false)
		require.Equal(t, c > ' ' && c < 0x7f && !strings.ContainsRune(`",;()\`, rune(c)), wrong == "", "%q", c)
	}
	_, wrong := parseKey([]string{"a", "a"}, false)
	require.Equal(t, "repeated", wrong)
}

// FuzzParseKey: what is taken for a key is one, spelled in its own way only, and a
// strict reader takes it for the same or refuses it.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{`"abc"`, `abc`, `"a\"b";p=1;q=?1`, `"k";t=:aGk=:;u=@-17;v=%"f%c3"`, `"`, "\x80", `a,b`, `"a", "b"`, ` "x" `} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, wrong := parseKey([]string{line}, false)
		if wrong != "" {
			require.Empty(t, key)
			_, wrong = parseKey([]string{line}, true)
			require.NotEmpty(t, wrong, "strict takes what loose refuses")
			return
		}
		require.NotEmpty(t, key)
		require.LessOrEqual(t, len(key), MaxKey)
		for i := range len(key) {
			require.True(t, key[i] >= ' ' && key[i] < 0x7f)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		for _, strict := range []bool{false, true} {
			again, wrong := parseKey([]string{quoted + "; x=1"}, strict)
			require.Empty(t, wrong)
			require.Equal(t, key, again)
		}
		if strictKey, wrong := parseKey([]string{line}, true); wrong == "" {
			require.Equal(t, key, strictKey)
		} else {
			require.Equal(t, strings.Trim(line, " "), key, "a bare key is the line")
		}
		require.NotContains(t, line, "\n")
		require.NotPanics(t, func() { http.CanonicalHeaderKey(key) })
	})
}

func FuzzParameters(f *testing.F) {
	for _, seed := range []string{`;a`, `;a=1;b=-1.5;c="x"`, `;a=:aGk=:`, `;a=@1`, `;a=%"%c3"`, `;a=?1`, `;a=tok/en`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sfParameters(s) { // more of them, and less, are parameters as well
			require.True(t, sfParameters(s+";z=1"))
			require.True(t, sfParameters(s+s))
			require.False(t, sfParameters(s+","))
			require.False(t, sfParameters("x"+s))
		}
	})
}
