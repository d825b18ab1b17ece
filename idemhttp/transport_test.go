package idemhttp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// script is a Base that answers as it is told, and notes what it was sent. What it
// does takes no time but what its answers sleep.
type script struct {
	answers []func(r *http.Request) (*http.Response, error) // the last one goes on

	mu     sync.Mutex
	sent   []*http.Request
	bodies []string
	at     []time.Time
	given  []*tracked // bodies of answers
}

// RoundTrip keeps to the contract of http.RoundTripper: it reads and closes the body.
func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	body := "<none>"
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		err = errors.Join(err, r.Body.Close())
		if err != nil {
			return nil, err
		}
		body = string(b)
		if r.ContentLength > 0 && r.ContentLength != int64(len(b)) {
			return nil, fmt.Errorf("ContentLength is %d, the body has %d bytes", r.ContentLength, len(b))
		}
	}
	s.mu.Lock()
	answer := s.answers[min(len(s.sent), len(s.answers)-1)]
	s.sent, s.bodies, s.at = append(s.sent, r), append(s.bodies, body), append(s.at, time.Now())
	s.mu.Unlock()
	resp, err := answer(r)
	if resp != nil {
		resp.Request = r
		s.mu.Lock()
		defer s.mu.Unlock()
		t := &tracked{ReadCloser: resp.Body}
		s.given = append(s.given, t)
		resp.Body = t
	}
	return resp, err
}

func (s *script) keys(header string) (keys []string) {
	for _, r := range s.sent {
		keys = append(keys, r.Header.Get(header))
	}
	return keys
}

// waits are the times between the tries.
func (s *script) waits() (waits []time.Duration) {
	for i := 1; i < len(s.at); i++ {
		waits = append(waits, s.at[i].Sub(s.at[i-1]))
	}
	return waits
}

// tracked is a body that knows what was done to it.
type tracked struct {
	io.ReadCloser
	read   int
	closed int
}

func (b *tracked) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += n
	return n, err
}

func (b *tracked) Close() error { b.closed++; return b.ReadCloser.Close() }

// status answers with a status, a body and header fields in pairs.
func status(code int, body string, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
	}
}

var errReset = errors.New("connection reset by a test")

func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func post(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pay.test/charges?x=1", body)
	require.NoError(t, err)
	return r
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(b)
}

// A POST without a key gets one, the same for all its tries, and the request
// that the caller made is as it was.
func TestOneKeyForAllTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){
			fails(errReset), status(503, "later"), status(409, "", "Retry-After", "1"), status(201, "charged"),
		}}
		tr := &idemhttp.Transport{Base: s}
		r := post(t, strings.NewReader("amount=5"))
		r.Header.Set("X-Own", "1")
		before := r.Clone(r.Context())
		resp, err := tr.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, 201, resp.StatusCode)
		require.Equal(t, "charged", readAll(t, resp))
		require.Len(t, s.sent, 4)
		keys := s.keys("Idempotency-Key")
		for i, sent := range s.sent {
			assert.Equal(t, keys[0], keys[i])
			assert.Equal(t, "amount=5", s.bodies[i])
			assert.Equal(t, "1", sent.Header.Get("X-Own"))
			assert.EqualValues(t, 8, sent.ContentLength)
			assert.NotSame(t, r, sent)
		}
		assert.Regexp(t, `^"[A-Za-z0-9_-]{22}"$`, keys[0])
		assert.Equal(t, before.Header, r.Header, "the caller's header")
		assert.Equal(t, before.URL, r.URL)
		assert.Equal(t, before.ContentLength, r.ContentLength)

		// Another request, the same one or not, is another operation.
		r.Body, err = r.GetBody()
		require.NoError(t, err)
		resp, err = tr.RoundTrip(r)
		require.NoError(t, err)
		readAll(t, resp)
		assert.NotEqual(t, keys[0], s.keys("Idempotency-Key")[4])
	})
}

// What Base does to the header of a try, then or later, is not in the next one, nor
// in the caller's request.
func TestBaseKeepsHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []http.Header
		s := &script{answers: []func(*http.Request) (*http.Response, error){func(r *http.Request) (*http.Response, error) {
			got = append(got, r.Header.Clone())
			r.Header.Del("Idempotency-Key")
			r.Header["X-Own"][0] = "spoilt"
			r.Header.Set("X-Base", "1")
			return nil, errReset
		}}}
		r := post(t, nil)
		r.Header.Set("X-Own", "1")
		_, err := (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(r)
		var failed *idemhttp.TransportError
		require.ErrorAs(t, err, &failed)
		require.NotEmpty(t, failed.Key)
		require.Len(t, got, 3)
		for i, h := range got {
			assert.Equal(t, http.Header{"X-Own": {"1"}, "Idempotency-Key": {failed.Key}}, h, "try %d", i+1)
		}
		assert.Equal(t, http.Header{"X-Own": {"1"}}, r.Header)
	})
}

// Which methods get a key, and which are tried again.
func TestMethods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			method string
			tr     idemhttp.Transport
			header http.Header
			key    string // of the tries, a pattern
			tries  int
		}{
			{method: "POST", key: `^".+"$`, tries: 8},
			{method: "PATCH", key: `^".+"$`, tries: 8},
			{method: "GET", key: `^$`, tries: 8},
			{method: "", key: `^$`, tries: 8},
			{method: "HEAD", key: `^$`, tries: 8},
			{method: "PUT", key: `^$`, tries: 8},
			{method: "DELETE", key: `^$`, tries: 8},
			{method: "OPTIONS", key: `^$`, tries: 8},
			{method: "TRACE", key: `^$`, tries: 8},
			{method: "REPORT", key: `^$`, tries: 1},
			{method: "REPORT", header: http.Header{"Idempotency-Key": {"mine"}}, key: `^mine$`, tries: 8},
			{method: "POST", header: http.Header{"Idempotency-Key": {"mine"}}, key: `^mine$`, tries: 8},
			{method: "POST", header: http.Header{"Idempotency-Key": {}}, key: `^$`, tries: 8},
			{method: "POST", header: http.Header{"Idempotency-Key": nil}, key: `^$`, tries: 8},
			{method: "DELETE", tr: idemhttp.Transport{Methods: []string{"DELETE"}}, key: `^".+"$`, tries: 8},
			{method: "POST", tr: idemhttp.Transport{Methods: []string{"DELETE"}}, key: `^$`, tries: 1},
			{method: "POST", tr: idemhttp.Transport{Bare: true}, key: `^[A-Za-z0-9_-]{22}$`, tries: 8},
			{method: "POST", tr: idemhttp.Transport{MaxTries: 3}, key: `^".+"$`, tries: 3},
			{method: "POST", tr: idemhttp.Transport{MaxTries: 1}, key: `^".+"$`, tries: 1},
			{method: "POST", tr: idemhttp.Transport{MaxTries: -1}, key: `^".+"$`, tries: 1},
			{method: "POST", tr: idemhttp.Transport{Header: "x-request-id"}, header: http.Header{"X-Request-Id": {"7"}}, key: `^7$`, tries: 8},
			{method: "POST", tr: idemhttp.Transport{NewKey: func(r *http.Request) (string, error) {
				return `for "` + r.URL.Query().Get("x") + `"`, nil
			}}, key: `^"for \\"1\\""$`, tries: 8},
		} {
			s := &script{answers: []func(*http.Request) (*http.Response, error){fails(errReset)}}
			tr := c.tr
			tr.Base = s
			r := post(t, nil)
			r.Method = c.method
			for name, v := range c.header {
				r.Header[name] = v
			}
			_, err := tr.RoundTrip(r)
			require.ErrorIs(t, err, errReset)
			require.Len(t, s.sent, c.tries, "%+v", c)
			name := tr.Header
			if name == "" {
				name = "Idempotency-Key"
			}
			for _, key := range s.keys(name) {
				assert.Regexp(t, c.key, key)
			}
			var failed *idemhttp.TransportError
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, c.tries, failed.Tries)
			assert.Regexp(t, c.key, failed.Key, "what to go on with")
			assert.False(t, failed.Timeout())
			if len(failed.Key) > 1 {
				assert.NotContains(t, err.Error(), failed.Key)
				assert.NotContains(t, err.Error(), "hash")
			}
		}
	})
}

// No key, no request.
func TestKeyCannotBeMade(t *testing.T) {
	t.Parallel()
	broken := errors.New("no entropy")
	for _, c := range []struct {
		key  string
		err  error
		want error
	}{
		{"", broken, broken},
		{"", nil, idem.ErrInvalid},
		{"a\nb", nil, idem.ErrInvalid},
		{"schlüssel", nil, idem.ErrInvalid},
		{strings.Repeat("k", idemhttp.MaxKey+1), nil, idem.ErrInvalid},
	} {
		for _, bare := range []bool{false, true} {
			s := &script{answers: []func(*http.Request) (*http.Response, error){status(200, "")}}
			tr := &idemhttp.Transport{Base: s, Bare: bare, NewKey: func(*http.Request) (string, error) { return c.key, c.err }}
			r := post(t, nil)
			body := &tracked{ReadCloser: io.NopCloser(strings.NewReader("x"))}
			r.Body = body
			_, err := tr.RoundTrip(r)
			require.ErrorIs(t, err, c.want)
			assert.Empty(t, s.sent)
			assert.Equal(t, 1, body.closed)
		}
	}
}

// A key that only quotes make one is none without them. It would be sent as an empty
// field, and retried as if the server could tell the tries apart.
func TestTransportBareKeyOfSpaces(t *testing.T) {
	t.Parallel()
	for bare, want := range map[bool]error{true: idem.ErrInvalid, false: nil} {
		s := &script{answers: []func(*http.Request) (*http.Response, error){status(200, "")}}
		tr := &idemhttp.Transport{Base: s, Bare: bare, NewKey: func(*http.Request) (string, error) { return "  ", nil }}
		resp, err := tr.RoundTrip(post(t, nil))
		require.ErrorIs(t, err, want)
		if !bare {
			readAll(t, resp)
			assert.Equal(t, []string{`"  "`}, s.keys("Idempotency-Key"))
		}
	}
}

// A key that was to be set and is empty is no leave to try again without one.
func TestEmptyKey(t *testing.T) {
	t.Parallel()
	for _, values := range [][]string{{""}, {" \t"}, {"", "a"}, {"a", ""}} {
		for _, method := range []string{"POST", "GET", "REPORT"} {
			for _, name := range []string{"Idempotency-Key", "X-Request-Id"} {
				s := &script{answers: []func(*http.Request) (*http.Response, error){status(200, "")}}
				r := post(t, nil)
				body := &tracked{ReadCloser: io.NopCloser(strings.NewReader("x"))}
				r.Method, r.Body, r.Header[name] = method, body, values
				_, err := (&idemhttp.Transport{Base: s, Header: name}).RoundTrip(r)
				require.ErrorIs(t, err, idem.ErrInvalid)
				assert.ErrorContains(t, err, name)
				assert.Empty(t, s.sent)
				assert.Equal(t, 1, body.closed)
			}
		}
	}
}

func TestFormatKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"abc": `"abc"`, `a"b`: `"a\"b"`, `a\b`: `"a\\b"`, " ~": `" ~"`,
		strings.Repeat("k", idemhttp.MaxKey): `"` + strings.Repeat("k", idemhttp.MaxKey) + `"`,
	} {
		got, err := idemhttp.FormatKey(key)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, bad := range []string{"", "\x1f", "\x7f", "é", strings.Repeat("k", idemhttp.MaxKey+1)} {
		got, err := idemhttp.FormatKey(bad)
		assert.ErrorIs(t, err, idem.ErrInvalid)
		assert.Empty(t, got)
		if len(bad) > 1 {
			assert.NotContains(t, err.Error(), bad)
		}
	}
}

const problemJSON = "application/problem+json"

// What is tried again, and what never is.
func TestAnswers(t *testing.T) {
	t.Parallel()
	inFlight := `{"type":"` + idemhttp.TypeInFlight + `","title":"…"}`
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			answer func(*http.Request) (*http.Response, error)
			again  bool
		}{ // in flight is a test of its own
			{status(200, "a"), false},
			{status(202, "a", "Retry-After", "1"), false},
			{status(302, "a"), false},
			{status(400, "a"), false},
			{status(401, "a"), false},
			{status(404, "a"), false},
			{status(408, "a"), false},
			{status(409, "a"), false},
			{status(409, inFlight, "Content-Type", "text/plain"), false},
			{status(409, `{"type":"`+idemhttp.TypeMismatch+`"}`, "Content-Type", problemJSON), false},
			{status(409, `{"type":`, "Content-Type", problemJSON), false},
			{status(422, "a", "Retry-After", "1"), false},
			{status(425, "a"), true},
			{status(429, "a"), true},
			{status(500, "a", "Retry-After", "1"), false},
			{status(501, "a"), false},
			{status(502, "a"), true},
			{status(503, "a"), true},
			{status(504, "a"), true},
			{status(503, "a", "Idempotent-Replayed", "true"), false},
			{status(504, "a", "Idempotent-Replayed", "true"), false},
		} {
			s := &script{answers: []func(*http.Request) (*http.Response, error){c.answer}}
			want, _ := c.answer(nil)
			resp, err := (&idemhttp.Transport{Base: s, MaxTries: 4}).RoundTrip(post(t, strings.NewReader("b")))
			require.NoError(t, err)
			assert.Equal(t, want.StatusCode, resp.StatusCode, "out of tries, the last answer is returned")
			assert.Equal(t, readAll(t, want), readAll(t, resp), "whole, whoever looked into it")
			tries := 1
			if c.again {
				tries = 4
			}
			assert.Len(t, s.sent, tries, "%d %v", want.StatusCode, want.Header)
			for i, b := range s.given {
				assert.Equal(t, 1, b.closed, "answer %d", i)
			}
		}
	})
}

// A caller's own rule, which can build on the default one.
func TestTransportRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){status(500, ""), status(429, ""), status(429, "")}}
		tr := &idemhttp.Transport{Base: s, MaxTries: 9, Retry: func(resp *http.Response, err error) bool {
			return err == nil && resp.StatusCode == 500 || len(s.sent) < 3 && idemhttp.DefaultRetry(resp, err)
		}}
		resp, err := tr.RoundTrip(post(t, nil))
		require.NoError(t, err)
		readAll(t, resp)
		assert.Len(t, s.sent, 3)
	})
}

// The answers that are dropped are read, within bounds of bytes and of time, and
// closed; http.Client's idle connections can be closed through the Transport.
func TestTransportDrops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		huge := status(503, strings.Repeat("x", 1<<20))
		drip := func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: endless{r.Context()}}, nil
		}
		s := &script{answers: []func(*http.Request) (*http.Response, error){status(503, "short"), huge, drip, status(200, "kept")}}
		start := time.Now()
		resp, err := (&idemhttp.Transport{Base: s, MaxAnswer: -1, MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond}).RoundTrip(post(t, nil))
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(start))
		require.Len(t, s.given, 4)
		assert.Equal(t, 5, s.given[0].read)
		assert.Equal(t, 64<<10, s.given[1].read)
		for i, want := range []int{1, 1, 1, 0} {
			assert.Equal(t, want, s.given[i].closed)
		}
		assert.Equal(t, "kept", readAll(t, resp))
		assert.Equal(t, 1, s.given[3].closed)

		// Timeout is not overrun by it.
		s = &script{answers: []func(*http.Request) (*http.Response, error){drip}}
		start = time.Now()
		resp, err = (&idemhttp.Transport{Base: s, Timeout: 2500 * time.Millisecond, MaxTries: 100, MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond}).RoundTrip(post(t, nil))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 2500*time.Millisecond, time.Since(start).Truncate(time.Microsecond))
	})
}

type idler struct {
	http.RoundTripper
	closed int
}

func (i *idler) CloseIdleConnections() { i.closed++ }

func TestTransportCloseIdleConnections(t *testing.T) {
	t.Parallel()
	base := &idler{}
	(&http.Client{Transport: &idemhttp.Transport{Base: base}}).CloseIdleConnections()
	assert.Equal(t, 1, base.closed)
	(&idemhttp.Transport{Base: struct{ http.RoundTripper }{}}).CloseIdleConnections() // cannot
}

// An answer that the connection is handed over with (101) can still be written to.
func TestTransportSwitchingProtocols(t *testing.T) {
	t.Parallel()
	var wire bytes.Buffer
	s := &idemScript{resp: &http.Response{StatusCode: 101, Body: struct {
		io.Reader
		io.Writer
		io.Closer
	}{strings.NewReader("hello"), &wire, io.NopCloser(nil)}}}
	resp, err := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil))
	require.NoError(t, err)
	duplex, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok)
	_, err = duplex.Write([]byte("over"))
	require.NoError(t, err)
	assert.Equal(t, "over", wire.String())
	assert.Equal(t, "hello", readAll(t, resp))
}

// idemScript gives one answer, as it is.
type idemScript struct{ resp *http.Response }

func (s *idemScript) RoundTrip(*http.Request) (*http.Response, error) { return s.resp, nil }
