package idemhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

// How bodies arrive: late, in part, or while the answer is on its way.

// protocols runs a test over HTTP/1.1 and HTTP/2. serve makes a site as newSite does.
func protocols(t *testing.T, test func(t *testing.T, serve func(handler http.HandlerFunc, around ...func(http.Handler) http.Handler) *site)) {
	for name, http2 := range map[string]bool{"HTTP 1.1": false, "HTTP 2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, func(handler http.HandlerFunc, around ...func(http.Handler) http.Handler) *site {
				s := newSite(t, nil, idemhttp.Options{}, handler, around...)
				if !http2 {
					return s
				}
				server := httptest.NewUnstartedServer(s.handler)
				server.Config.ErrorLog, server.EnableHTTP2 = discard, true
				server.StartTLS()
				t.Cleanup(server.Close)
				s.url, s.http = server.URL, server.Client()
				return s
			})
		})
	}
}

// firstHalf is more than what a client keeps to itself until it has more of a body.
var firstHalf = repeat("the first half", 32<<10)

// readBy is middleware that gives bodies until then to arrive, as a server's ReadTimeout
// does.
func readBy(then time.Time) func(http.Handler) http.Handler {
	return around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).SetReadDeadline(then)
		}
		next.ServeHTTP(w, r)
	})
}

// A body that does not arrive in time has been sent by nobody yet: the client hears 408,
// the handler does not run and the key is free. That is also what becomes of a client
// that waits for the answer before it sends the rest (full duplex): the whole body has to
// be known before the key is claimed, so the server's ReadTimeout has to bound it.
func TestBodyTooLate(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, serve func(http.HandlerFunc, ...func(http.Handler) http.Handler) *site) {
		s := serve(echo, readBy(time.Unix(1, 0)))
		// Nothing of it comes: a client that still writes when the server closes the
		// connection may hear of that instead of the answer.
		body, rest := io.Pipe()
		r := must(http.NewRequest(http.MethodPost, s.url+"/slow", body))
		r.Header.Set("Idempotency-Key", "k")
		a := s.send(r)
		require.NoError(t, rest.Close())
		require.Equal(t, "timeout", wantProblem(t, a, 408, idemhttp.TypeBodyUnreadable).Reason)
		require.Zero(t, s.runs.Load())
		require.Empty(t, s.heard(), "no fault of the server")
		s.wantNothingStored()
		require.Equal(t, "whole <nil>", s.do("POST", "/", "k", "whole").body)
	})
}

// A client that goes away in the middle of its body leaves nothing behind.
func TestClientLeavesInTheBody(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, serve func(http.HandlerFunc, ...func(http.Handler) http.Handler) *site) {
		arrived, over := make(chan struct{}), make(chan struct{})
		s := serve(echo, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			close(arrived)
			defer close(over)
			next.ServeHTTP(w, r)
		}))
		ctx, leave := context.WithCancel(t.Context())
		body, rest := io.Pipe()
		r := must(http.NewRequestWithContext(ctx, http.MethodPost, s.url, body))
		r.Header.Set("Idempotency-Key", "k")
		go func() {
			_, _ = io.WriteString(rest, firstHalf)
			<-arrived
			leave()
			_ = rest.CloseWithError(context.Canceled) // else the client waits for more of it
		}()
		require.Error(t, s.send(r).err)
		<-over
		require.Zero(t, s.runs.Load())
		require.Empty(t, s.heard())
		s.wantNothingStored()
	})
}

// A handler may read its body when it has begun to answer: it has been read already.
func TestReadsAfterTheAnswerHasBegun(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, serve func(http.HandlerFunc, ...func(http.Handler) http.Handler) *site) {
		duplex := around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 needs, and has, none
			next.ServeHTTP(w, r)
		})
		talk := func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "you said: ")
			flush(w)
			_, err := io.Copy(w, r.Body)
			assert.NoError(t, err)
		}
		body := repeat("0123456789", 300_000)
		for _, s := range []*site{serve(duplex(http.HandlerFunc(talk)).ServeHTTP), serve(talk, duplex), serve(talk)} {
			first, replay := s.do("POST", "/", "k", body), s.do("POST", "/", "k", body)
			require.NoError(t, first.err)
			require.True(t, "you said: "+body == first.body)
			require.True(t, replay.replayed())
			require.True(t, first.body == replay.body)
		}
	})
}

// A client that asks first, with Expect, is told to go on only when its body is wanted;
// a retry's body is wanted too, to be compared.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{MaxBody: 10}, echo)
	for _, c := range []struct {
		key, tenant string
		length      int
		status      int
		kind        string
	}{
		{key: `"`, length: 5, status: 400, kind: idemhttp.TypeKeyInvalid},
		{key: "k", tenant: "none", length: 5, status: 403, kind: idemhttp.TypeScopeMissing},
		{key: "k", length: 11, status: 413, kind: idemhttp.TypeBodyTooLarge},
		{key: "k", length: 5, status: 200},
		{key: "k", length: 5, status: 200}, // the replay
	} {
		conn := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %s\r\nTenant: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", c.key, c.tenant, c.length)
		in := bufio.NewReader(conn)
		if c.kind == "" {
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
			_, err = in.ReadString('\n')
			require.NoError(t, err)
			fmt.Fprint(conn, "12.50")
		}
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		a := answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
		if c.kind == "" {
			require.Equal(t, "12.50 <nil>", a.body)
		} else {
			wantProblem(t, a, c.status, c.kind)
		}
		require.NoError(t, conn.Close())
	}
	require.EqualValues(t, 1, s.runs.Load())
}
