package operator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/operator"
)

func TestParsePayload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format operator.Format
		text   string
		want   []byte
	}{
		{operator.FormatNone, "", nil},
		{"", "", nil},
		{operator.FormatText, "", []byte{}},
		{operator.FormatText, " as it is\n", []byte(" as it is\n")},
		{operator.FormatJSON, ` {"a":1.0} `, []byte(` {"a":1.0} `)},
		{operator.FormatHex, "", []byte{}},
		{operator.FormatHex, "00 fF\n7f", []byte{0, 0xff, 0x7f}},
		{operator.FormatHTTP, "204", answer(t, idemhttp.Answer{Status: 204})},
		{
			operator.FormatHTTP, "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\n\r\nhello\n",
			answer(t, idemhttp.Answer{Status: 201, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("hello\n")}),
		},
		{
			operator.FormatHTTP, "200 OK\n\n" + strings.Repeat("b", 10_000),
			answer(t, idemhttp.Answer{Status: 200, Body: []byte(strings.Repeat("b", 10_000))}),
		},
		{
			operator.FormatHTTP, "200\nlocation: /orders/7\n",
			answer(t, idemhttp.Answer{Status: 200, Header: http.Header{"Location": {"/orders/7"}}}),
		},
	} {
		got, err := operator.ParsePayload(c.format, c.text)
		require.NoError(t, err, "%s %.40q", c.format, c.text)
		require.Equal(t, c.want, got, "%s %.40q", c.format, c.text)
	}
}

// What is not in its format is refused, and the message says nothing of the payload.
func TestParsePayloadRefuses(t *testing.T) {
	t.Parallel()
	const secret = "4111111111111111"
	for _, c := range []struct {
		format operator.Format
		text   string
	}{
		{operator.FormatNone, secret},
		{"", secret},
		{"xml", secret},
		{operator.FormatJSON, ""},
		{operator.FormatJSON, secret + " " + secret},
		{operator.FormatJSON, "{" + secret},
		{operator.FormatHex, secret + "1"},
		{operator.FormatHex, "zz" + secret},
		{operator.FormatHTTP, ""},
		{operator.FormatHTTP, secret},
		{operator.FormatHTTP, "100\n\n" + secret},
		{operator.FormatHTTP, "-200"},
		{operator.FormatHTTP, "200\n" + secret + "\n\n"},
		{operator.FormatHTTP, "200\n" + secret},
		{operator.FormatHTTP, "200\n: " + secret + "\n\n"},
	} {
		_, err := operator.ParsePayload(c.format, c.text)
		require.ErrorIs(t, err, idem.ErrInvalid, "%s %q", c.format, c.text)
		assert.NotContains(t, err.Error(), secret)
	}
}

func TestNamesParse(t *testing.T) {
	t.Parallel()
	for _, s := range operator.States() {
		got, err := operator.ParseState(s.String())
		require.NoError(t, err)
		require.Equal(t, s, got)
	}
	for _, r := range operator.Reasons() {
		got, err := operator.ParseReason(string(r))
		require.NoError(t, err)
		require.Equal(t, r, got)
	}
	for _, a := range operator.Actions() {
		got, err := operator.ParseAction(string(a))
		require.NoError(t, err)
		require.Equal(t, a, got)
		require.NotEmpty(t, a.Effect())
	}
	for _, text := range []string{"none", "Held", " held", "\x1b[2J"} {
		_, err := operator.ParseState(text)
		require.ErrorIs(t, err, idem.ErrInvalid)
		assert.NotContains(t, err.Error(), "\x1b")
		_, err = operator.ParseReason(text)
		require.ErrorIs(t, err, idem.ErrInvalid)
		_, err = operator.ParseAction(text)
		require.ErrorIs(t, err, idem.ErrInvalid)
	}
}
