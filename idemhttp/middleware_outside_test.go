package idemhttp_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// What belongs outside of the middleware.

// A client that follows a redirect of ours takes its key along, to another request (E6).
func TestE6RedirectTakesTheKeyAlong(t *testing.T) {
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
func TestE4CompressedOutside(t *testing.T) {
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
