package idemhttp_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

func never(*http.Request) bool { return false }

// A server that ignores keys charges once for each try: where that is said, there is
// one.
func TestTransportServerIgnoresKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		charges := 0
		charge := func(code int) reply {
			return func(r *http.Request) (*http.Response, error) {
				charges++
				return status(code, "")(r)
			}
		}
		list := []reply{charge(504), charge(504), charge(200)}
		honours := func(r *http.Request) bool { return r.URL.Host == "pay.test" }

		s := answers(list...)
		r := post(t, strings.NewReader("12.50"))
		r.URL.Host = "old.test"
		resp := exchange(t, &idemhttp.Transport{Base: s, HonoursKeys: honours}, r)
		assert.Equal(t, 504, resp.StatusCode)
		readAll(t, resp)
		assert.Equal(t, 1, charges)
		assert.Empty(t, s.sent[0].Header, "a key would promise nothing")

		for _, predicate := range []func(*http.Request) bool{nil, honours} {
			s = answers(list...)
			resp = exchange(t, &idemhttp.Transport{Base: s, HonoursKeys: predicate}, post(t, strings.NewReader("12.50")))
			assert.Equal(t, 200, resp.StatusCode)
			readAll(t, resp)
			assert.NotEmpty(t, s.keys("Idempotency-Key")[2])
		}
	})
}

// What is safe without keys is tried again wherever it goes.
func TestTransportSafeWithoutKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			method string
			header http.Header
			tries  int
		}{
			"GET":                           {method: "GET", tries: 3},
			"PUT":                           {method: "PUT", tries: 3},
			"GET with a key":                {method: "GET", header: http.Header{"Idempotency-Key": {"mine"}}, tries: 3},
			"the caller says it is":         {method: "POST", header: http.Header{"Idempotency-Key": nil}, tries: 3},
			"POST":                          {method: "POST", tries: 1},
			"POST with a key":               {method: "POST", header: http.Header{"Idempotency-Key": {"mine"}}, tries: 1},
			"a method of its own, with one": {method: "REPORT", header: http.Header{"Idempotency-Key": {"mine"}}, tries: 1},
		} {
			for _, answer := range []reply{fails(errReset), cut(200, "char", 3), status(503, "", "Retry-After", "1")} {
				s := answers(answer)
				r := post(t, strings.NewReader("a"))
				r.Method = c.method
				for name, v := range c.header {
					r.Header[name] = v
				}
				resp, err := (&idemhttp.Transport{Base: s, MaxTries: 3, HonoursKeys: never}).RoundTrip(r)
				tries := c.tries
				if err == nil {
					if resp.StatusCode == 200 { // of a GET or of one try, cut: the reader's to find
						tries = len(s.sent)
					}
					require.NoError(t, resp.Body.Close())
				}
				require.Len(t, s.sent, tries, name)
				if len(c.header["Idempotency-Key"]) > 0 && c.method != "GET" {
					var failed *idemhttp.TransportError
					if errors.As(err, &failed) {
						assert.Equal(t, "mine", failed.Key, name)
					} else {
						assert.Equal(t, "mine", resp.Request.Header.Get("Idempotency-Key"), name)
					}
				}
			}
		}
	})
}

// What never reached the server is tried again, whoever honours what.
func TestTransportTriesAgainWhatWasNeverSent(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	proxyRefused := &net.OpError{Op: "proxyconnect", Net: "tcp", Err: refused}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	// A Base that tries again by itself, after it has sent the request once.
	sentBefore := func(r *http.Request) (*http.Response, error) {
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil {
			trace.GotConn(httptrace.GotConnInfo{})
		}
		return nil, refused
	}
	synctest.Test(t, func(t *testing.T) {
		for _, method := range []string{"POST", "REPORT"} {
			for name, c := range map[string]struct {
				body   io.Reader
				answer reply
				tries  int
			}{
				"no connection":                  {strings.NewReader("a"), fails(refused), 2},
				"no connection, no body":         {nil, fails(refused), 2},
				"no connection to the proxy":     {strings.NewReader("a"), fails(proxyRefused), 2},
				"connection lost":                {strings.NewReader("a"), fails(reset), 1},
				"sent, then no connection":       {strings.NewReader("a"), sentBefore, 1},
				"no connection, and a body once": {io.MultiReader(strings.NewReader("a")), fails(refused), 1},
			} {
				s := answers(c.answer, status(201, "charged"))
				r := post(t, c.body)
				r.Method = method
				resp, err := (&idemhttp.Transport{Base: s, HonoursKeys: never}).RoundTrip(r)
				require.Len(t, s.sent, c.tries, name)
				if c.tries == 1 {
					require.Error(t, err, name)
					continue
				}
				require.NoError(t, err, name)
				assert.Equal(t, "charged", readAll(t, resp), name)
				assert.Equal(t, s.bodies[0], s.bodies[1], name)
			}

			s := answers(fails(refused))
			r := post(t, nil)
			r.Method = method
			_, err := (&idemhttp.Transport{Base: s, MaxTries: 3, HonoursKeys: never}).RoundTrip(r)
			require.ErrorIs(t, err, refused)
			assert.Len(t, s.sent, 3)
		}
	})
}

// net/http takes a key for leave to send a request again by itself, when a connection
// that it has used before breaks. Where keys are not honoured it gets no such leave.
func TestTransportKeepsNetHTTPFromRepeating(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{ // of the key, and what Transport.Header says
		{"Idempotency-Key", ""}, {"X-Idempotency-Key", "X-Idempotency-Key"}, {"X-Idempotency-Key", ""},
	} {
		header, field := names[0], names[1]
		var mu sync.Mutex
		var charges []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/charges" {
				return
			}
			mu.Lock()
			charges = append(charges, r.Header.Get(header))
			mu.Unlock()
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close() // and the answer is lost
			}
		}))
		t.Cleanup(server.Close)
		base := &http.Transport{}
		t.Cleanup(base.CloseIdleConnections)
		send := func(path string, honours func(*http.Request) bool) (*http.Response, error) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader("12.50"))
			require.NoError(t, err)
			r.Header.Set(header, "mine")
			return (&idemhttp.Transport{Base: base, Header: field, MaxTries: 1, HonoursKeys: honours}).RoundTrip(r)
		}
		for _, c := range []struct {
			honours func(*http.Request) bool
			charges []string
		}{
			{never, []string{"mine"}},
			{nil, []string{"mine", "mine"}}, // as net/http does: the test can tell
		} {
			mu.Lock()
			charges = nil
			mu.Unlock()
			resp, err := send("/login", c.honours) // leaves a connection to use again
			require.NoError(t, err)
			readAll(t, resp)
			assert.Equal(t, "mine", resp.Request.Header.Get(header))
			if c.honours != nil {
				assert.Len(t, resp.Request.Header, 1)
			}
			_, err = send("/charges", c.honours)
			require.Error(t, err)
			mu.Lock()
			assert.Equal(t, c.charges, charges)
			mu.Unlock()
		}
	}
}

// An upload that is too long to be sent again, or for the server to take with a key,
// goes through as it does without the Transport.
func TestTransportPassesLongUploads(t *testing.T) {
	t.Parallel()
	short, long := "12.50", strings.Repeat("0123456789", 20)
	var got []string
	s := newSite(t, nil, idemhttp.Options{MaxBody: 100}, func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		got = append(got, string(b)+" "+r.Header.Get("Idempotency-Key"))
	})
	for name, c := range map[string]struct {
		body   string
		reader io.Reader
		length int64
		key    string
		tr     idemhttp.Transport
		status int
		keyed  bool
	}{
		"short":                     {body: short, reader: strings.NewReader(short), length: 5, status: 200, keyed: true},
		"short, streamed":           {body: short, reader: io.MultiReader(strings.NewReader(short)), length: -1, status: 200, keyed: true},
		"long":                      {body: long, reader: strings.NewReader(long), length: 200, status: 200},
		"long, in a buffer":         {body: long, reader: bytes.NewBufferString(long), length: 200, status: 200},
		"long, streamed":            {body: long, reader: io.MultiReader(strings.NewReader(long)), length: -1, status: 200},
		"long, of known length":     {body: long, reader: io.MultiReader(strings.NewReader(long)), length: 200, status: 200},
		"long, one try":             {body: long, reader: io.MultiReader(strings.NewReader(long)), length: 200, tr: idemhttp.Transport{MaxTries: 1}, status: 200},
		"nothing is kept":           {body: long, reader: io.MultiReader(strings.NewReader(long)), length: -1, tr: idemhttp.Transport{MaxBody: -1}, status: 200},
		"long, with a key":          {body: long, reader: strings.NewReader(long), length: 200, key: "mine", status: 413},
		"streamed long, with a key": {body: long, reader: io.MultiReader(strings.NewReader(long)), length: 200, key: "mine", status: 413},
	} {
		got = nil
		tr := c.tr
		tr.Base = s.http.Transport
		if tr.MaxBody == 0 {
			tr.MaxBody = 50
		}
		var told []idemhttp.Try
		tr.Observer = func(try idemhttp.Try) { told = append(told, try) }
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, c.reader)
		require.NoError(t, err)
		r.ContentLength = c.length
		if c.key != "" {
			r.Header.Set("Idempotency-Key", c.key)
		}
		resp := exchange(t, &tr, r)
		readAll(t, resp)
		assert.Equal(t, c.status, resp.StatusCode, name)
		if c.status != 200 {
			assert.Empty(t, got, name)
			continue
		}
		require.Len(t, got, 1, name)
		body, key, _ := strings.Cut(got[0], " ")
		assert.Equal(t, c.body, body, name)
		assert.Equal(t, c.keyed, key != "", name)
		assert.Equal(t, key, told[len(told)-1].Key, name)
	}

	// Without its key it is sent once more, and no more.
	synctest.Test(t, func(t *testing.T) {
		tooLarge := status(413, `{"type":"`+idemhttp.TypeBodyTooLarge+`"}`, "Content-Type", problemJSON)
		s := answers(tooLarge, status(503, ""))
		resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, strings.NewReader(long)))
		assert.Equal(t, 503, resp.StatusCode)
		readAll(t, resp)
		require.Len(t, s.sent, 2)
		assert.Equal(t, "", s.keys("Idempotency-Key")[1])
		assert.Equal(t, []string{long, long}, s.bodies)

		for _, list := range [][]reply{
			{status(413, "", "Content-Type", problemJSON)}, // of another kind
			{fails(errReset), tooLarge},                    // the first may have been taken
		} {
			s = answers(list...)
			resp = exchange(t, &idemhttp.Transport{Base: s}, post(t, strings.NewReader(long)))
			assert.Equal(t, 413, resp.StatusCode)
			readAll(t, resp)
			assert.Len(t, s.sent, len(list))
		}
	})
}

// The caller's key is one however its name is spelled. net/http keeps the spelling of
// names that were not set with Set.
func TestTransportKeyOfAnotherSpelling(t *testing.T) {
	t.Parallel()
	s := answers(status(503, ""), status(200, ""))
	r := post(t, strings.NewReader("12.50"))
	r.Header["idempotency-key"] = []string{`"mine"`}
	var told []string
	transport := quick(s)
	transport.Observer = func(try idemhttp.Try) { told = append(told, try.Key) }
	readAll(t, exchange(t, transport, r))
	require.Len(t, s.sent, 2)
	for _, sent := range s.sent {
		assert.Equal(t, http.Header{"idempotency-key": {`"mine"`}}, sent.Header)
	}
	assert.Equal(t, []string{`"mine"`, `"mine"`}, told)

	r.Header["idempotency-key"] = []string{" "}
	_, err := transport.RoundTrip(r)
	require.ErrorIs(t, err, idem.ErrInvalid)
	r.Header["idempotency-key"] = nil // to net/http this says nothing, and nothing is sent
	readAll(t, exchange(t, transport, r))
	assert.NotEmpty(t, s.sent[2].Header.Get("Idempotency-Key"))
}
