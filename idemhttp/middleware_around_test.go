package idemhttp_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// net/http's own handlers around the middleware, inside of it, or both.

// A first answer is the one that the service gives without the middleware, and a retry
// gets it again, wherever net/http's own wrappers are placed.
func TestStandardWrappers(t *testing.T) {
	t.Parallel()
	type wrapper = func(http.Handler) http.Handler
	mux := func(pattern string) wrapper {
		return func(next http.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle(pattern, next)
			return m
		}
	}
	both := func(a, b wrapper) wrapper { return func(next http.Handler) http.Handler { return a(b(next)) } }
	strip := func(next http.Handler) http.Handler { return http.StripPrefix("/shops/eu", next) }
	for name, wrap := range map[string]wrapper{
		"ServeMux":              mux("POST /shops/{shop}/payments"),
		"StripPrefix":           strip,
		"StripPrefix, ServeMux": both(strip, mux("POST /{kind}")),
		"ServeMux, StripPrefix": both(mux("/shops/{shop}/"), strip),
		"ServeMux, not found":   mux("/elsewhere"),
		"ServeMux, method":      mux("GET /shops/"),
		"TimeoutHandler":        func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Hour, "too slow") },
		"MaxBytesHandler":       func(next http.Handler) http.Handler { return http.MaxBytesHandler(next, 5) },
		"AllowQuerySemicolons":  http.AllowQuerySemicolons,
		"CrossOriginProtection": http.NewCrossOriginProtection().Handler,
	} {
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			w.Header().Set("Location", "/payments/1")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "<!DOCTYPE html>%s %v %s %s", body, err, r.URL.Path, r.PathValue("shop")+r.PathValue("kind"))
		})
		serve := func(h http.Handler) answer {
			server := httptest.NewServer(h)
			defer server.Close()
			return (&site{t: t, url: server.URL, http: server.Client()}).do("POST", "/shops/eu/payments?a=1", "k", "12.50")
		}
		once := func(store *idem.Store) wrapper { return idemhttp.New(store, scopeOf, idemhttp.Options{}) }
		for place, around := range map[string]func(*idem.Store) http.Handler{
			"outside":   func(s *idem.Store) http.Handler { return wrap(once(s)(handler)) },
			"inside":    func(s *idem.Store) http.Handler { return once(s)(wrap(handler)) },
			"both":      func(s *idem.Store) http.Handler { return http.AllowQuerySemicolons(once(s)(wrap(handler))) },
			"two of it": func(s *idem.Store) http.Handler { return once(s)(wrap(once(s)(handler))) },
		} {
			t.Run(name+" "+place, func(t *testing.T) {
				t.Parallel()
				store := memoryStore(t, idem.Options{})
				bare, first, again := serve(wrap(handler)), serve(around(store)), serve(around(store))
				for _, a := range []answer{first, again} {
					require.NoError(t, a.err)
					require.Equal(t, bare.status, a.status)
					require.Equal(t, bare.body, a.body)
					require.Equal(t, comparable(bare.header), comparable(a.header))
				}
				// What a wrapper outside answers by itself has not come as far as us.
				require.Equal(t, bare.status == 201 || place != "outside", again.replayed())
			})
		}
	}
}

// A limit on bodies further out is told as our own is. Inside it is the handler's
// business: we have the body already.
func TestMaxBytesHandler(t *testing.T) {
	t.Parallel()
	limit := func(next http.Handler) http.Handler { return http.MaxBytesHandler(next, 5) }
	upload := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			http.Error(w, "no more than 5 bytes", http.StatusRequestEntityTooLarge)
		}
	}
	outside := newSite(t, nil, idemhttp.Options{}, upload, limit)
	a := outside.do("POST", "/", "k", "123456")
	require.Contains(t, wantProblem(t, a, 413, idemhttp.TypeBodyTooLarge).Detail, "may have 5 bytes")
	outside.wantNothingStored()
	require.Equal(t, "12345", outside.do("POST", "/", "k", "12345").body, "the key is free")

	inside := newSite(t, nil, idemhttp.Options{}, limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, "no more than 5 bytes", http.StatusRequestEntityTooLarge)
			return
		}
		_, _ = w.Write(body)
	})).ServeHTTP)
	for range 2 {
		a := inside.do("POST", "/", "k", "123456")
		require.Equal(t, 413, a.status)
		require.Equal(t, "no more than 5 bytes\n", a.body)
	}
	require.EqualValues(t, 1, inside.runs.Load(), "the handler's 413 is final")
}

// proxyFailed is an httputil.ReverseProxy's ErrorHandler. Of all that can go wrong only a
// connection that was never made is known to have done nothing.
func proxyFailed(w http.ResponseWriter, r *http.Request, err error) {
	var failed *net.OpError
	if errors.As(err, &failed) && failed.Op == "dial" {
		idemhttp.FromContext(r.Context()).Retryable()
	}
	w.WriteHeader(http.StatusBadGateway)
}

// refusedDial is the error of a port that nobody listens on.
var refusedDial = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// A proxy that cannot reach its service runs nothing. With an ErrorHandler that says so
// the retry is passed on; without one nobody has said it, and the operation is held. What
// breaks after the request was sent is held with both.
func TestReverseProxyFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler func(http.ResponseWriter, *http.Request, error)
		refuse  bool
		state   idem.State
	}{
		"refused, told":        {handler: proxyFailed, refuse: true, state: idem.Released},
		"refused, not told":    {refuse: true, state: idem.Held},
		"broken off, told":     {handler: proxyFailed, state: idem.Held},
		"broken off, not told": {state: idem.Held},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var works atomic.Bool
			upstream := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
				if !works.Load() {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, "paid")
			})
			proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(upstream.url)))
			proxy.ErrorHandler, proxy.ErrorLog = c.handler, discard
			transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if !works.Load() && c.refuse {
					return nil, refusedDial
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}}
			defer transport.CloseIdleConnections()
			proxy.Transport = transport
			s := newSite(t, nil, idemhttp.Options{}, proxy.ServeHTTP)
			require.Equal(t, 502, s.post("k").status)
			s.wantRecord("k", c.state)
			works.Store(true)
			if c.state == idem.Held {
				s.wantUnknown("k")
				return
			}
			require.Equal(t, "paid", s.post("k").body)
			require.True(t, s.post("k").replayed())
			require.EqualValues(t, 1, upstream.runs.Load())
		})
	}
}

// A proxy that passes on each part at once still works where a http.TimeoutHandler further
// out cannot send parts, and leaves the same answer for the retry.
func TestReverseProxyFlushes(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			fmt.Fprint(w, "part ")
			flush(w)
		}
	}))
	t.Cleanup(upstream.Close)
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(upstream.URL)))
	proxy.FlushInterval = -1
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy.Transport = transport
	for name, around := range map[string]func(http.Handler) http.Handler{
		"alone":                  func(next http.Handler) http.Handler { return next },
		"TimeoutHandler outside": func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Hour, "too slow") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil, idemhttp.Options{}, proxy.ServeHTTP, around)
			first, replay := s.replayOf("k")
			require.Equal(t, "part part part ", first.body)
			require.Equal(t, first.body, replay.body)
			require.Equal(t, comparable(first.header), comparable(replay.header))
		})
	}
}

// A service behind a proxy that cannot be reached has done nothing, and the proxy's
// ErrorHandler says so. Without it the 502 is held: it may have done its work before the
// connection broke.
func ExampleOperation_Retryable_reverseProxy() {
	store := exampleStore()
	defer store.Close()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "payments.internal"})
	proxy.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, refusedDial // until the service is up
	}}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		var failed *net.OpError
		if errors.As(err, &failed) && failed.Op == "dial" {
			idemhttp.FromContext(r.Context()).Retryable()
		}
		http.Error(w, "payments cannot be reached", http.StatusBadGateway)
	}
	h := idemhttp.New(store, account, idemhttp.Options{})(proxy)
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	// Output:
	// 502 payments cannot be reached
	// 502 payments cannot be reached
}

// What belongs outside of the middleware.

// A client that follows a redirect of ours takes its key along, to another request.
func TestRedirectTakesTheKeyAlong(t *testing.T) {
	t.Parallel()
	around := func(next http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("POST /old", http.RedirectHandler("/new", http.StatusPermanentRedirect))
		mux.Handle("POST /new", next)
		return mux
	}
	follow := func(s *site) answer {
		s.http.CheckRedirect = nil
		r := must(http.NewRequest(http.MethodPost, s.url+"/old", strings.NewReader("body")))
		r.Header.Set("Idempotency-Key", "k")
		resp, err := s.http.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return answer{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
	}
	inside := newSite(t, nil, idemhttp.Options{}, around(http.HandlerFunc(echo)).ServeHTTP)
	wantProblem(t, follow(inside), 422, idemhttp.TypeMismatch)
	outside := newSite(t, nil, idemhttp.Options{}, echo, around)
	require.Equal(t, "body <nil>", follow(outside).body)
}

// gzipWriter compresses what is written, as middleware of the simple kind does.
type gzipWriter struct {
	http.ResponseWriter
	to *gzip.Writer
}

func (w gzipWriter) Write(p []byte) (int, error) { return w.to.Write(p) }

// Where middleware further out encodes the answer, its length is not ours to say: not
// of the first answer, of a replay or of a problem.
func TestCompressedOutside(t *testing.T) {
	t.Parallel()
	body := repeat("compressible ", 1000)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, body)
	}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		to := gzip.NewWriter(w)
		defer to.Close()
		next.ServeHTTP(gzipWriter{w, to}, r)
	}))
	first, replay := s.replayOf("k") // the client's Transport decompresses
	for _, a := range []answer{first, replay} {
		require.NoError(t, a.err)
		require.Equal(t, body, a.body)
		require.Equal(t, "text/plain", a.header.Get("Content-Type"))
	}
	stored := s.wantRecord("k", idem.Completed).Result
	require.NotContains(t, string(stored), "gzip", "it is the current request's")
	wantProblem(t, s.do("POST", "/payments", "k", "another"), 422, idemhttp.TypeMismatch)
}

// goneWriter is a ResponseWriter whose client has gone.
type goneWriter struct{ http.ResponseWriter }

func (goneWriter) Write([]byte) (int, error) { return 0, errGone }
func (goneWriter) FlushError() error         { return errGone }

var errGone = errors.New("the client is gone")

// A handler whose answer nobody will get hears that the client has gone, and can stop. One
// whose answer is kept for the retry goes on as if the client were there.
func TestGoneIsToldWhereNothingIsKept(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]error{10: nil, 100: errGone} {
		h := once(memoryStore(t, idem.Options{}), idemhttp.Options{MaxResponse: 50}, func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).Flush(), "so far it may be kept")
			_, err := io.WriteString(w, repeat("x", size))
			assert.Equal(t, want, err)
			assert.Equal(t, want, http.NewResponseController(w).Flush())
		})
		h.ServeHTTP(goneWriter{httptest.NewRecorder()}, keyed("k"))
		w := serve(h, keyed("k"))
		if want == nil {
			require.Equal(t, repeat("x", size), w.body)
		} else {
			require.Equal(t, 500, w.status)
		}
	}
}
