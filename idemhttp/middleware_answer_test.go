package idemhttp_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
)

// What clients are answered.

func TestInFlightAndMismatch(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		g := newGate(t)
		s := newSite(t, store, idemhttp.Options{}, g.ServeHTTP)
		first := make(chan answer)
		go func() { first <- s.post("k") }()
		<-g.entered
		before := s.wantRecord("k", idem.InFlight)
		for range 3 {
			a := s.post("k")
			wantProblem(t, a, 409, idemhttp.TypeInFlight)
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(t, err)
			require.GreaterOrEqual(t, seconds, 1)
			wantProblem(t, s.do("POST", "/other", "k", ""), 422, idemhttp.TypeMismatch)
		}
		require.Equal(t, before.Fence, s.wantRecord("k", idem.InFlight).Fence)
		close(g.leave)
		require.Equal(t, "done", (<-first).body)
		replay := s.post("k")
		require.True(t, replay.replayed())
		require.Equal(t, "done", replay.body)
		require.EqualValues(t, 1, s.runs.Load())
		require.Empty(t, s.heard(), "nothing of this is a fault of the server")
	})
}

// Of any number of requests with one key at once, one runs the handler.
func TestOneRuns(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		g := newGate(t)
		s := newSite(t, store, idemhttp.Options{}, g.ServeHTTP)
		const n = 32
		answers := make(chan answer, n)
		for range n {
			go func() { answers <- s.post("k") }()
		}
		for range n - 1 {
			wantProblem(t, <-answers, 409, idemhttp.TypeInFlight)
		}
		close(g.leave)
		require.Equal(t, "done", (<-answers).body)
		require.EqualValues(t, 1, s.runs.Load())
	})
}

func TestOwnProblemWriter(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{WriteProblem: func(w http.ResponseWriter, r *http.Request, p idemhttp.Problem) {
		w.WriteHeader(p.Status + 1)
		fmt.Fprintf(w, "%s: %s", r.URL.Path, strings.TrimPrefix(p.Type, "https://github.com/idemkv/idem/blob/main/docs/HTTP.md"))
	}}, echo)
	a := s.post(`"`)
	require.Equal(t, 401, a.status)
	require.Equal(t, "/payments: #key-invalid", a.body)
}

// replayOf makes a first request and a retry, and checks that the retry is a replay.
func (s *site) replayOf(key string) (first, replay answer) {
	s.t.Helper()
	first = s.post(key)
	require.NoError(s.t, first.err)
	require.False(s.t, first.replayed())
	replay = s.post(key)
	require.NoError(s.t, replay.err)
	require.True(s.t, replay.replayed(), replay.body)
	return first, replay
}

func TestReplay(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
			maps.Copy(w.Header(), http.Header{
				"Content-Type": {"application/vnd.receipt+json"}, "Content-Encoding": {"identity"}, "Location": {"/payments/1"},
				"Etag": {`"v1"`}, "Link": {"<a>; rel=a", "<b>; rel=b"}, "X-Empty": {""}, "x-raw": {"not canonical"},
				// And what is for one client, or one connection.
				"Set-Cookie": {"session=secret"}, "Date": {"Mon, 01 Jan 2001 00:00:00 GMT"}, "Keep-Alive": {"timeout=5"},
				"Connection": {"X-Hop, keep-alive"}, "X-Hop": {"for this connection"}, "Proxy-Authenticate": {"Basic"},
				"Proxy-Authentication-Info": {"x"}, "Proxy-Connection": {"keep-alive"}, "Te": {"trailers"}, "Upgrade": {"h2c"},
			})
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id":`)
			fmt.Fprint(w, `1}`)
		})
		first, replay := s.replayOf("k")
		for _, a := range []answer{first, replay} {
			require.Equal(t, 201, a.status)
			require.Equal(t, `{"id":1}`, a.body)
			require.Equal(t, "8", a.header.Get("Content-Length"))
		}
		require.Equal(t, "session=secret", first.header.Get("Set-Cookie"))
		require.NotEqual(t, first.header.Get("Date"), replay.header.Get("Date"))
		require.NotEmpty(t, replay.header.Get("Date"))
		for _, name := range []string{
			"Set-Cookie", "Keep-Alive", "Connection", "X-Hop", "Proxy-Authenticate", "Proxy-Authentication-Info",
			"Proxy-Connection", "Te", "Upgrade",
		} {
			require.Contains(t, first.header, name)
			require.NotContains(t, replay.header, name)
		}
		for _, name := range []string{"Content-Type", "Content-Encoding", "Location", "Etag", "Link", "X-Empty", "X-Raw"} {
			require.Equal(t, first.header[name], replay.header[name], name)
			require.NotEmpty(t, replay.header[name], name)
		}
		require.Equal(t, []string{"true"}, replay.header["Idempotent-Replayed"])
		require.EqualValues(t, 1, s.runs.Load())
	})
}

// Headers that middleware further out sets are the current request's, and are there
// once; what the handler made of them is replayed.
func TestOuterHeaders(t *testing.T) {
	t.Parallel()
	var n int // requests; they come one after the other
	outer := around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		n++
		h := w.Header()
		h.Set("X-Request-Id", fmt.Sprint(n))
		h.Set("X-Frame-Options", "DENY")
		h.Set("Set-Cookie", fmt.Sprint("visit=", n))
		h.Add("Vary", fmt.Sprint("X-", n))
		h.Set("Server", "outer")
		h.Set("X-Removed", "outer")
		h.Set("Cache-Control", "private")
		next.ServeHTTP(w, r)
	})
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Add("Vary", "Accept")
		h.Set("Server", "inner")
		h.Del("X-Removed")
		h.Set("X-Frame-Options", "DENY") // as it was
		h.Set("X-Seen", h.Get("X-Request-Id"))
	}, outer)
	first, replay := s.replayOf("k")
	want := http.Header{
		"X-Request-Id": {"1"}, "X-Frame-Options": {"DENY"}, "Set-Cookie": {"visit=1"}, "Vary": {"X-1", "Accept"},
		"Server": {"inner"}, "Cache-Control": {"private"}, "X-Seen": {"1"}, "Content-Length": {"0"}, "Date": first.header["Date"],
	}
	require.Equal(t, want, first.header)
	want["X-Request-Id"], want["Set-Cookie"] = []string{"2"}, []string{"visit=2"}
	want["Vary"] = []string{"X-2", "Accept"}
	want["Idempotent-Replayed"], want["Date"] = []string{"true"}, replay.header["Date"]
	require.Equal(t, want, replay.header)
}

// An Answer made by hand leaves the fields of one connection behind too, however they
// are spelt. Trailer is among them: with it no handler's answer is stored at all.
func TestAnswerOfOneConnection(t *testing.T) {
	t.Parallel()
	h := http.Header{"X-Kept": {"1"}}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authentication-Info",
		"TE", "te", "Trailer", "trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Date",
	} {
		h[name] = []string{"x"}
	}
	bytes, err := idemhttp.Answer{Status: 200, Header: h}.MarshalBinary()
	require.NoError(t, err)
	var got idemhttp.Answer
	require.NoError(t, got.UnmarshalBinary(bytes))
	require.Equal(t, http.Header{"X-Kept": {"1"}}, got.Header)
}

func TestHeaderPolicy(t *testing.T) {
	t.Parallel()
	var asked []string
	s := newSite(t, nil, idemhttp.Options{
		ReplayedHeader: "x-again",
		KeepHeader: func(name string) bool {
			asked = append(asked, name)
			return name == "Set-Cookie" || strings.HasPrefix(name, "X-Keep")
		},
	}, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Set-Cookie", "a=1")
		h["x-keep"] = []string{"1"}
		h.Set("X-Drop", "1")
		h.Set("X-Again", "the handler's own")
		h.Set("Connection", "close")
		h.Set("Date", "now")
		w.WriteHeader(http.StatusAccepted)
	})
	s.post("k")
	replay := s.post("k")
	require.Equal(t, []string{"a=1"}, replay.header["Set-Cookie"])
	require.Equal(t, []string{"1"}, replay.header["X-Keep"])
	require.NotContains(t, replay.header, "X-Drop")
	require.Equal(t, []string{"true"}, replay.header["X-Again"])
	require.NotContains(t, replay.header, "Idempotent-Replayed")
	require.ElementsMatch(t, []string{"Set-Cookie", "X-Keep", "X-Drop"}, asked, "by canonical name, and of nothing that is never stored")
}

// A replay is the same bytes after the store was closed and opened again.
func TestAcrossRestart(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/idem.db"
	open := func() *idem.Store {
		b, err := bolt.Open(path, bolt.Options{MinFree: -1})
		require.NoError(t, err)
		return storeOn(t, b, idem.Options{})
	}
	body := repeat("\x00\xff binary ", 100_000)
	store := open()
	first := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/x")
		fmt.Fprint(w, body)
	}).post("k")
	require.Equal(t, body, first.body)
	require.NoError(t, store.Close())

	s := newSite(t, open(), idemhttp.Options{}, does())
	replay := s.post("k")
	require.True(t, replay.replayed())
	require.Equal(t, body, replay.body)
	require.Equal(t, "image/x", replay.header.Get("Content-Type"))
	require.Zero(t, s.runs.Load())
}

func TestWritePatterns(t *testing.T) {
	t.Parallel()
	html := "<!DOCTYPE html><title>x</title>"
	untyped := func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil }
	for name, h := range map[string]http.HandlerFunc{
		"nothing":                    does(),
		"implicit 200":               does(put("text")),
		"empty write":                does(put("")),
		"status only":                does(code(202)),
		"unusual status":             does(code(299), put("x")),
		"final 404":                  http.NotFound,
		"redirect":                   http.RedirectHandler("/there", http.StatusSeeOther).ServeHTTP,
		"sniffed html":               does(put(html)),
		"sniffed over writes":        does(put("<!DOCTYPE", " html><p>")),
		"sniffed, flush in between":  does(put("<!DOC"), flush, put("TYPE html><p>")),
		"flushed before the body":    does(flush, put(html)),
		"sniffed gzip":               does(put("\x1f\x8b\x08...")),
		"sniffed, long":              does(put(repeat(" ", 600), html)),
		"not sniffed: nil type":      does(untyped, put(html)),
		"not sniffed: empty type":    does(set("Content-Type", ""), put(html)),
		"not sniffed: encoded":       does(set("Content-Encoding", "br"), put(html)),
		"own length":                 does(set("Content-Length", "4"), put("te", "xt")),
		"wrong kind of length":       does(set("Content-Length", "-4"), put("text")),
		"length zero":                does(set("Content-Length", "0"), flush),
		"own length, flushed at end": does(set("Content-Length", "4"), put("text"), flush),
		"own length, flushed before": does(set("Content-Length", "4"), flush, put("te"), flush, put("xt"), flush),
		"204":                        does(code(204), put("not allowed")),
		"204, flushed":               does(code(204), flush),
		"304":                        does(set("ETag", `"1"`), code(304), put("not allowed")),
		"204 with type":              does(set("Content-Type", "a/b"), code(204)),
		"header after it was sent":   does(set("X-A", "before"), code(200), set("X-A", "after"), set("X-B", "after"), put("x")),
		"header changed in place": does(set("X-A", "before"), flush,
			func(w http.ResponseWriter) { w.Header()["X-A"][0] = "after" }),
		"large":                   does(put(repeat("0123456789", 500_000))),
		"large from a reader":     does(pipe(text(repeat("0123456789", 500_000)))),
		"small from a reader":     does(func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("<p>")) }),
		"streamed, and it fits":   does(put("a"), flush, put("b"), flush, put("c")),
		"identity transfer":       does(set("Transfer-Encoding", "identity"), put("x")),
		"double WriteHeader":      does(code(201), code(200), put("x")),
		"WriteHeader after Write": does(put("x"), code(404)),
		"ServeContent": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "a.txt", time.Unix(1e9, 0), strings.NewReader("content"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idemhttp.Options{}, h)
			first, replay := s.replayOf("k")

			// As without the middleware, but for how the length is told.
			bare := httptest.NewUnstartedServer(h)
			bare.Config.ErrorLog = discard
			bare.Start()
			defer bare.Close()
			resp, err := bare.Client().Transport.RoundTrip(must(http.NewRequest("POST", bare.URL+"/payments", nil)))
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)

			for _, a := range []answer{first, replay} {
				require.Equal(t, resp.StatusCode, a.status)
				require.Equal(t, string(body), a.body)
				require.Equal(t, comparable(resp.Header), comparable(a.header))
			}
			require.EqualValues(t, 1, s.runs.Load())
		})
	}
}

// comparable is h without what is told of one sending of an answer.
func comparable(h http.Header) http.Header {
	h = h.Clone()
	for _, name := range []string{"Date", "Content-Length", "Connection", "Idempotent-Replayed"} {
		h.Del(name)
	}
	return h
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Informational answers go out at once, to the first request alone.
func TestEarlyHints(t *testing.T) {
	t.Parallel()
	hinted := make(chan bool)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-hinted
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusCreated)
		w.WriteHeader(http.StatusEarlyHints) // too late
		fmt.Fprint(w, "made")
	})
	post := func(got func(code int, h textproto.MIMEHeader) error) answer {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: got})
		r := must(http.NewRequestWithContext(ctx, "POST", s.url, nil))
		r.Header.Set("Idempotency-Key", "k")
		return s.send(r)
	}
	var codes []int
	first := post(func(code int, h textproto.MIMEHeader) error {
		if codes = append(codes, code); len(codes) == 1 {
			require.Equal(t, "</a.css>; rel=preload", h.Get("Link"))
			hinted <- true // it is here before there is an answer
		}
		return nil
	})
	require.Equal(t, []int{103, 102}, codes)
	replay := post(func(code int, _ textproto.MIMEHeader) error {
		t.Errorf("%d in a replay", code)
		return nil
	})
	require.True(t, replay.replayed())
	for _, a := range []answer{first, replay} {
		require.Equal(t, 201, a.status)
		require.Equal(t, "made", a.body)
		require.Equal(t, "</a.css>; rel=preload", a.header.Get("Link"))
	}
}

// The writer answers its handler as net/http's does.
func TestErrors(t *testing.T) {
	t.Parallel()
	errs := make(chan error, 8)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
			_, err := w.Write([]byte("x"))
			errs <- err
		case "/length":
			w.Header().Set("Content-Length", "4")
			n, err := w.Write([]byte("1234"))
			errs <- err
			errs <- fmt.Errorf("%d", n)
			_, err = w.Write([]byte("5"))
			errs <- err
		case "/over":
			w.Header().Set("Content-Length", "4")
			for _, p := range []string{"12345", "1234"} {
				_, err := w.Write([]byte(p))
				errs <- err
			}
		case "/none":
			w.Header().Set("Content-Length", "0")
			_, err := w.Write([]byte("1"))
			errs <- err
		case "/invalid":
			defer func() { errs <- fmt.Errorf("%v", recover()) }()
			w.WriteHeader(42)
		}
	})
	require.Equal(t, 204, s.do("POST", "/204", "a", "").status)
	require.Equal(t, http.ErrBodyNotAllowed, <-errs)
	require.Equal(t, "1234", s.do("POST", "/length", "b", "").body)
	require.NoError(t, <-errs)
	require.EqualError(t, <-errs, "4")
	require.Equal(t, http.ErrContentLength, <-errs)
	require.Error(t, s.do("POST", "/over", "d", "").err)
	require.Equal(t, http.ErrContentLength, <-errs)
	require.Equal(t, http.ErrContentLength, <-errs)
	require.NoError(t, s.do("POST", "/none", "e", "").err)
	require.Equal(t, http.ErrContentLength, <-errs)
	require.Equal(t, 200, s.do("POST", "/invalid", "c", "").status)
	require.EqualError(t, <-errs, "invalid WriteHeader code 42")
}

// A retention that is over frees the key, exactly then.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Retention: time.Nanosecond}, echo)
	require.Equal(t, 200, s.post("k").status)
	require.False(t, s.post("k").replayed())
	require.EqualValues(t, 2, s.runs.Load())

	s = newSite(t, nil, idemhttp.Options{Retention: idem.Forever}, echo)
	s.post("k")
	require.True(t, s.wantRecord("k", idem.Completed).ExpiresAt.IsZero())
}
