package idemadmin_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
)

// Whatever is asked for, without the token of a form or an order of the API nothing
// changes, nothing panics, and no text becomes a tag.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][4]string{
		{"GET", "/", "", ""},
		{"GET", "/list", "state=held&after=x", ""},
		{"GET", "/record", "hash=abcdef012345&fence=1", ""},
		{"POST", "/settle", "", "action=forget&hash=abcdef012345&fence=1&sure=yes&token=x"},
		{"POST", "/find", "", "q=%3Cscript"},
		{"GET", "/stuck", "stuck=<script", ""},
		{"HEAD", "/api/records", "limit=9", ""},
		{"GET", "/api/records/abcdef012345", "", ""},
		{"BREW", "//", "%", "%"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
		s.claim(idem.Request{Key: "k"}, s.store.Hold)
		before := s.record("k")
		h, err := idemadmin.New(s.store, idemadmin.Options{Authorize: s.authorize, Logger: slog.New(slog.NewJSONHandler(s.log, nil))})
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("X-User", "oncall")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Less(t, w.Code, 500)
		require.NotContains(t, strings.ToLower(w.Body.String()), "<script")
		require.Equal(t, before, s.record("k"))
		require.Empty(t, strings.Count(s.log.text(), `"outcome":"done"`))
	})
}
