package idemhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

// heard notes what a server was sent.
type heard struct {
	mu     sync.Mutex
	keys   []string
	bodies []string
}

// note returns how many requests there were before.
func (h *heard) note(t *testing.T, r *http.Request) int {
	body, err := io.ReadAll(r.Body)
	assert.NoError(t, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys, h.bodies = append(h.keys, r.Header.Get("Idempotency-Key")), append(h.bodies, string(body))
	return len(h.keys) - 1
}

func (h *heard) all() (keys, bodies []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys, h.bodies
}

// quick waits for next to nothing.
func quick(base http.RoundTripper) *idemhttp.Transport {
	return &idemhttp.Transport{Base: base, MinBackoff: 1, MaxBackoff: 1}
}

// A Base that breaks its contract gets an error, as from http.Client, and no panic.
func TestTransportBaseWithoutAnswerOrError(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "GET"} {
		s := answers(func(*http.Request) (*http.Response, error) { return nil, nil })
		r := post(t, nil)
		r.Method = method
		_, err := (&idemhttp.Transport{Base: s}).RoundTrip(r)
		require.ErrorContains(t, err, "neither an answer nor an error")
		assert.Len(t, s.sent, 1)
	}
}

// The answer at hand is not lost because the body cannot be had for another try.
func TestTransportReturnsAnswerWhenBodyIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := answers(status(503, "busy"))
		r := post(t, strings.NewReader("a"))
		r.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }
		start := time.Now()
		resp := exchange(t, &idemhttp.Transport{Base: s}, r)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "busy", readAll(t, resp))
		assert.Len(t, s.sent, 1)
		assert.Zero(t, time.Since(start))
	})
}

// Informational answers reach the caller's hooks in each try, and a body that the
// server did not want yet is sent whole the next time.
func TestTransportInformationalAnswers(t *testing.T) {
	t.Parallel()
	var h heard
	var turnedAway sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		away := false
		turnedAway.Do(func() { away = true })
		if away {
			w.WriteHeader(http.StatusServiceUnavailable) // the body stays where it is
			return
		}
		h.note(t, r)
	}))
	t.Cleanup(server.Close)
	base := &http.Transport{ExpectContinueTimeout: time.Hour}
	t.Cleanup(base.CloseIdleConnections)
	var hints, continues int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				hints++
			}
			return nil
		},
		Got100Continue: func() { continues++ },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, io.MultiReader(strings.NewReader("12.50")))
	require.NoError(t, err)
	r.Header.Set("Expect", "100-continue")
	resp := exchange(t, quick(base), r)
	readAll(t, resp)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, 2, hints)
	assert.Equal(t, 1, continues)
	_, bodies := h.all()
	assert.Equal(t, []string{"12.50"}, bodies)
}

// http.Client follows redirects with the caller's header: its key comes along, and a
// key of the Transport's own is made for each hop, with tries of its own.
func TestTransportRedirects(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"", "mine"} {
		var h heard
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch h.note(t, r) {
			case 0:
				http.Redirect(w, r, "/moved", http.StatusTemporaryRedirect)
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		t.Cleanup(server.Close)
		base := &http.Transport{}
		t.Cleanup(base.CloseIdleConnections)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("12.50"))
		require.NoError(t, err)
		if own != "" {
			r.Header.Set("Idempotency-Key", own)
		}
		resp, err := (&http.Client{Transport: quick(base)}).Do(r)
		require.NoError(t, err)
		readAll(t, resp)
		keys, bodies := h.all()
		require.Len(t, keys, 3)
		assert.Equal(t, []string{"12.50", "12.50", "12.50"}, bodies)
		assert.Equal(t, keys[1], keys[2])
		if own != "" {
			assert.Equal(t, []string{own, own, own}, keys)
		} else {
			assert.NotEqual(t, keys[0], keys[1])
		}
	}
}

// measured is a RoundTripper as those for metrics and traces are: it sends a clone, and
// wraps the bodies.
type measured struct {
	http.RoundTripper
	calls int
}

func (m *measured) RoundTrip(r *http.Request) (*http.Response, error) {
	m.calls++
	r = r.Clone(context.WithValue(r.Context(), measured{}, "span"))
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &tracked{ReadCloser: r.Body}
	}
	resp, err := m.RoundTripper.RoundTrip(r)
	if resp != nil {
		resp.Body = &tracked{ReadCloser: resp.Body}
	}
	return resp, err
}

// RoundTrippers for metrics and traces can stand on either side of the Transport. Below
// it they see each try, above it the request.
func TestTransportBetweenRoundTrippers(t *testing.T) {
	t.Parallel()
	var h heard
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.note(t, r) == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	below := &measured{RoundTripper: base}
	above := &measured{RoundTripper: quick(below)}
	resp, err := (&http.Client{Transport: above}).Post(server.URL, "text/plain", strings.NewReader("12.50"))
	require.NoError(t, err)
	readAll(t, resp)
	assert.Equal(t, 1, above.calls)
	assert.Equal(t, 2, below.calls)
	keys, bodies := h.all()
	assert.Equal(t, []string{"12.50", "12.50"}, bodies)
	assert.Equal(t, keys[0], keys[1])
}

// HTTP/2 sends a request again by itself, on another connection, when the server has
// refused the stream or is going away. It needs GetBody for that, also where the
// Transport keeps the body.
func TestTransportGivesBaseTheBodyAgain(t *testing.T) {
	t.Parallel()
	goingAway := func(r *http.Request) (*http.Response, error) {
		b, err := r.GetBody()
		require.NoError(t, err)
		body, err := io.ReadAll(b)
		require.NoError(t, err)
		assert.Equal(t, "12.50", string(body))
		return status(200, "")(r)
	}
	for _, body := range []io.Reader{strings.NewReader("12.50"), io.MultiReader(strings.NewReader("12.50"))} {
		s := answers(goingAway)
		readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, body)))
	}
	// What it cannot send again itself is an error like any other, and safe with a key.
	synctest.Test(t, func(t *testing.T) {
		s := answers(
			fails(errors.New("http2: Transport: cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY]")), status(200, ""),
		)
		readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, strings.NewReader("12.50"))))
		assert.Equal(t, []string{"12.50", "12.50"}, s.bodies)
	})
}

// What Observers and callers are given can be logged: the key does not show. Who has it
// is shown the answer of the operation.
func TestTransportLogsNoKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := answers(status(503, ""), fails(errReset))
		var tries []idemhttp.Try
		r := post(t, nil)
		r.Header.Set("Idempotency-Key", `"secret"`)
		_, err := (&idemhttp.Transport{Base: s, MaxTries: 2, Observer: func(try idemhttp.Try) { tries = append(tries, try) }}).RoundTrip(r)
		failed := failure(t, err)
		require.Equal(t, `"secret"`, failed.Key)
		require.Len(t, tries, 2)
		require.Equal(t, `"secret"`, tries[0].Key)

		var out bytes.Buffer
		for _, v := range []any{tries[0], &tries[0], tries[1], tries, err, errors.Join(err)} {
			fmt.Fprintf(&out, "%v %+v %#v %s %q\n", v, v, v, v, v)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("tried", "try", tries[0], "last", &tries[1], "err", err)
		}
		assert.NotContains(t, out.String(), "secret")
		assert.NotContains(t, out.String(), fmt.Sprintf("%x", "secret"))

		assert.Equal(t, "try 1: status 503, again after "+tries[0].Wait.String(), fmt.Sprint(tries[0]))
		assert.Equal(t, "try 2: connection reset by a test", fmt.Sprint(tries[1]))
		assert.Contains(t, out.String(), `"try":{"number":1,"status":503,"again":true,"wait":`)
		assert.Contains(t, out.String(), `"last":{"number":2,"error":"connection reset by a test"}`)
		assert.Equal(t, `"secret"`, failed.Key)
	})
}

// An Observer that panics changes nothing: the request is tried again, and answered.
func TestTransportObserverPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := answers(status(503, ""), status(201, "charged"))
		tries := 0
		resp := exchange(t, &idemhttp.Transport{Base: s, Observer: func(idemhttp.Try) { tries++; panic("the log is gone") }}, post(t, nil))
		require.Equal(t, "charged", readAll(t, resp))
		require.Equal(t, 2, tries)
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

// duplex is the body of a 101 answer.
type duplex struct {
	io.Reader
	io.Writer
	io.Closer
}

// halfOpen is one of a connection that can end one direction.
type halfOpen struct {
	duplex
	ended *int
}

func (b halfOpen) CloseWrite() error { *b.ended++; return nil }

// An answer that the connection is handed over with (101) can still be written to. One
// direction of it can be ended, as with net/http's own body: by it ReverseProxy passes on that
// the client has sent all.
func TestTransportSwitchingProtocols(t *testing.T) {
	t.Parallel()
	for _, half := range []bool{true, false} {
		var wire bytes.Buffer
		ended := 0
		whole := duplex{strings.NewReader("hello"), &wire, io.NopCloser(nil)}
		var body io.ReadCloser = whole
		if half {
			body = halfOpen{whole, &ended}
		}
		resp := exchange(t, &idemhttp.Transport{Base: gives(&http.Response{StatusCode: 101, Body: body})}, post(t, nil))
		_, err := resp.Body.(io.Writer).Write([]byte("over"))
		require.NoError(t, err)
		assert.Equal(t, "over", wire.String())
		err = resp.Body.(interface{ CloseWrite() error }).CloseWrite()
		if half {
			require.NoError(t, err)
			assert.Equal(t, 1, ended)
		} else {
			require.ErrorIs(t, err, http.ErrNotSupported)
		}
		assert.Equal(t, "hello", readAll(t, resp))
	}
}
