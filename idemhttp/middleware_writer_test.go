package idemhttp_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// What frameworks and other middleware do with a ResponseWriter of ours, and what they
// give us for one.

// closeNotifier is http.CloseNotifier, which is deprecated and in use.
type closeNotifier interface{ CloseNotify() <-chan bool }

// CloseNotify tells what the context tells: that the client has gone, to handlers that
// stop for it.
func TestCloseNotify(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]bool{"goes on without the client": false, "stops with the client": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memoryStore(t, idem.Options{SweepInterval: -1})
				ctx, leave := context.WithCancel(t.Context())
				h := once(store, idemhttp.Options{CancelWithClient: cancel}, func(w http.ResponseWriter, _ *http.Request) {
					gone := w.(closeNotifier).CloseNotify()
					leave()
					synctest.Wait()
					assert.Len(t, gone, map[bool]int{true: 1}[cancel])
					fmt.Fprint(w, "paid")
				})
				serve(h, keyed("k").WithContext(ctx))
				w := serve(h, keyed("k"))
				require.Equal(t, "paid", w.body)
			})
		})
	}
}

// pushWriter is a ResponseWriter of a client that takes pushes.
type pushWriter struct {
	http.ResponseWriter
	pushed *[]string
}

func (w pushWriter) Push(target string, _ *http.PushOptions) error {
	*w.pushed = append(*w.pushed, target)
	return nil
}

// unwrapWriter is a ResponseWriter that has to be unwrapped for what it wraps.
type unwrapWriter struct{ http.ResponseWriter }

func (w unwrapWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestPush(t *testing.T) {
	t.Parallel()
	var pushed []string
	errs := make(chan error, 1)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		errs <- w.(http.Pusher).Push("/style.css", nil)
		fmt.Fprint(w, "page")
	}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/push" {
			w = unwrapWriter{pushWriter{w, &pushed}}
		}
		next.ServeHTTP(w, r)
	}))
	require.Equal(t, "page", s.do("POST", "/push", "k", "").body)
	require.NoError(t, <-errs)
	require.True(t, s.do("POST", "/push", "k", "").replayed())
	require.Equal(t, []string{"/style.css"}, pushed)
	require.Equal(t, "page", s.do("POST", "/", "l", "").body)
	require.ErrorIs(t, <-errs, http.ErrNotSupported)
}

// lateAnswer is a framework around the handler that keeps its ResponseWriter and answers
// with it what the handler leaves: a panic, or an error.
func lateAnswer(answer func(w http.ResponseWriter, panicked bool)) (handler, outside func(http.Handler) http.Handler) {
	type slot struct{}
	handler = around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		*r.Context().Value(slot{}).(*http.ResponseWriter) = w
		next.ServeHTTP(w, r)
	})
	outside = around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		kept := w
		defer func() { answer(kept, recover() != nil) }()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), slot{}, &kept)))
	})
	return handler, outside
}

// A framework further out answers a panic by the only ResponseWriter that it knows,
// which is ours. Its client gets that answer, and nothing of the handler's.
func TestPanicAnsweredByTheHandlersWriter(t *testing.T) {
	t.Parallel()
	handler, outside := lateAnswer(func(w http.ResponseWriter, panicked bool) {
		if panicked {
			w.Header().Set("X-Error", "1")
			w.WriteHeader(http.StatusInternalServerError)
			_, err := io.WriteString(w, "sorry")
			assert.NoError(t, err)
			assert.NoError(t, http.NewResponseController(w).Flush())
		}
	})
	s := newSite(t, nil, idemhttp.Options{}, handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Half", "1")
		fmt.Fprint(w, "half an answer")
		panic("no")
	})).ServeHTTP, outside)
	a := s.post("k")
	require.NoError(t, a.err)
	require.Equal(t, 500, a.status)
	require.Equal(t, "sorry", a.body)
	require.Equal(t, "1", a.header.Get("X-Error"))
	require.Empty(t, a.header.Get("X-Half"))
	s.wantRecord("k", idem.Held)
}

// What is written when the answer was recorded and sent is not part of it, and goes
// nowhere.
func TestWrittenAfterTheAnswer(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]http.HandlerFunc{
		"at once":           does(put("paid")),
		"as it was written": does(put("pa"), flush, put("id")),
		"status alone":      does(code(http.StatusAccepted)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			errs := make(chan error, 8)
			handler, outside := lateAnswer(func(w http.ResponseWriter, _ bool) {
				if w.Header().Get("Idempotent-Replayed") != "" {
					return
				}
				w.WriteHeader(http.StatusInternalServerError)
				_, err := io.WriteString(w, "sorry")
				errs <- err
				_, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader("sorry"))
				errs <- err
				errs <- http.NewResponseController(w).Flush()
				_, _, err = http.NewResponseController(w).Hijack()
				errs <- err
				close(errs)
			})
			s := newSite(t, nil, idemhttp.Options{}, handler(write).ServeHTTP, outside)
			first, replay := s.replayOf("k")
			require.Equal(t, first.status, replay.status)
			require.Equal(t, first.body, replay.body)
			require.NotContains(t, first.body, "sorry")
			for err := range errs {
				require.ErrorContains(t, err, "the answer was sent when the handler returned")
			}
		})
	}
}

// compressed is middleware that compresses as gorilla's does: it announces the coding
// before, looks at what is written first for the Content-Type, and has a status go out
// with the header as it is.
func compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		to := gzip.NewWriter(w)
		defer to.Close()
		next.ServeHTTP(compressWriter{w, to}, r)
	})
}

type compressWriter struct {
	http.ResponseWriter
	to *gzip.Writer
}

func (w compressWriter) WriteHeader(status int) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(status)
}

func (w compressWriter) Write(p []byte) (int, error) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", http.DetectContentType(p))
	}
	w.Header().Del("Content-Length")
	return w.to.Write(p)
}

func (w compressWriter) Flush() {
	_ = errors.Join(w.to.Flush(), http.NewResponseController(w.ResponseWriter).Flush())
}

// Middleware further out that compresses hides from net/http what an answer begins with.
// First answer and replay still have the Content-Type that they have without it.
func TestContentTypeBehindCompression(t *testing.T) {
	t.Parallel()
	const limit = 1000
	html, long := "<!DOCTYPE html><title>x</title>", repeat("<p>0123456789", limit+1)
	for name, c := range map[string]struct {
		write http.HandlerFunc
		live  bool // and not kept
	}{
		"written":             {write: does(put(html))},
		"with a status":       {write: does(code(201), put(html))},
		"in parts":            {write: does(put(html[:5], html[5:]))},
		"flushed":             {write: does(put(html), flush, put("<p>"))},
		"copied":              {write: does(func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader(html)) })},
		"no body":             {write: does(code(202))},
		"not sniffed":         {write: does(func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil }, code(200), put(html))},
		"own type":            {write: does(set("Content-Type", "a/b"), put(html))},
		"too long":            {live: true, write: does(put(long))},
		"too long, in parts":  {live: true, write: does(put(strings.SplitAfter(long, "9")...))},
		"too long, announced": {live: true, write: does(set("Content-Length", "1001"), put(long))},
		"with trailers":       {live: true, write: does(set("Trailer", "X-Sum"), put(html))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.write)
			defer server.Close()
			bare := (&site{t: t, url: server.URL, http: server.Client()}).post("")
			want := bare.header["Content-Type"]
			s := newSite(t, nil, idemhttp.Options{MaxResponse: limit}, c.write, compressed)
			first := s.post("k")
			require.NoError(t, first.err)
			require.Equal(t, bare.body, first.body)
			require.Equal(t, want, first.header["Content-Type"])
			again := s.post("k")
			if c.live {
				wantProblem(t, again, 500, idemhttp.TypeNotRetained)
				return
			}
			require.True(t, again.replayed())
			require.Equal(t, bare.body, again.body)
			require.Equal(t, want, again.header["Content-Type"])
		})
	}
}
