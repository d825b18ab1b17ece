package idemhttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// A body is sent whole at every try, from GetBody or from memory; one that is too
// long for that is sent once, and the error says why.
func TestBodies(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 200)
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			body    string
			length  int64 // announced
			getBody bool
			max     int64
			tries   int // wanted, of three unless MaxTries is 1
			once    bool
			sent    int64 // ContentLength
			says    string
		}{
			"GetBody":                      {body: long, length: 2000, getBody: true, max: 10, tries: 3, sent: 2000},
			"GetBody of unknown length":    {body: long, length: -1, getBody: true, max: 10, tries: 3, sent: -1},
			"kept":                         {body: long, length: 2000, max: 2000, tries: 3, sent: 2000},
			"kept, of unknown length":      {body: long, length: -1, max: 2000, tries: 3, sent: 2000},
			"kept, length not said":        {body: long, length: 0, max: 2000, tries: 3, sent: 2000},
			"kept by default":              {body: long, length: -1, tries: 3, sent: 2000},
			"empty, of unknown length":     {body: "", length: -1, tries: 3, sent: 0},
			"too long, as announced":       {body: long, length: 2000, max: 1999, tries: 1, sent: 2000, says: "over Transport.MaxBody (1999 bytes)"},
			"too long, as turns out":       {body: long, length: -1, max: 1999, tries: 1, sent: -1, says: "over Transport.MaxBody (1999 bytes)"},
			"nothing is kept":              {body: long, length: -1, max: -1, tries: 1, sent: -1, says: "over Transport.MaxBody (0 bytes)"},
			"one try":                      {body: long, length: -1, once: true, tries: 1, sent: -1}, // nobody has counted it
			"GetBody, and nothing is kept": {body: long, length: 2000, getBody: true, max: -1, tries: 3, sent: 2000},
		} {
			s := answers(fails(errReset))
			r := post(t, nil)
			first := &tracked{ReadCloser: io.NopCloser(strings.NewReader(c.body))}
			var opened []*tracked
			r.Body, r.ContentLength = first, c.length
			if c.getBody {
				r.GetBody = func() (io.ReadCloser, error) {
					b := &tracked{ReadCloser: io.NopCloser(strings.NewReader(c.body))}
					opened = append(opened, b)
					return b, nil
				}
			}
			most := map[bool]int{true: 1, false: 3}[c.once]
			_, err := (&idemhttp.Transport{Base: s, MaxTries: most, MaxBody: c.max}).RoundTrip(r)
			require.ErrorIs(t, err, errReset, name)
			require.Len(t, s.sent, c.tries, name)
			for i, sent := range s.sent {
				assert.Equal(t, c.body, s.bodies[i], name)
				assert.Equal(t, c.sent, sent.ContentLength, name)
			}
			assert.Equal(t, 1, first.closed, name)
			for _, b := range opened {
				assert.Equal(t, 1, b.closed, name)
			}
			if c.says == "" {
				assert.NotContains(t, err.Error(), "MaxBody", name)
			} else {
				assert.ErrorContains(t, err, c.says, name)
			}
			assert.Equal(t, first, r.Body, "the caller's request")
			assert.Equal(t, c.length, r.ContentLength)
		}
	})
}

// A body that cannot be read is the caller's trouble, at once.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk has gone")
	s := answers(fails(errReset))
	r := post(t, nil)
	body := &tracked{ReadCloser: io.NopCloser(io.MultiReader(strings.NewReader("abc"), failing{broken}))}
	r.Body, r.ContentLength = body, -1
	_, err := (&idemhttp.Transport{Base: s}).RoundTrip(r)
	require.ErrorIs(t, err, broken)
	assert.Empty(t, s.sent)
	assert.Equal(t, 1, body.closed)

	r = post(t, nil)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 5
	_, err = (&idemhttp.Transport{Base: s}).RoundTrip(r)
	require.ErrorContains(t, err, "it has 3 bytes, ContentLength says 5")
	assert.Empty(t, s.sent)

	synctest.Test(t, func(t *testing.T) {
		r := post(t, strings.NewReader("abc"))
		r.GetBody = func() (io.ReadCloser, error) { return nil, broken }
		_, err := (&idemhttp.Transport{Base: s}).RoundTrip(r)
		require.ErrorIs(t, err, broken)
		assert.Len(t, s.sent, 1)
	})
}

type failing struct{ err error }

func (r failing) Read([]byte) (int, error) { return 0, r.err }

// A body that never ends, such as a pipe, ends with the context and with Timeout, also if
// closing it does not free its reader: what http.NewRequest wraps, such as a bufio.Reader of a
// terminal.
func TestTransportContextEndsReadingTheBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for timeout, want := range map[time.Duration]time.Duration{0: 3, -1: 3, 2 * time.Second: 2} {
			for _, wrap := range []func(io.ReadCloser) io.ReadCloser{
				func(pr io.ReadCloser) io.ReadCloser { return pr },
				func(pr io.ReadCloser) io.ReadCloser { return io.NopCloser(pr) },
			} {
				s := answers(status(200, ""))
				pr, pw := io.Pipe()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				body := &tracked{ReadCloser: wrap(pr)}
				start := time.Now()
				_, err := (&idemhttp.Transport{Base: s, Timeout: timeout}).RoundTrip(post(t, body).WithContext(ctx))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, want*time.Second, time.Since(start))
				assert.Equal(t, 1, body.closed)
				assert.Empty(t, s.sent)
				cancel()
				require.NoError(t, pw.Close())
			}
		}

		r := post(t, panicking{"a test's"})
		transport := &idemhttp.Transport{Base: &script{}}
		require.PanicsWithValue(t, "a test's", func() { _, _ = transport.RoundTrip(r) })
	})
}

// It ends with Timeout, too, and what was read in time leaves the tries the rest of it.
func TestTransportTimeoutEndsReadingTheBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := answers(hang(nil))
		transport := &idemhttp.Transport{Base: s, Timeout: 5 * time.Second}
		for _, slow := range []time.Duration{time.Hour, 4 * time.Second} {
			pr, pw := io.Pipe()
			go func() {
				time.Sleep(slow)
				_, _ = pw.Write([]byte("12.50"))
				_ = pw.Close()
			}()
			start := time.Now()
			_, err := transport.RoundTrip(post(t, pr))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, context.Canceled, "nobody cancelled it")
			failed := failure(t, err)
			assert.True(t, failed.Timeout())
			assert.Equal(t, 5*time.Second, time.Since(start))
		}
		assert.Equal(t, []string{"12.50"}, s.bodies, "the first was never whole")
		time.Sleep(time.Hour) // for its writer
	})
}

// cut is an answer that says how long it is and ends before.
func cut(code int, body string, missing int64) reply {
	return func(r *http.Request) (*http.Response, error) {
		resp, _ := status(code, "")(r)
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), failing{io.ErrUnexpectedEOF}))
		resp.ContentLength = int64(len(body)) + missing
		return resp, nil
	}
}

// An answer that is cut half-way is asked for again, where that is known in time.
func TestCutAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := answers(cut(201, "char", 3), cut(422, "n", 1), cut(201, "", 1), status(201, "charged"))
		assert.Equal(t, "charged", readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))))
		require.Len(t, s.sent, 4)
		for i, b := range s.given {
			assert.Equal(t, 1, b.closed, i)
		}
		for _, r := range s.sent {
			assert.Error(t, r.Context().Err(), "freed")
		}

		// Cut after its last byte, where a trailer may have been.
		s = answers(cut(201, "charged", 0), status(201, "charged"))
		assert.Equal(t, "charged", readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))))
		assert.Len(t, s.sent, 2)

		// One that is longer than it says is handed on whole.
		s = answers(func(r *http.Request) (*http.Response, error) {
			resp, err := status(201, "charged")(r)
			resp.ContentLength = 4
			return resp, err
		})
		assert.Equal(t, "charged", readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))))
		assert.Len(t, s.sent, 1)
		assert.Equal(t, 1, s.given[0].closed)

		// To the last: an error, and the key to go on with.
		s = answers(cut(201, "char", 3))
		_, err := (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(post(t, nil))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		failed := failure(t, err)
		assert.Equal(t, s.keys("Idempotency-Key")[2], failed.Key)
		assert.Len(t, s.sent, 3)

		// Not kept: without a key, too long, or because nothing is.
		unknown := func(r *http.Request) (*http.Response, error) {
			resp, err := cut(201, "char", 3)(r)
			resp.ContentLength = -1
			return resp, err
		}
		for _, c := range []struct {
			method string
			tr     idemhttp.Transport
			answer reply
		}{
			{"GET", idemhttp.Transport{}, cut(200, "char", 3)},
			{"POST", idemhttp.Transport{MaxAnswer: -1}, unknown},
			{"POST", idemhttp.Transport{MaxAnswer: 6}, cut(200, "char", 3)},
			{"POST", idemhttp.Transport{MaxAnswer: -1}, cut(200, "char", 3)},
			{"HEAD", idemhttp.Transport{Methods: []string{"HEAD"}}, cut(200, "", 3)},
		} {
			s := answers(c.answer)
			tr := c.tr
			tr.Base = s
			r := post(t, nil)
			r.Method = c.method
			resp := exchange(t, &tr, r)
			assert.Len(t, s.sent, 1)
			require.NoError(t, resp.Request.Context().Err(), "in use until the body is closed")
			_, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.NoError(t, resp.Body.Close())
			require.Error(t, resp.Request.Context().Err())
		}

		// Of a whole answer that drips, the tries' time is over in the end.
		drip := func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: endless{r.Context()}, ContentLength: 1000}, nil
		}
		s = answers(drip)
		start := time.Now()
		_, err = (&idemhttp.Transport{Base: s, TryTimeout: 7 * time.Second, Timeout: 20 * time.Second}).RoundTrip(post(t, nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 20*time.Second, time.Since(start))
		assert.Len(t, s.sent, 3)
	})
}

// Trailers are set while the body is read, and go out with it.
func TestTransportTrailer(t *testing.T) {
	t.Parallel()
	var seen string
	s := answers(func(r *http.Request) (*http.Response, error) {
		seen = r.Trailer.Get("X-Sum")
		return status(200, "")(r)
	})
	r := post(t, nil)
	r.Trailer = http.Header{"X-Sum": nil}
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("abc"), atEnd(func() { r.Trailer.Set("X-Sum", "6") }))), -1
	readAll(t, exchange(t, &idemhttp.Transport{Base: s, MaxBody: -1}, r))
	assert.Equal(t, "6", seen)
}

// The trailer of an answer that is kept comes with it, also over HTTP/2, which can send
// one after a body of known length.
func TestTransportAnswerTrailer(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Length", "7")
		_, _ = io.WriteString(w, "charged")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "6")
		w.Header().Set(http.TrailerPrefix+"X-Late", "7")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, most := range []int64{0, -1} { // kept, and not
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("a"))
		require.NoError(t, err)
		resp := exchange(t, &idemhttp.Transport{Base: server.Client().Transport, MaxAnswer: most}, r)
		require.Equal(t, 2, resp.ProtoMajor)
		require.EqualValues(t, 7, resp.ContentLength)
		assert.Equal(t, "charged", readAll(t, resp))
		assert.Equal(t, http.Header{"X-Sum": {"6"}, "X-Late": {"7"}}, resp.Trailer)
	}
}

type atEnd func()

func (f atEnd) Read([]byte) (int, error) { f(); return 0, io.EOF }

// What another try would meet again is not tried again.
func TestHopelessErrors(t *testing.T) {
	t.Parallel()
	for _, err := range []error{&tls.CertificateVerificationError{Err: errors.New("unknown authority")}, tls.RecordHeaderError{Msg: "not TLS"}} {
		s := answers(fails(err))
		_, got := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil))
		require.ErrorIs(t, got, err)
		assert.Len(t, s.sent, 1)
	}
}

// What cannot be sent at all is not tried, and its header's values are not told.
func TestUnsendableRequests(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(r *http.Request){
		"no URL":             func(r *http.Request) { r.URL = nil },
		"no host":            func(r *http.Request) { r.URL.Host = "" },
		"line feed in value": func(r *http.Request) { r.Header.Set("X-Own", "secret\n") },
		"DEL in 2nd value":   func(r *http.Request) { r.Header["X-Own"] = []string{"a", "secret\x7f"} },
		"line feed in key":   func(r *http.Request) { r.Header.Set("Idempotency-Key", "secret\n") },
		"space in name":      func(r *http.Request) { r.Header["X Own"] = []string{"secret"} },
		"umlaut in name":     func(r *http.Request) { r.Header["Schlüssel"] = []string{"secret"} },
		"no name":            func(r *http.Request) { r.Header[""] = []string{"secret"} },
		"trailer":            func(r *http.Request) { r.Trailer = http.Header{"X:": nil} },
	} {
		for _, method := range []string{"POST", "GET"} {
			s := answers(fails(errReset))
			r := post(t, nil)
			body := &tracked{ReadCloser: io.NopCloser(strings.NewReader("x"))}
			r.Method, r.Body = method, body
			spoil(r)
			_, err := (&http.Transport{}).RoundTrip(r.Clone(r.Context()))
			require.Error(t, err, "net/http does not send it either: %s", name)
			closed := body.closed
			_, err = (&idemhttp.Transport{Base: s}).RoundTrip(r)
			require.ErrorIs(t, err, idem.ErrInvalid, name)
			assert.NotContains(t, err.Error(), "secret", name)
			assert.Empty(t, s.sent, name)
			assert.Equal(t, closed+1, body.closed, name)
		}
	}

	// Nor one whose key would be in such a field.
	s := answers(fails(errReset))
	_, err := (&idemhttp.Transport{Base: s, Header: "Idempotency Key"}).RoundTrip(post(t, nil))
	require.ErrorIs(t, err, idem.ErrInvalid)
	require.ErrorContains(t, err, "Transport.Header")
	assert.Empty(t, s.sent)

	// Each byte that may be in a value, and each character in a name, goes through.
	s = answers(status(200, ""))
	r := post(t, nil)
	r.Header["X-Own"] = []string{"", " \t~\x80\xffé"}
	r.Header["!#$%&'*+-.^_`|~09azAZ"] = []string{"a"}
	readAll(t, exchange(t, &idemhttp.Transport{Base: s}, r))
}

// A scheme that http.Transport does not know is not tried again; another Base may know
// it, and then its connections can fail as any.
func TestSchemes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, url := range []string{"htp://pay.test", "/charges", "unix:sock"} {
			for method, base := range map[string]http.RoundTripper{"POST": &http.Transport{}, "GET": nil} {
				r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
				require.NoError(t, err)
				start := time.Now()
				_, err = (&idemhttp.Transport{Base: base}).RoundTrip(r)
				require.ErrorContains(t, err, "unsupported protocol scheme")
				failed := failure(t, err)
				assert.Equal(t, 1, failed.Tries)
				assert.Zero(t, time.Since(start))

				s := answers(fails(errReset), status(200, ""))
				readAll(t, exchange(t, &idemhttp.Transport{Base: s}, r))
				assert.Len(t, s.sent, 2)
			}
		}
	})
}

// A request whose body was taken out is sent without one, also if its GetBody is still
// there.
func TestTransportRequestWithoutBody(t *testing.T) {
	t.Parallel()
	s := answers(status(503, ""), status(200, ""))
	r := post(t, strings.NewReader("12.50"))
	r.Body, r.ContentLength = nil, 0
	readAll(t, exchange(t, quick(s), r))
	assert.Equal(t, []string{"<none>", "<none>"}, s.bodies)
}
