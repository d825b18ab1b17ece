package interop

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// Adaptors that keep the handler from the middleware's ResponseWriter.

// putTold is put with what OnError hears of the types of problems.
func putTold(t *testing.T, build func(p *place, once wrapper) http.Handler) (p *place, told func() []string) {
	t.Helper()
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	p = &place{t: t, store: store}
	heard := make(chan string, 16)
	server := httptest.NewServer(build(p, idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{
		OnError: func(_ *http.Request, err error) {
			problem, _ := err.(idemhttp.Problem)
			heard <- problem.Type
		},
	})))
	t.Cleanup(server.Close)
	p.url, p.http = server.URL, server.Client()
	return p, func() (types []string) {
		for len(heard) > 0 {
			types = append(types, <-heard)
		}
		return types
	}
}

// An adaptor that leaves gin's own c.Writer in place has the answer go past us. The
// client gets it, and nothing else; a retry is not told that there was an empty one.
func TestGinWriterLeftInPlace(t *testing.T) {
	t.Parallel()
	p, told := putTold(t, func(p *place, once wrapper) http.Handler {
		e := gin.New()
		e.Use(func(c *gin.Context) {
			once(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c.Request = r
				c.Next()
			})).ServeHTTP(c.Writer, c.Request)
			c.Abort() // a replay, or a refusal, is the answer
		})
		e.POST("/pay", func(c *gin.Context) {
			p.runs.Add(1)
			c.JSON(http.StatusCreated, gin.H{"id": 1})
		})
		return e
	})
	first := p.post("/pay", "/pay")
	require.Equal(t, 201, first.status)
	require.Equal(t, `{"id":1}`, first.body)
	require.Equal(t, []string{idemhttp.TypeOutcomeUnknown}, told())
	p.wantHeld("/pay")
	require.EqualValues(t, 1, p.runs.Load())
}

// Without a middleware that answers errors inside of us, echo answers them when we have
// ended. To us the handler was silent: its operation is held, and OnError is told.
func TestEchoErrorsAnsweredOutside(t *testing.T) {
	t.Parallel()
	p, told := putTold(t, func(p *place, once wrapper) http.Handler {
		e := newEcho()
		e.Use(echo.WrapMiddleware(once))
		echoRoutes(p, e)
		return e
	})
	p.post("/refused", "/refused")
	require.Equal(t, []string{idemhttp.TypeOutcomeUnknown}, told())
	p.wantHeld("/refused")
	require.Equal(t, []string{idemhttp.TypeOutcomeUnknown}, told(), "the retry")
	p.wantReplay("/json", 201, "application/json", "{\"id\":1}\n")
	require.Empty(t, told())
}
