package idemhttp_test

import (
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
	answers []reply // the last one goes on

	mu     sync.Mutex
	sent   []*http.Request
	bodies []string
	at     []time.Time
	given  []*tracked // bodies of answers
}

// reply answers one try. It is a whole Base, too.
type reply func(*http.Request) (*http.Response, error)

func (f reply) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answers(list ...reply) *script { return &script{answers: list} }

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
func status(code int, body string, header ...string) reply {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
	}
}

var errReset = errors.New("connection reset by a test")

func fails(err error) reply {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func post(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pay.test/charges?x=1", body)
	require.NoError(t, err)
	return r
}

// gives is a Base that gives one answer, as it is.
func gives(resp *http.Response) reply {
	return func(*http.Request) (*http.Response, error) { return resp, nil }
}

// exchange makes a request that has to be answered.
func exchange(t *testing.T, tr http.RoundTripper, r *http.Request) *http.Response {
	t.Helper()
	resp, err := tr.RoundTrip(r)
	require.NoError(t, err)
	return resp
}

// failure is the TransportError that err has to be.
func failure(t *testing.T, err error) (failed *idemhttp.TransportError) {
	t.Helper()
	require.ErrorAs(t, err, &failed)
	return failed
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
		s := answers(
			fails(errReset), status(503, "later"), status(409, "", "Retry-After", "1"), status(201, "charged"),
		)
		tr := &idemhttp.Transport{Base: s}
		r := post(t, strings.NewReader("amount=5"))
		r.Header.Set("X-Own", "1")
		before := r.Clone(r.Context())
		resp := exchange(t, tr, r)
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
		r.Body = must(r.GetBody())
		readAll(t, exchange(t, tr, r))
		assert.NotEqual(t, keys[0], s.keys("Idempotency-Key")[4])
	})
}

// What Base does to the header of a try, then or later, is not in the next one, nor
// in the caller's request.
func TestBaseKeepsHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []http.Header
		s := answers(func(r *http.Request) (*http.Response, error) {
			got = append(got, r.Header.Clone())
			r.Header.Del("Idempotency-Key")
			r.Header["X-Own"][0] = "spoilt"
			r.Header.Set("X-Base", "1")
			return nil, errReset
		})
		r := post(t, nil)
		r.Header.Set("X-Own", "1")
		_, err := (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(r)
		failed := failure(t, err)
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
			s := answers(fails(errReset))
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
			failed := failure(t, err)
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

// No key, no request. A key that only quotes make one is none without them: it would be sent
// as an empty field, and retried as if the server could tell the tries apart.
func TestKeyCannotBeMade(t *testing.T) {
	t.Parallel()
	broken := errors.New("no entropy")
	for _, c := range []struct {
		key      string
		err      error
		want     error
		bareOnly bool
	}{
		{"", broken, broken, false},
		{"", nil, idem.ErrInvalid, false},
		{"a\nb", nil, idem.ErrInvalid, false},
		{"schlüssel", nil, idem.ErrInvalid, false},
		{strings.Repeat("k", idemhttp.MaxKey+1), nil, idem.ErrInvalid, false},
		{"  ", nil, idem.ErrInvalid, true},
	} {
		for _, bare := range []bool{false, true} {
			s := answers(status(200, ""))
			tr := &idemhttp.Transport{Base: s, Bare: bare, NewKey: func(*http.Request) (string, error) { return c.key, c.err }}
			r := post(t, nil)
			body := &tracked{ReadCloser: io.NopCloser(strings.NewReader("x"))}
			r.Body = body
			if c.bareOnly && !bare {
				readAll(t, exchange(t, tr, r))
				assert.Equal(t, []string{`"` + c.key + `"`}, s.keys("Idempotency-Key"))
				continue
			}
			_, err := tr.RoundTrip(r)
			require.ErrorIs(t, err, c.want)
			assert.Empty(t, s.sent)
			assert.Equal(t, 1, body.closed)
		}
	}
}

// A key that was to be set and is empty is no leave to try again without one.
func TestEmptyKey(t *testing.T) {
	t.Parallel()
	for _, values := range [][]string{{""}, {" \t"}, {"", "a"}, {"a", ""}} {
		for _, method := range []string{"POST", "GET", "REPORT"} {
			for _, name := range []string{"Idempotency-Key", "X-Request-Id"} {
				s := answers(status(200, ""))
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

const stripeInUse = `{"error":{"code":"idempotency_key_in_use","type":"invalid_request_error",` +
	`"message":"There is currently another in-progress request"}}`

// What is tried again, and what never is. Services that say whether to try again are obeyed,
// either way. Stripe's 409 is asked about again, as its own libraries do; that of others is a
// conflict.
func TestAnswers(t *testing.T) {
	t.Parallel()
	inFlight := `{"type":"` + idemhttp.TypeInFlight + `","title":"…"}`
	json := func(body string) reply { return status(409, body, "Content-Type", "application/json") }
	again := []reply{
		status(425, "a"), status(429, "a"), status(502, "a"), status(503, "a"), status(504, "a"),
		json(stripeInUse),
		status(409, stripeInUse, "Content-Type", "application/json; charset=utf-8"),
		json(`{"error":{"type":"idempotency_error"}}`),
		json(`{"error":{"type":"invalid_request_error","code":"lock_timeout"}}`),
		status(409, "whatever it says", "Stripe-Version", "2025-01-27.acacia"),
	}
	final := []reply{
		status(200, "a"), status(202, "a", "Retry-After", "1"), status(302, "a"),
		status(400, "a"), status(401, "a"), status(404, "a"), status(408, "a"), status(409, "a"),
		status(409, inFlight, "Content-Type", "text/plain"),
		status(409, `{"type":"`+idemhttp.TypeMismatch+`"}`, "Content-Type", problemJSON),
		status(409, `{"type":`, "Content-Type", problemJSON),
		status(422, "a", "Retry-After", "1"),
		status(500, "a", "Retry-After", "1"), status(501, "a"),
		status(503, "a", "Idempotent-Replayed", "true"), status(504, "a", "Idempotent-Replayed", "true"),
		json(`{"error":{"type":"invalid_request_error","code":"resource_already_exists"}}`),
		json(`{"error":"conflict"}`),
		json(`["conflict"]`),
		status(409, stripeInUse, "Content-Type", "text/html"),
	}
	for _, name := range []string{"Stripe-Should-Retry", "X-Should-Retry"} {
		again = append(again,
			status(500, "", name, "true"), status(400, "", name, "true"), status(409, "", name, "true"),
			status(500, "", name, "true", "Idempotent-Replayed", "true"), status(503, "", name, "perhaps"))
		final = append(final,
			status(500, "", name, "false"), status(503, "", name, "false"),
			status(429, "", name, "false", "Retry-After", "1"), status(409, "", name, "false", "Retry-After", "1"),
			status(409, stripeInUse, name, "false", "Content-Type", "application/json"),
			status(200, "", name, "true"), status(302, "", name, "true"), // done is done
			status(500, "", name, ""))
	}
	synctest.Test(t, func(t *testing.T) {
		for i, answer := range append(again, final...) {
			s := answers(answer, status(201, "charged"))
			want, err := answer(nil)
			require.NoError(t, err)
			note := fmt.Sprint(want.StatusCode, want.Header)
			resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, strings.NewReader("b")))
			body := readAll(t, resp)
			if i < len(again) {
				require.Len(t, s.sent, 2, note)
				assert.Equal(t, "charged", body)
			} else {
				require.Len(t, s.sent, 1, note)
				assert.Equal(t, want.StatusCode, resp.StatusCode)
				assert.Equal(t, readAll(t, want), body, "whole, whoever looked into it")
			}
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
		s := answers(status(500, ""), status(429, ""), status(429, ""))
		tr := &idemhttp.Transport{Base: s, MaxTries: 9, Retry: func(resp *http.Response, err error) bool {
			return err == nil && resp.StatusCode == 500 || len(s.sent) < 3 && idemhttp.DefaultRetry(resp, err)
		}}
		readAll(t, exchange(t, tr, post(t, nil)))
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
		s := answers(status(503, "short"), huge, drip, status(200, "kept"))
		start := time.Now()
		resp := exchange(t, &idemhttp.Transport{Base: s, MaxAnswer: -1, MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond}, post(t, nil))
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
		s = answers(drip)
		start = time.Now()
		resp = exchange(t, &idemhttp.Transport{Base: s, Timeout: 2500 * time.Millisecond, MaxTries: 100, MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond}, post(t, nil))
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 2500*time.Millisecond, time.Since(start).Truncate(time.Microsecond))
	})
}
