package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/felixge/httpsnoop"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// Routers, frameworks and middleware that people put around idemhttp, or it around.

type wrapper = func(http.Handler) http.Handler

// place is a server that has idemhttp somewhere.
type place struct {
	t     *testing.T
	store *idem.Store
	url   string
	http  *http.Client
	runs  atomic.Int32 // of what once wraps, as far as it says so
}

// put serves what build makes with once, the middleware.
func put(t *testing.T, build func(p *place, once wrapper) http.Handler) *place {
	t.Helper()
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	p := &place{t: t, store: store}
	server := httptest.NewUnstartedServer(build(p, idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{})))
	server.Config.ErrorLog = quiet
	server.Start()
	t.Cleanup(server.Close)
	p.url, p.http = server.URL, server.Client()
	return p
}

// counted counts the runs of handler.
func (p *place) counted(handler http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.runs.Add(1)
		handler(w, r)
	})
}

type reply struct {
	status   int
	header   http.Header
	body     string
	replayed bool
}

// post sends a payment with the key.
func (p *place) post(path, key string, header ...string) reply {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.url+path, strings.NewReader("12.50"))
	require.NoError(p.t, err)
	r.GetBody = nil // no retries of Go's own
	r.Header.Set("Idempotency-Key", key)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(r)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return reply{resp.StatusCode, resp.Header, string(body), resp.Header.Get("Idempotent-Replayed") == "true"}
}

// wantReplay checks that the first answer is as it should be, and the retry's is the same.
func (p *place) wantReplay(path string, status int, contentType, body string) {
	p.t.Helper()
	first, again := p.post(path, path), p.post(path, path)
	require.False(p.t, first.replayed)
	require.True(p.t, again.replayed, again.body)
	for _, a := range []reply{first, again} {
		require.Equal(p.t, status, a.status)
		require.Equal(p.t, body, a.body)
		require.Equal(p.t, contentType, a.header.Get("Content-Type"))
	}
}

// wantHeld checks that a retry hears that nobody knows, and runs nothing.
func (p *place) wantHeld(path string) {
	p.t.Helper()
	runs := p.runs.Load()
	again := p.post(path, path)
	for again.status == 503 { // a slow machine, and a deadline further out
		again = p.post(path, path)
	}
	require.Equal(p.t, 500, again.status)
	var problem idemhttp.Problem
	require.NoError(p.t, json.Unmarshal([]byte(again.body), &problem))
	require.Equal(p.t, idemhttp.TypeOutcomeUnknown, problem.Type)
	require.Equal(p.t, runs, p.runs.Load())
	rec, err := p.store.Get(p.t.Context(), idemhttp.StoreKey("*", path))
	require.NoError(p.t, err)
	require.Equal(p.t, idem.Held, rec.State)
}

const (
	htmlPage = "<!DOCTYPE html><title>paid</title>"
	htmlType = "text/html; charset=utf-8"
	jsonType = "application/json; charset=utf-8"
	textType = "text/plain; charset=utf-8"
)

// page answers with HTML whose Content-Type net/http has to find out.
func page(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, htmlPage) }

func TestChiTimeout(t *testing.T) {
	t.Parallel()
	timeout := middleware.Timeout(time.Millisecond)
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	late := func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "paid after all")
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		inside  bool
		status  int
		held    bool
	}{
		"inside, gives up":        {silent, true, 504, true},
		"inside, answers anyway":  {late, true, 201, false},
		"outside, gives up":       {silent, false, 500, true},
		"outside, answers anyway": {late, false, 201, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := put(t, func(p *place, once wrapper) http.Handler {
				r := chi.NewRouter()
				if c.inside {
					r.Use(once, timeout)
				} else {
					r.Use(timeout, once)
				}
				r.Method("POST", "/pay", p.counted(c.handler))
				return r
			})
			first := p.post("/pay", "/pay")
			for p.runs.Load() == 0 { // outside, on a slow machine, the time is over before the claim
				first = p.post("/pay", "/pay")
			}
			require.Equal(t, c.status, first.status)
			if c.held {
				p.wantHeld("/pay")
				return
			}
			for { // likewise
				if again := p.post("/pay", "/pay"); again.status != 503 {
					require.True(t, again.replayed)
					require.Equal(t, "paid after all", again.body)
					require.Equal(t, first.body, again.body)
					break
				}
			}
			require.EqualValues(t, 1, p.runs.Load())
		})
	}
}

// What compresses further out sees plain answers, and each client gets the coding it asked
// for. What compresses inside of us has its coding stored with the answer.
func TestCompression(t *testing.T) {
	t.Parallel()
	for name, compress := range map[string]wrapper{
		"gorilla": handlers.CompressHandler,
		"chi":     middleware.Compress(5),
	} {
		t.Run(name+" outside", func(t *testing.T) {
			t.Parallel()
			p := put(t, func(p *place, once wrapper) http.Handler { return compress(once(p.counted(page))) })
			p.wantReplay("/", 200, htmlType, htmlPage) // the client decompresses by itself
			plain := p.post("/", "/", "Accept-Encoding", "identity")
			require.True(t, plain.replayed)
			require.Empty(t, plain.header.Get("Content-Encoding"))
			require.Equal(t, htmlPage, plain.body)
			require.Equal(t, htmlType, plain.header.Get("Content-Type"))
			coded := p.post("/", "/", "Accept-Encoding", "gzip") // asked for by hand
			require.True(t, coded.replayed)
			require.Equal(t, "gzip", coded.header.Get("Content-Encoding"))
			require.Equal(t, []string{"Accept-Encoding"}, coded.header["Vary"], "there once")
			require.EqualValues(t, 1, p.runs.Load())
		})
		t.Run(name+" inside", func(t *testing.T) {
			t.Parallel()
			p := put(t, func(p *place, once wrapper) http.Handler {
				return once(compress(p.counted(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", htmlType) // which chi wants to know
					page(w, r)
				})))
			})
			p.wantReplay("/", 200, htmlType, htmlPage)
			first, again := p.post("/", "k", "Accept-Encoding", "gzip"), p.post("/", "k", "Accept-Encoding", "gzip")
			require.Equal(t, "gzip", again.header.Get("Content-Encoding"))
			require.Equal(t, "Accept-Encoding", again.header.Get("Vary"))
			require.True(t, first.body == again.body, "byte for byte")
		})
	}
}

// Middleware that recovers, further out, answers a panic as without us.
func TestRecovery(t *testing.T) {
	t.Parallel()
	for name, recovery := range map[string]wrapper{
		"gorilla": handlers.RecoveryHandler(handlers.RecoveryLogger(quiet)),
		"chi":     middleware.Recoverer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := put(t, func(p *place, once wrapper) http.Handler {
				return recovery(once(p.counted(func(w http.ResponseWriter, _ *http.Request) {
					fmt.Fprint(w, "half an answer")
					panic("no")
				})))
			})
			first := p.post("/", "/")
			require.Equal(t, 500, first.status)
			require.NotContains(t, first.body, "half")
			p.wantHeld("/")
		})
	}
}

// Writers that watch what is written see the same of first answer and replay from the
// outside, and the handler's answer from the inside.
func TestWatchingWriters(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	text := strings.Repeat("0123456789", size/10)
	content := []byte(text)
	answers := map[string]http.HandlerFunc{
		"/written": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) },
		"/copied": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, struct{ io.Reader }{bytes.NewReader(content)})
		},
		"/flushed": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(content[:10])
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[10:])
		},
		"/controlled": func(w http.ResponseWriter, _ *http.Request) {
			control := http.NewResponseController(w)
			err := errors.Join(control.SetReadDeadline(time.Now().Add(time.Hour)), control.SetWriteDeadline(time.Now().Add(time.Hour)))
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(w, text[:10])
			if err := control.Flush(); err != nil {
				panic(err)
			}
			_, _ = w.Write(content[10:])
		},
	}
	seen := make(chan httpsnoop.Metrics, 2)
	for name, watch := range map[string]wrapper{
		"httpsnoop": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- httpsnoop.CaptureMetrics(next, w, r)
			})
		},
		"otelhttp":         otelhttp.NewMiddleware("payments"),
		"chi's logger":     middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: quiet, NoColor: true}),
		"gorilla's logger": func(next http.Handler) http.Handler { return handlers.LoggingHandler(io.Discard, next) },
		"several, one in one": func(next http.Handler) http.Handler {
			return otelhttp.NewHandler(handlers.LoggingHandler(io.Discard, next), "x")
		},
	} {
		for path, handler := range answers {
			outside := put(t, func(p *place, once wrapper) http.Handler { return watch(once(p.counted(handler))) })
			inside := put(t, func(p *place, once wrapper) http.Handler { return once(watch(p.counted(handler))) })
			t.Run(name+path, func(t *testing.T) {
				outside.wantReplay(path, 200, textType, text)
				if name == "httpsnoop" {
					first, again := <-seen, <-seen
					require.EqualValues(t, size, first.Written)
					require.EqualValues(t, size, again.Written)
				}
				inside.wantReplay(path, 200, textType, text)
				if name == "httpsnoop" {
					require.EqualValues(t, size, (<-seen).Written)
				}
				require.EqualValues(t, 1, outside.runs.Load())
				require.EqualValues(t, 1, inside.runs.Load())
			})
		}
	}
}

// The middleware goes around all of a gin engine.
func TestGin(t *testing.T) {
	t.Parallel()
	p := put(t, func(p *place, once wrapper) http.Handler {
		e := gin.New()
		e.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }))
		e.Use(func(c *gin.Context) { p.runs.Add(1) })
		e.POST("/json", func(c *gin.Context) { c.JSON(http.StatusCreated, gin.H{"id": 1}) })
		e.POST("/sniffed", func(c *gin.Context) { _, _ = c.Writer.WriteString(htmlPage) })
		e.POST("/refused", func(c *gin.Context) { c.AbortWithStatusJSON(http.StatusBadRequest, gin.H{"error": "no"}) })
		e.POST("/status", func(c *gin.Context) { c.Status(http.StatusAccepted) })
		e.POST("/stream", func(c *gin.Context) {
			n := 0
			gone := c.Stream(func(w io.Writer) bool {
				n++
				fmt.Fprint(w, n, " ")
				return n < 3
			})
			assert.False(t, gone)
		})
		e.POST("/events", func(c *gin.Context) { c.SSEvent("paid", "1") })
		e.POST("/panics", func(*gin.Context) { panic("no") })
		return once(e)
	})
	p.wantReplay("/json", 201, jsonType, `{"id":1}`)
	p.wantReplay("/sniffed", 200, htmlType, htmlPage)
	p.wantReplay("/refused", 400, jsonType, `{"error":"no"}`)
	p.wantReplay("/status", 202, "", "")
	p.wantReplay("/stream", 200, textType, "1 2 3 ")
	p.wantReplay("/events", 200, "text/event-stream;charset=utf-8", "event:paid\ndata:1\n\n")
	p.wantReplay("/nowhere", 404, "text/plain", "404 page not found")
	require.Equal(t, 500, p.post("/panics", "/panics").status)
	p.wantHeld("/panics")
	require.EqualValues(t, 8, p.runs.Load())
}

// echoRoutes are what handlers of echo do.
func echoRoutes(p *place, e *echo.Echo) {
	e.POST("/json", func(c echo.Context) error { p.runs.Add(1); return c.JSON(http.StatusCreated, echo.Map{"id": 1}) })
	e.POST("/sniffed", func(c echo.Context) error { _, err := io.WriteString(c.Response(), htmlPage); return err })
	e.POST("/refused", func(echo.Context) error {
		p.runs.Add(1)
		return echo.NewHTTPError(http.StatusUnprocessableEntity, "no")
	})
	e.POST("/streamed", func(c echo.Context) error {
		for n := range 3 {
			fmt.Fprint(c.Response(), n, " ")
			c.Response().Flush()
		}
		return nil
	})
	e.POST("/panics", func(echo.Context) error { p.runs.Add(1); panic("no") })
}

func newEcho() *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	return e
}

// The middleware goes around all of echo, whose errors are then answered inside of it.
func TestEcho(t *testing.T) {
	t.Parallel()
	p := put(t, func(p *place, once wrapper) http.Handler {
		e := newEcho()
		e.Use(echomiddleware.Recover())
		echoRoutes(p, e)
		return once(e)
	})
	p.wantReplay("/json", 201, "application/json", "{\"id\":1}\n")
	p.wantReplay("/sniffed", 200, htmlType, htmlPage)
	p.wantReplay("/refused", 422, "application/json", "{\"message\":\"no\"}\n")
	p.wantReplay("/streamed", 200, textType, "0 1 2 ")
	p.wantReplay("/nowhere", 404, "application/json", "{\"message\":\"Not Found\"}\n")
	require.Equal(t, 500, p.post("/panics", "/panics").status)
	p.wantHeld("/panics")
	require.EqualValues(t, 3, p.runs.Load())
}

// As middleware of echo (WrapMiddleware) it needs, directly inside of it, one that
// answers errors: echo's own answers them when we have ended. A panic is answered
// further out, by our ResponseWriter.
func TestEchoWrapMiddleware(t *testing.T) {
	t.Parallel()
	p := put(t, func(p *place, once wrapper) http.Handler {
		e := newEcho()
		e.Use(echomiddleware.Recover(), echo.WrapMiddleware(once), func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				if err := next(c); err != nil {
					c.Error(err)
				}
				return nil
			}
		})
		echoRoutes(p, e)
		return e
	})
	p.wantReplay("/json", 201, "application/json", "{\"id\":1}\n")
	p.wantReplay("/sniffed", 200, htmlType, htmlPage)
	p.wantReplay("/refused", 422, "application/json", "{\"message\":\"no\"}\n")
	p.wantReplay("/streamed", 200, textType, "0 1 2 ")
	first := p.post("/panics", "/panics")
	require.Equal(t, 500, first.status)
	require.Equal(t, "{\"message\":\"Internal Server Error\"}\n", first.body)
	p.wantHeld("/panics")
	require.EqualValues(t, 3, p.runs.Load())
}
