package idemhttp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// eventID finds the key of a webhook in its body.
func eventID(_ *http.Request, body []byte) (string, error) {
	var event struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return "", err
	}
	return event.ID, nil
}

func TestKeyInTheBody(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Key: eventID}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(w, string(body), err, idemhttp.FromContext(r.Context()).Key())
	})
	send := func(body string) answer { return s.do("POST", "/hooks", "ignored", body) }
	event := `{"id":"evt_1, / ü","amount":1}`
	first := send(event)
	require.Equal(t, event+"<nil>evt_1, / ü", first.body, "the handler reads the whole body")
	again := send(event)
	require.True(t, again.replayed())
	require.Equal(t, first.body, again.body)
	require.EqualValues(t, 1, s.runs.Load())
	s.wantRecord("evt_1, / ü", idem.Completed)

	wantProblem(t, send(`{"id":"evt_1, / ü","amount":2}`), 422, idemhttp.TypeMismatch)
	wantProblem(t, send(`{"id":"`+strings.Repeat("x", idemhttp.MaxKey+1)+`"}`), 400, idemhttp.TypeKeyInvalid)
	require.Equal(t, 200, send(`{"id":"`+strings.Repeat("x", idemhttp.MaxKey)+`"}`).status)
	p := wantProblem(t, send(`{"id"`), 400, idemhttp.TypeKeyInvalid)
	require.NotContains(t, p.Detail, "JSON", "the function's own words are not for clients")
	require.Empty(t, s.heard(), "the request is at fault")

	runs := s.runs.Load()
	for range 2 { // without a key it passes through
		require.Equal(t, `{"a":1}<nil>`, send(`{"a":1}`).body)
	}
	require.Equal(t, runs+2, s.runs.Load())
}

func TestKeyInTheBodyIsRequired(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Key: eventID, RequireKey: true, MaxBody: 20}, echo)
	p := wantProblem(t, s.do("POST", "/hooks", "k", `{"a":1}`), 400, idemhttp.TypeKeyMissing)
	require.NotContains(t, p.Detail, "Idempotency-Key")
	wantProblem(t, s.do("POST", "/hooks", "k", `{"a":"this is a long text"}`), 413, idemhttp.TypeBodyTooLarge)
	require.Zero(t, s.runs.Load())
	require.Equal(t, "passes <nil>", s.do("PUT", "/hooks", "", "passes").body, "of methods that are not looked at nothing is read")
}

// A form may be parsed to find the key, and the handler parses it again.
func TestKeyInAForm(t *testing.T) {
	t.Parallel()
	const multi = "multipart/form-data; boundary=x"
	s := newSite(t, nil, idemhttp.Options{
		Key: func(r *http.Request, _ []byte) (string, error) { return r.FormValue("token"), nil },
	}, func(w http.ResponseWriter, r *http.Request) {
		assert.Nil(t, r.Form)
		assert.Nil(t, r.MultipartForm)
		if r.Header.Get("Content-Type") == multi {
			part, err := must(r.MultipartReader()).NextPart() // not possible of a form that was parsed
			fmt.Fprint(w, part.FormName(), err)
			return
		}
		fmt.Fprint(w, r.FormValue("amount"))
	})
	form := url.Values{"token": {"page-1"}, "amount": {"12.50"}}.Encode()
	for n := range 2 {
		a := s.do("POST", "/pay", "", form, "Content-Type", "application/x-www-form-urlencoded")
		require.Equal(t, "12.50", a.body)
		require.Equal(t, n == 1, a.replayed())
	}
	a := s.do("POST", "/pay?token=page-2", "", "")
	require.Equal(t, 200, a.status)
	s.wantRecord("page-2", idem.Completed)
	parts := "--x\r\nContent-Disposition: form-data; name=token\r\n\r\npage-3\r\n--x--\r\n"
	a = s.do("POST", "/pay", "", parts, "Content-Type", multi)
	require.Equal(t, "token<nil>", a.body)
	s.wantRecord("page-3", idem.Completed)
}

// A problem that the function returns is answered, and OnError is told of those that are
// the server's.
func TestKeyFunctionAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Key: func(r *http.Request, _ []byte) (string, error) {
		if r.URL.Path == "/down" {
			return "", idemhttp.Problem{Type: "urn:down", Title: "Down", Status: 503, Err: errors.New("no secret")}
		}
		return "", fmt.Errorf("hook: %w", &idemhttp.Problem{Type: "urn:unsigned", Title: "Unsigned", Status: 422})
	}}, echo)
	wantProblem(t, s.do("POST", "/", "", "x"), 422, "urn:unsigned")
	require.Empty(t, s.heard())
	wantProblem(t, s.do("POST", "/down", "", "x"), 503, "urn:down")
	require.Len(t, s.heard(), 1)
	require.Zero(t, s.runs.Load())
}

// The body that the function was given is not the handler's to lose: what it does to
// r.Body changes nothing.
func TestKeyFunctionReadsTheBody(t *testing.T) {
	t.Parallel()
	h := once(memoryStore(t, idem.Options{}), idemhttp.Options{
		Key: func(r *http.Request, body []byte) (string, error) {
			read, err := io.ReadAll(r.Body)
			assert.Equal(t, string(body), string(read))
			r.Body = nil
			return string(read), err
		},
		Fingerprint: func(_ *http.Request, body []byte) (idem.Fingerprint, error) {
			return idem.FingerprintOf(body), nil
		},
	}, echo)
	for range 2 {
		w := serve(h, keyed("k"))
		require.Equal(t, "12.50 <nil>", w.body)
	}
}

func TestKeyAndHeader(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	for _, o := range []idemhttp.Options{{Key: eventID, Header: "X-Id"}, {Key: eventID, StrictKey: true}} {
		require.PanicsWithValue(t, "idemhttp.New: Options.Key finds the key; Header and StrictKey, which say how a header brings it, must not be set",
			func() { idemhttp.New(store, scopeOf, o) })
	}
}

// A Key function that panics leaves no files of the form that it had parsed.
func TestFormOfAKeyFunctionThatPanics(t *testing.T) {
	t.Parallel()
	var file string
	h := once(memoryStore(t, idem.Options{}), idemhttp.Options{
		Key: func(r *http.Request, _ []byte) (string, error) {
			assert.NoError(t, r.ParseMultipartForm(0)) // its file goes to the disk
			f := must(r.MultipartForm.File["f"][0].Open())
			defer f.Close()
			file = f.(*os.File).Name()
			panic("no key")
		},
	}, echo)
	form := "--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n" + repeat("x", 1000) + "\r\n--x--\r\n"
	r := httptest.NewRequest("POST", "/", strings.NewReader(form))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	require.PanicsWithValue(t, "no key", func() { serve(h, r) })
	require.NoFileExists(t, file)
	require.NotEmpty(t, file)
}

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
