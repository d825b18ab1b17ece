package operator_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/operator"
)

func answer(t *testing.T, a idemhttp.Answer) []byte {
	t.Helper()
	b, err := a.MarshalBinary()
	require.NoError(t, err)
	return b
}

func TestDecode(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 100) // 200 bytes
	for name, c := range map[string]struct {
		bytes string
		want  operator.Payload
	}{
		"nothing":                              {"", operator.Payload{Kind: operator.KindEmpty}},
		"an object":                            {`{"a": 1}`, operator.Payload{Kind: operator.KindJSON, JSON: json.RawMessage(`{"a": 1}`)}},
		"a number":                             {"9007199254740993", operator.Payload{Kind: operator.KindJSON, JSON: json.RawMessage("9007199254740993")}},
		"text":                                 {"card was\tdeclined\r\n", operator.Payload{Kind: operator.KindText, Text: "card was\tdeclined\r\n"}},
		"two values":                           {"1 2", operator.Payload{Kind: operator.KindText, Text: "1 2"}},
		"control characters":                   {"a\x1b[2J", operator.Payload{Kind: operator.KindHex, Hex: "611b5b324a"}},
		"bytes":                                {"\xff\x00", operator.Payload{Kind: operator.KindHex, Hex: "ff00"}},
		"JSON that is no text":                 {"\"\xff\"", operator.Payload{Kind: operator.KindHex, Hex: "22ff22"}},
		"long text is cut between runes":       {"x" + long, operator.Payload{Kind: operator.KindText, Text: "x" + long[:62], Truncated: true}},
		"long JSON is cut text":                {`"` + long + `"`, operator.Payload{Kind: operator.KindText, Text: `"` + long[:62], Truncated: true}},
		"long bytes":                           {strings.Repeat("\xff", 65), operator.Payload{Kind: operator.KindHex, Hex: strings.Repeat("ff", 32), Truncated: true}},
		"what looks like an answer and is not": {"\xa7\x01x", operator.Payload{Kind: operator.KindHex, Hex: "a70178"}},
		"too deep for JSON":                    {strings.Repeat("[", 63), operator.Payload{Kind: operator.KindText, Text: strings.Repeat("[", 63)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.want.Bytes = len(c.bytes)
			assert.Equal(t, c.want, operator.Decode([]byte(c.bytes), 64))
		})
	}
}

// An answer that idemhttp stored is taken apart.
func TestDecodeAnswer(t *testing.T) {
	t.Parallel()
	b := answer(t, idemhttp.Answer{Status: 201, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"id":7}`)})
	body := operator.Payload{Kind: operator.KindJSON, Bytes: 8, JSON: json.RawMessage(`{"id":7}`)}
	assert.Equal(t, operator.Payload{Kind: operator.KindHTTP, Bytes: len(b), HTTP: &operator.HTTP{
		Status: 201, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: &body,
	}}, operator.Decode(b, 0))

	b = answer(t, idemhttp.Answer{Status: 200, NotRetained: true})
	assert.Equal(t, operator.Payload{Kind: operator.KindHTTP, Bytes: len(b), HTTP: &operator.HTTP{Status: 200, NotRetained: true}}, operator.Decode(b, 0))

	many := http.Header{}
	for i := range 1000 {
		many["X-"+strings.Repeat("a", i)] = []string{"", "v\xff"}
	}
	p := operator.Decode(answer(t, idemhttp.Answer{Status: 200, Header: many}), 100)
	assert.Less(t, len(p.HTTP.Header), 20, "fields are bounded as well")
	for _, values := range p.HTTP.Header {
		for _, v := range values {
			assert.True(t, utf8.ValidString(v))
		}
	}
}

// Whatever is stored can be shown: as JSON that keeps to the bound, and without anything
// that a terminal would obey.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"", "{}", "text", "\xff", "\xa7\x01", "\x1b[31m", "\u202e", strings.Repeat("[", 20000)} {
		f.Add([]byte(seed), 64)
	}
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = max(1, min(limit, 1<<16))
		p := operator.Decode(b, limit)
		require.Equal(t, len(b), p.Bytes)
		require.LessOrEqual(t, len(p.Text), limit)
		require.LessOrEqual(t, len(p.JSON), limit)
		require.LessOrEqual(t, len(p.Hex), limit)
		text, err := json.Marshal(p)
		require.NoError(t, err)
		require.True(t, utf8.Valid(text))
		for _, s := range []string{p.Text, string(b)} {
			for _, r := range operator.Printable(s) {
				require.True(t, r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r >= 0xa0), "%q", r)
			}
		}
	})
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                      "",
		"Zürich, 東京 ✓\n\t":      "Zürich, 東京 ✓\n\t",
		"a\x1b[2J\r":            `a\x1b[2J\x0d`,
		"\u202eevil":            `\u{202e}evil`,
		"a\u200bb":              `a\u{200b}b`,
		"\xffé":                 `\xffé`,
		"\u009b1m":              `\u{9b}1m`,
		"\x7f":                  `\x7f`,
		"\ufffd is a character": "\ufffd is a character",
		"\u2028":                `\u{2028}`,
	} {
		assert.Equal(t, want, operator.Printable(in))
	}
	assert.Equal(t, `a\nb\tc…`, operator.Line("a\nb\tcde", 7))
	assert.Equal(t, "abc", operator.Line("abc", 3))
	assert.Equal(t, "éé…", operator.Line("ééé", 2))
}
