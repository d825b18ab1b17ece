package idemhttp_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// Answers that are sent as they are written, and what handlers may do with their
// ResponseWriter.

// wantNotRetained checks that a retry hears that the operation is done and its answer
// is not there, again and again, and that nothing ran again.
func (s *site) wantNotRetained(key string, status int) {
	s.t.Helper()
	for range 2 {
		a := s.post(key)
		p := wantProblem(s.t, a, 500, idemhttp.TypeNotRetained)
		if status != 0 {
			require.Contains(s.t, p.Detail, fmt.Sprint("status was ", status))
		}
	}
	require.EqualValues(s.t, 1, s.runs.Load())
	s.wantRecord(key, idem.Completed)
}

func TestOverTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 1000
	large := repeat("0123456789", limit+1)
	long := set("Content-Length", "1001")
	for name, h := range map[string]http.HandlerFunc{
		"one write":             does(put(large)),
		"many writes":           does(pipe(func() io.Reader { return iotest.OneByteReader(strings.NewReader(large)) })),
		"a write over":          does(put(large[:limit], large[limit:])),
		"flushed, then over":    does(put(large[:500]), flush, put(large[500:])),
		"own length":            does(long, put(large)),
		"own length, in parts":  does(long, put(large[:limit], large[limit:])),
		"own length, copied":    does(long, func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader(large)) }),
		"own length, and flush": does(long, put(large), flush),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engines(t, func(t *testing.T, store *idem.Store) {
				s := newSite(t, store, idemhttp.Options{MaxResponse: limit}, h)
				a := s.post("k")
				require.NoError(t, a.err)
				require.Equal(t, 200, a.status)
				require.Equal(t, large, a.body)
				require.Equal(t, "text/plain; charset=utf-8", a.header.Get("Content-Type"))
				s.wantNotRetained("k", 200)
			})
		})
	}
	// At the limit an answer is still kept.
	s := newSite(t, nil, idemhttp.Options{MaxResponse: limit}, does(put(large[:limit])))
	_, replay := s.replayOf("k")
	require.Equal(t, large[:limit], replay.body)
}

// What fits MaxResponse and does not fit the store's MaxResult is done and dropped.
func TestOverTheStoresLimit(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{MaxResult: 200})
	s := newSite(t, store, idemhttp.Options{MaxResponse: 1 << 20}, does(set("X-Long", repeat("x", 100)), put(repeat("x", 100))))
	require.Equal(t, repeat("x", 100), s.post("k").body)
	require.True(t, s.wantRecord("k", idem.Completed).ResultDropped)
	s.wantNotRetained("k", 0)
}

// A flushed answer is at the client before the handler ends, and replays if it fits.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"ResponseController", "Flusher"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, "data: 1\n\n")
				if how == "Flusher" {
					w.(http.Flusher).Flush()
				} else {
					assert.NoError(t, http.NewResponseController(w).Flush())
				}
				g.wait()
				fmt.Fprint(w, "data: 2\n\n")
			})
			r := must(http.NewRequest("POST", s.url+"/payments", strings.NewReader("12.50")))
			r.Header.Set("Idempotency-Key", "k")
			resp, err := s.http.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			in := bufio.NewReader(resp.Body)
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "data: 1\n", line)
			wantProblem(t, s.post("k"), 409, idemhttp.TypeInFlight)
			close(g.leave)
			rest, err := io.ReadAll(in)
			require.NoError(t, err)
			require.Equal(t, "\ndata: 2\n\n", string(rest))
			replay := s.post("k")
			require.True(t, replay.replayed())
			require.Equal(t, "data: 1\n\ndata: 2\n\n", replay.body)
			require.Equal(t, "text/event-stream", replay.header.Get("Content-Type"))
		})
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"announced":              does(set("Trailer", "X-Sum"), put("body"), set("X-Sum", "4")),
		"not announced":          does(put("body"), set(http.TrailerPrefix+"X-Sum", "4")),
		"not announced, flushed": does(put("body"), flush, set(http.TrailerPrefix+"X-Sum", "4")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, h)
			r := must(http.NewRequest("POST", s.url+"/payments", strings.NewReader("12.50")))
			r.Header.Set("Idempotency-Key", "k")
			resp, err := s.http.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "body", string(body))
			require.Equal(t, "4", resp.Trailer.Get("X-Sum"))
			s.wantNotRetained("k", 200)
		})
	}
}

// settled waits until the key is not in flight.
func (s *site) settled(key string) {
	s.t.Helper()
	_, err := s.store.Wait(s.t.Context(), idemhttp.StoreKey("shop", key))
	require.NoError(s.t, err)
}

// A handler that breaks off, having said how much there would be, or whose source
// breaks off, leaves no answer that could pass for whole.
func TestCutOff(t *testing.T) {
	t.Parallel()
	nothing := func() io.Reader { return iotest.ErrReader(errors.New("the disk is gone")) }
	source := func() io.Reader { return io.MultiReader(strings.NewReader("half"), nothing()) }
	for name, h := range map[string]http.HandlerFunc{
		"short of its length":                 does(set("Content-Length", "8"), put("half")),
		"short of its length, flushed":        does(set("Content-Length", "8"), put("half"), flush),
		"source fails":                        does(pipe(source)),
		"source fails, then more":             does(pipe(source), put("and half")),
		"source fails at once, after a start": does(put("half"), pipe(nothing)),
		"source fails at once, after a flush": does(put("half"), flush, pipe(nothing)),
		"second source fails at once":         does(pipe(text("half")), pipe(nothing)),
		"buffered source fails": does(func(w http.ResponseWriter) {
			buffered := bufio.NewReader(source())
			_, _ = buffered.Peek(1) // what it has read it writes, the rest it copies
			_, _ = io.Copy(w, buffered)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, h)
			a := s.post("k")
			require.True(t, strings.HasPrefix(a.body, "half"))
			require.Equal(t, strings.HasPrefix(name, "short"), a.err != nil, "as without the middleware")
			s.wantNotRetained("k", 200)
		})
	}
}

// A source that fails before there is anything of an answer leaves the handler free to
// answer something else.
func TestSourceFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.Copy(w, iotest.ErrReader(errors.New("no disk"))); err != nil {
			http.Error(w, "gone", http.StatusGone)
		}
	})
	_, replay := s.replayOf("k")
	require.Equal(t, 410, replay.status)
	require.Equal(t, "gone\n", replay.body)
}

// readFromWriter is a ResponseWriter that counts what comes by way of ReadFrom.
type readFromWriter struct {
	http.ResponseWriter
	by *atomic.Int64
}

func (w readFromWriter) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, src)
	w.by.Add(n)
	return n, err
}

func (w readFromWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// What is over the limit goes by ReadFrom, for the kernel to copy it, to the last
// byte but one where that one is held back.
func TestReadFrom(t *testing.T) {
	t.Parallel()
	const limit, size = 100 << 10, 1 << 20
	path := t.TempDir() + "/file"
	want := repeat("0123456789", size)
	require.NoError(t, os.WriteFile(path, []byte(want), 0o600))
	for name, c := range map[string]struct {
		declare bool
		least   int64
	}{"chunked": {false, size - limit - 64<<10}, "own length": {true, size - 1 - 64<<10}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var by atomic.Int64
			s := newSite(t, nil, idemhttp.Options{MaxResponse: limit}, func(w http.ResponseWriter, _ *http.Request) {
				f, err := os.Open(path)
				if !assert.NoError(t, err) {
					return
				}
				defer f.Close()
				if c.declare {
					w.Header().Set("Content-Length", fmt.Sprint(size))
				}
				n, err := w.(io.ReaderFrom).ReadFrom(f)
				assert.EqualValues(t, size, n)
				assert.NoError(t, err)
			}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				next.ServeHTTP(readFromWriter{w, &by}, r)
			}))
			a := s.post("k")
			require.NoError(t, a.err)
			require.True(t, want == a.body)
			require.GreaterOrEqual(t, by.Load(), c.least)
			require.Less(t, by.Load(), int64(size), "not all of it")
			s.wantNotRetained("k", 200)
		})
	}
}

func TestResponseController(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		assert.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		assert.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Hour)))
		assert.NoError(t, c.EnableFullDuplex())
		_, flusher := w.(http.Flusher)
		_, readerFrom := w.(io.ReaderFrom)
		_, stringWriter := w.(io.StringWriter)
		_, unwrap := w.(interface{ Unwrap() http.ResponseWriter })
		fmt.Fprint(w, flusher, readerFrom, stringWriter, unwrap)
	})
	_, replay := s.replayOf("k")
	require.Equal(t, "true true true true", replay.body)
}

// A ResponseWriter further out that cannot flush or be hijacked says so through ours,
// and the answer is still buffered.
func TestNotSupported(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "a")
		c := http.NewResponseController(w)
		assert.ErrorIs(t, c.Flush(), http.ErrNotSupported)
		w.(http.Flusher).Flush()
		_, _, err := c.Hijack()
		assert.ErrorIs(t, err, http.ErrNotSupported)
		w.Header().Set("X-After", "too late")
		fmt.Fprint(w, "b")
	}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	}))
	_, replay := s.replayOf("k")
	require.Equal(t, "ab", replay.body)
	require.NotContains(t, replay.header, "X-After")
}

// HTTP/2 streams as HTTP/1.1 does.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	h := once(store, idemhttp.Options{MaxResponse: 100}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<p>")
		flush(w)
		if r.URL.Path == "/large" {
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
			fmt.Fprint(w, repeat("x", 200))
		}
	})
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := &site{t: t, store: store, url: server.URL, http: server.Client()}
	first, replay := s.replayOf("k")
	require.Equal(t, "<p>", first.body)
	require.Equal(t, comparable(first.header), comparable(replay.header))
	require.Equal(t, "<p>", replay.body)
	require.Equal(t, "<p>"+repeat("x", 200), s.do("POST", "/large", "l", "").body)
	wantProblem(t, s.do("POST", "/large", "l", ""), 500, idemhttp.TypeNotRetained)
}

// A connection that the handler takes over is the answer, and cannot be kept.
func TestHijack(t *testing.T) {
	t.Parallel()
	write := func(conn net.Conn, rw *bufio.ReadWriter, err error) {
		if err == nil {
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
			_ = errors.Join(rw.Flush(), conn.Close())
		}
	}
	hangUp := func(w http.ResponseWriter) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = errors.Join(rw.Flush(), conn.Close())
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"Hijacker": func(w http.ResponseWriter, _ *http.Request) {
			write(w.(http.Hijacker).Hijack())
			w.WriteHeader(500) // means nothing any more
			_, _ = w.Write(nil)
		},
		"ResponseController": func(w http.ResponseWriter, _ *http.Request) { write(http.NewResponseController(w).Hijack()) },
		"after an answer":    does(set("Content-Length", "2"), set("Connection", "close"), put("hi"), hangUp),
		"after a live answer of known length": does(set("Content-Length", "2"), set("Connection", "close"),
			put("h"), flush, put("i"), hangUp), // the last byte is held back
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, h)
			a := s.post("k")
			require.NoError(t, a.err)
			require.Equal(t, 200, a.status)
			require.Equal(t, "hi", a.body)
			s.settled("k") // it was the handler who answered
			s.wantNotRetained("k", 0)
		})
	}
}

// A handler that switches protocols is done, with 101, whether or not it goes on to talk.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, talks := range map[string]bool{"talks": true, "does nothing more": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "echo")
				w.WriteHeader(http.StatusSwitchingProtocols)
				if !talks {
					_, err := w.Write([]byte("not HTTP"))
					assert.ErrorIs(t, err, http.ErrBodyNotAllowed)
					return
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err == nil {
					line, _ := rw.ReadString('\n')
					_, _ = rw.WriteString("echo " + line)
					_ = errors.Join(rw.Flush(), conn.Close())
				}
			})
			conn := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
			defer conn.Close()
			fmt.Fprint(conn, "POST /payments HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+
				"Idempotency-Key: k\r\nContent-Length: 5\r\n\r\n12.50")
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			require.Equal(t, 101, resp.StatusCode)
			if talks {
				fmt.Fprintln(conn, "hello")
				rest, err := io.ReadAll(in)
				require.NoError(t, err)
				require.Equal(t, "echo hello\n", string(rest))
			}
			s.settled("k")
			s.wantNotRetained("k", 101)
		})
	}
}
