package idemhttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

// waitsOnly is a clock of which only waits end, and what bounds the time never does: a
// busy machine takes any time.
type waitsOnly struct{ idem.Clock }

func (c waitsOnly) AfterFunc(d time.Duration, f func()) func() bool {
	if d > time.Millisecond {
		return func() bool { return true }
	}
	return c.Clock.AfterFunc(d, f)
}

// An answer that is cut half-way is asked for again also if nobody knows how long it
// is: in chunks, or because net/http has unpacked it.
func TestTransportAsksAgainForCutAnswers(t *testing.T) {
	t.Parallel()
	text := "charged " + strings.Repeat("0123456789abcdef", 100)
	packed := gzipped(t, text)
	for name, c := range map[string]struct {
		http2, gzip, length bool
	}{
		"gzip, of known length":         {gzip: true, length: true},
		"gzip, in chunks":               {gzip: true},
		"in chunks":                     {},
		"HTTP/2":                        {http2: true},
		"HTTP/2, gzip":                  {http2: true, gzip: true},
		"HTTP/2, gzip, of known length": {http2: true, gzip: true, length: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var keys []string
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				keys = append(keys, r.Header.Get("Idempotency-Key"))
				first := len(keys) == 1
				mu.Unlock()
				body := []byte(text)
				if c.gzip {
					assert.Equal(t, "gzip", r.Header.Get("Accept-Encoding"))
					w.Header().Set("Content-Encoding", "gzip")
					body = packed
				}
				if c.length {
					w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				}
				if first {
					body = body[:len(body)/2]
				}
				_, _ = w.Write(body)
				_ = http.NewResponseController(w).Flush()
				if first {
					panic(http.ErrAbortHandler)
				}
			}))
			server.Config.ErrorLog = discard
			server.EnableHTTP2 = c.http2
			if c.http2 {
				server.StartTLS()
			} else {
				server.Start()
			}
			t.Cleanup(server.Close)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("12.50"))
			require.NoError(t, err)
			transport := quick(server.Client().Transport)
			transport.Clock = waitsOnly{idem.SystemClock()}
			resp := exchange(t, transport, r)
			assert.Equal(t, text, readAll(t, resp))
			assert.Equal(t, c.gzip, resp.Uncompressed)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, keys, 2)
			assert.Equal(t, keys[0], keys[1])
		})
	}
}

// streamed answers with what comes out of a pipe, whose length nobody knows.
func streamed(media string, write func(ctx context.Context, w *io.PipeWriter)) reply {
	return func(r *http.Request) (*http.Response, error) {
		pr, pw := io.Pipe()
		go write(r.Context(), pw)
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {media}}, Body: pr, ContentLength: -1}, nil
	}
}

// A stream goes to the caller while it flows, as it does without the Transport.
func TestTransportPassesStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ticks := func(_ context.Context, w *io.PipeWriter) {
			for i := range 5 {
				_, _ = io.WriteString(w, strconv.Itoa(i))
				time.Sleep(time.Hour)
			}
			_ = w.Close()
		}
		for media, held := range map[string]time.Duration{
			"text/event-stream": 0, "text/event-stream; charset=utf-8": 0, "application/x-ndjson": 0, "application/stream+json": 0,
			"application/grpc-web+proto": 0, "application/connect+json": 0, "application/vnd.amazon.eventstream": 0,
			"application/json": time.Second, "": time.Second,
		} {
			s := answers(streamed(media, ticks))
			start := time.Now()
			resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))
			assert.Equal(t, held, time.Since(start), media)
			for i := range 5 {
				p := make([]byte, 10)
				n, err := resp.Body.Read(p)
				require.NoError(t, err)
				assert.Equal(t, strconv.Itoa(i), string(p[:n]))
				assert.Equal(t, time.Duration(i)*time.Hour, time.Since(start).Truncate(time.Hour), media)
			}
			assert.Empty(t, readAll(t, resp))
			assert.Len(t, s.sent, 1)
			assert.Equal(t, 1, s.given[0].closed)
		}
	})
}

// Closing a stream ends the reading of it, whatever it waits for.
func TestTransportClosesStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, write := range map[string]func(context.Context, *io.PipeWriter){
			"never a byte": func(ctx context.Context, _ *io.PipeWriter) { <-ctx.Done() },
			"a byte": func(ctx context.Context, w *io.PipeWriter) {
				_, _ = io.WriteString(w, "a")
				<-ctx.Done()
			},
		} {
			s := answers(streamed("", write))
			resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))
			require.NoError(t, resp.Body.Close())
			_, err := resp.Body.Read(make([]byte, 1))
			require.Error(t, err, name)
			assert.Equal(t, 1, s.given[0].closed, name)
			require.Error(t, resp.Request.Context().Err(), name)
		}

		// One that is cut after it was handed on is the caller's to find.
		s := answers(streamed("", func(_ context.Context, w *io.PipeWriter) {
			_, _ = io.WriteString(w, "char")
			time.Sleep(2 * time.Second)
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
		}))
		resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))
		got, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "char", string(got))
		require.NoError(t, resp.Body.Close())
		assert.Len(t, s.sent, 1)
	})
}

// What is over MaxAnswer, or broken in a way that another try would meet again, is
// handed on as it is.
func TestTransportHandsOnAnswersOfUnknownLength(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 20_000)
	broken := gzipped(t, text)
	broken[len(broken)-8] ^= 1 // its checksum
	unpacked := func(b []byte) reply {
		return func(r *http.Request) (*http.Response, error) {
			resp, err := status(200, "")(r)
			resp.ContentLength, resp.Uncompressed = -1, true
			zr, err2 := gzip.NewReader(bytes.NewReader(b))
			resp.Body = io.NopCloser(zr)
			return resp, errors.Join(err, err2)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			answer reply
			most   int64
			err    error
		}{
			"long":         {unpacked(gzipped(t, text)), 100, nil},
			"one longer":   {unpacked(gzipped(t, text)), int64(len(text)) - 1, nil},
			"just fits":    {unpacked(gzipped(t, text)), int64(len(text)), nil},
			"not kept":     {unpacked(gzipped(t, text)), -1, nil},
			"broken":       {unpacked(broken), 0, gzip.ErrChecksum},
			"long, broken": {unpacked(broken), 100, gzip.ErrChecksum},
		} {
			s := answers(c.answer)
			resp := exchange(t, &idemhttp.Transport{Base: s, MaxAnswer: c.most}, post(t, nil))
			got, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, c.err, name)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, text, string(got), name)
			assert.Len(t, s.sent, 1, name)
			assert.Equal(t, 1, s.given[0].closed, name)
			assert.EqualValues(t, -1, resp.ContentLength, name)
		}
	})
}

// A 304 may tell the length of the body that it leaves out. Over HTTP/2 net/http has a
// body for it then that is cut.
func TestTransportNotModified(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNotModified)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	r.Header.Set("Idempotency-Key", `"k"`) // some clients send one with every request
	resp := exchange(t, quick(server.Client().Transport), r)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusNotModified, resp.StatusCode)
	assert.EqualValues(t, 5, resp.ContentLength)
	assert.EqualValues(t, 1, asked.Load())
}

// closeFails is a body that is whole and complains when it is closed.
type closeFails struct{ io.Reader }

func (closeFails) Close() error { return errors.New("closed before") }

// An answer that was read to its end is whole, whatever closing it says.
func TestTransportKeepsWholeAnswerThatDoesNotClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, length := range []int64{7, -1} {
			s := answers(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 201, Header: http.Header{}, Body: closeFails{strings.NewReader("charged")}, ContentLength: length}, nil
			})
			assert.Equal(t, "charged", readAll(t, exchange(t, &idemhttp.Transport{Base: s}, post(t, nil))))
			assert.Len(t, s.sent, 1)
		}
	})
}

// An answer that is handed on while it comes has its trailer at the end of its body, and
// until then the caller can look at which are announced.
func TestTransportTrailerOfWhatIsHandedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, announced := range []http.Header{{"X-Sum": nil}, nil} {
			pr, pw := io.Pipe()
			from := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Trailer: announced.Clone()}
			from.Body = io.NopCloser(io.MultiReader(pr, atEnd(func() {
				if from.Trailer == nil {
					from.Trailer = http.Header{}
				}
				from.Trailer["X-Sum"] = []string{"6"}
			})))
			resp := exchange(t, &idemhttp.Transport{Base: gives(from)}, post(t, nil))
			require.NoError(t, pw.Close())
			synctest.Wait() // its end has been read
			assert.Equal(t, announced, resp.Trailer)
			assert.Empty(t, readAll(t, resp))
			assert.Equal(t, http.Header{"X-Sum": {"6"}}, resp.Trailer)
		}
	})
}

type panicking struct{ value any }

func (r panicking) Read([]byte) (int, error) { panic(r.value) }

// A body of a RoundTripper's own that panics does so on the goroutine of the request,
// where it can be recovered, and does not end the process.
func TestTransportPanicOfAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		var body io.Reader = panicking{"a test's"}
		transport := &idemhttp.Transport{Base: reply(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body), ContentLength: -1}, nil
		})}
		require.PanicsWithValue(t, "a test's", func() { _, _ = transport.RoundTrip(post(t, nil)) })

		body = io.MultiReader(pr, body)
		resp := exchange(t, transport, post(t, nil))
		require.NoError(t, pw.Close())
		require.PanicsWithValue(t, "a test's", func() { _, _ = io.ReadAll(resp.Body) })
		require.NoError(t, resp.Body.Close())
	})
}

// Nor is an answer that comes slowly kept back until the time for it is over.
func TestTransportHandsOnAnswersBeforeTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slowly := func(ctx context.Context, w *io.PipeWriter) {
			for range 5 {
				time.Sleep(400 * time.Millisecond)
				_, _ = w.Write([]byte("a"))
			}
			_ = w.CloseWithError(ctx.Err())
		}
		for _, transport := range []*idemhttp.Transport{
			{TryTimeout: time.Second}, {TryTimeout: 500 * time.Millisecond}, {Timeout: 500 * time.Millisecond},
		} {
			s := answers(streamed("", slowly))
			transport.Base = s
			assert.Equal(t, "aaaaa", readAll(t, exchange(t, transport, post(t, nil))))
			assert.Len(t, s.sent, 1)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer cancel()
		s := answers(streamed("", func(ctx context.Context, w *io.PipeWriter) {
			_, _ = w.Write([]byte("a"))
			<-ctx.Done()
			_ = w.CloseWithError(ctx.Err())
		}))
		resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, nil).WithContext(ctx))
		got, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, "a", string(got))
		require.NoError(t, resp.Body.Close())
	})
}

// A whole answer that has arrived is not thrown away because its time was over just then.
func TestTransportReturnsWholeAnswerWhenTimeEndsWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := func(answer reply) reply {
			return func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return answer(r)
			}
		}
		nothing := func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 201, Header: http.Header{}, Body: http.NoBody}, nil
		}
		for _, transport := range []*idemhttp.Transport{{TryTimeout: time.Second}, {Timeout: time.Second}} {
			for _, c := range []struct {
				answer reply
				body   string
			}{{status(201, "charged"), "charged"}, {nothing, ""}} {
				s := answers(at(c.answer))
				transport.Base = reply(func(r *http.Request) (*http.Response, error) {
					resp, err := s.RoundTrip(r)
					if resp.Body = s.given[0].ReadCloser; resp.Body != http.NoBody {
						resp.Body = s.given[0]
					}
					return resp, err
				})
				resp := exchange(t, transport, post(t, nil))
				assert.Equal(t, 201, resp.StatusCode)
				assert.Equal(t, c.body, readAll(t, resp))
				assert.Len(t, s.sent, 1)
			}
		}

		// One that says to come back is returned when all time is over.
		busy := `{"type":"` + idemhttp.TypeInFlight + `"}`
		for _, code := range []int{409, 503} {
			s := answers(at(status(code, busy, "Content-Type", problemJSON)))
			resp := exchange(t, &idemhttp.Transport{Base: s, Timeout: time.Second}, post(t, nil))
			assert.Equal(t, code, resp.StatusCode)
			assert.Equal(t, busy, readAll(t, resp))
			assert.Len(t, s.sent, 1)
		}
	})
}

// The answer to a request that is sent only once is passed on as it comes: nothing is
// gained by keeping it back, and its status would be lost with it.
func TestTransportPassesAnswersOfRequestsSentOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, transport := range map[string]*idemhttp.Transport{
			"no keys there": {HonoursKeys: never}, "one try": {MaxTries: 1}, "a long body": {MaxBody: -1},
		} {
			s := answers(cut(201, "char", 3))
			transport.Base = s
			r := post(t, nil)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12.50")), -1
			r.Header.Set("Idempotency-Key", `"k"`)
			resp := exchange(t, transport, r)
			assert.Equal(t, 201, resp.StatusCode, name)
			got, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, "char", string(got), name)
			assert.Len(t, s.sent, 1, name)
		}
	})
}
