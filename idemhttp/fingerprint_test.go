package idemhttp_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

// Numbers count by their exact value. A request that differs from the first in a digit
// that a float64 does not hold is another request.
func TestJSONNumbersCompareExactly(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Fingerprint: idemhttp.JSONFingerprint}, echo)
	post := func(key, body string) answer {
		return s.do("POST", "/", key, body, "Content-Type", "application/json")
	}
	for key, c := range map[string]struct{ first, same, other string }{
		"fraction": {`{"amount":1.000000000000000001}`, `{"amount":1000000000000000001e-18}`, `{"amount":1.000000000000000002}`},
		"point":    {`{"amount":9007199254740992.0}`, `{"amount":9007199254740992}`, `{"amount":9007199254740993.0}`},
		"account":  {`{"user_id": 1234567890123456789}`, `{"user_id":1234567890123456789.0}`, `{"user_id": 1234567890123456788}`},
		"large":    {`[1e400]`, `[10E+399]`, `[1e401]`},
		"small":    {`[1e-400]`, `[0.1e-399]`, `[0]`},
		"zero":     {`[-0.0]`, `[0e5]`, `[1e-1000]`},
	} {
		a := post(key, c.first)
		require.Equal(t, 200, a.status, "%s: %s", key, a.body)
		require.Equal(t, c.first+" <nil>", a.body, "the handler gets the bytes as they were sent")
		require.True(t, post(key, c.same).replayed(), key)
		wantProblem(t, post(key, c.other), 422, idemhttp.TypeMismatch)
	}
}

// Who sends a body that is refused is told at which byte and why, and is sent nothing of
// the body.
func TestJSONThatIsRefusedSaysWhy(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Fingerprint: idemhttp.JSONFingerprint}, echo)
	for body, detail := range map[string]string{
		`{"secret":}`:               "The body cannot be read as JSON: at byte 10: something else instead of a value.",
		`{"secret":1,"secret":2}`:   "The body cannot be read as JSON: at byte 12: a name that the object has already.",
		`["secret\ud800"]`:          "The body cannot be read as JSON: at byte 8: a lone surrogate, which is no character.",
		"[\"secret\xff\"]":          "The body cannot be read as JSON: at byte 8: invalid UTF-8.",
		`{"secret":1e1234567890}`:   "The body cannot be read as JSON: at byte 10: a number with an exponent beyond 999999999.",
		`{"secret":1`:               "The body cannot be read as JSON: at byte 11: the end instead of a comma or the end of the object.",
		`{"secret":1} {"secret":1}`: "The body cannot be read as JSON: at byte 13: data after the value.",
		strings.Repeat("[", 10_001): "The body cannot be read as JSON: at byte 10000: nesting deeper than 10000.",
	} {
		a := s.do("POST", "/", "k", body, "Content-Type", "application/json")
		p := wantProblem(t, a, 400, idemhttp.TypeNotJSON)
		require.Equal(t, detail, p.Detail)
		require.NotContains(t, a.body, "secret")
		require.NotContains(t, a.body, "1234567890")
	}
	require.Zero(t, s.runs.Load())
	s.wantNothingStored()
}
