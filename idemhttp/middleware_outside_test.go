package idemhttp_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

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
	}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			to := gzip.NewWriter(w)
			defer to.Close()
			next.ServeHTTP(gzipWriter{w, to}, r)
		})
	})
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

// That the client has gone is told to a handler whose answer nobody will get, so that it
// can stop; one whose answer is kept for the retry goes on as if it were there.
func TestGoneIsToldWhereNothingIsKept(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]error{10: nil, 100: errGone} {
		h := idemhttp.New(memoryStore(t, idem.Options{}), scopeOf, idemhttp.Options{MaxResponse: 50})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).Flush(), "so far it may be kept")
			_, err := io.WriteString(w, repeat("x", size))
			assert.Equal(t, want, err)
			assert.Equal(t, want, http.NewResponseController(w).Flush())
		}))
		h.ServeHTTP(goneWriter{httptest.NewRecorder()}, keyed("k"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, keyed("k"))
		if want == nil {
			require.Equal(t, repeat("x", size), w.Body.String())
		} else {
			require.Equal(t, 500, w.Code)
		}
	}
}
