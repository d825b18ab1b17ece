package interop

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/idemkv/idem/idemhttp"
)

// echoMiddleware makes a middleware of echo's of one of net/http's. It answers errors
// inside of it, and tells it of them.
func echoMiddleware(mw func(http.Handler) http.Handler) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			request, response := c.Request(), c.Response()
			defer func() { c.SetRequest(request); c.SetResponse(response) }()
			mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				c.SetResponse(echo.NewResponse(w, c.Echo()))
				err := next(c)
				idemhttp.FromContext(r.Context()).Returned(err)
				if err != nil {
					c.Error(err)
				}
			})).ServeHTTP(response, request)
			return nil
		}
	}
}

// The adaptor that the documentation shows: echo's errors are answers like any other.
func TestEchoAdaptor(t *testing.T) {
	t.Parallel()
	p, _ := putTold(t, func(p *place, once wrapper) http.Handler {
		e := newEcho()
		e.Use(echoMiddleware(once))
		echoRoutes(p, e)
		return e
	})
	p.wantReplay("/json", 201, "application/json", "{\"id\":1}\n")
	p.wantReplay("/refused", 422, "application/json", "{\"message\":\"no\"}\n")
}
