package interop

import (
	"crypto/subtle"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// team is who is on call, with passwords.
type team map[string]string

func (t team) allows(user, password string) bool {
	want, ok := t[user]
	return ok && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
}

// The service that the documentation shows has metrics, health and admin pages.
func TestChiServiceIsOperated(t *testing.T) {
	t.Parallel()
	ops := chi.NewRouter()
	store, err := operated(memory.New(memory.Options{}), ops, prometheus.NewRegistry(), team{"ann": "secret"})
	require.NoError(t, err)
	defer store.Close()
	public := chi.NewRouter()
	public.With(idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{})).Post("/payments", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	})
	for range 2 {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/payments", http.NoBody)
		r.Header.Set("Idempotency-Key", "order-1")
		w := httptest.NewRecorder()
		public.ServeHTTP(w, r)
		require.Equal(t, http.StatusCreated, w.Code)
	}
	get := func(path string, login ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		if len(login) > 0 {
			r.SetBasicAuth(login[0], login[1])
		}
		w := httptest.NewRecorder()
		ops.ServeHTTP(w, r)
		return w
	}

	scrape := get("/metrics").Body.String()
	require.Contains(t, scrape, `idem_claims_total{outcome="replayed",store="payments"} 1`)
	require.Contains(t, scrape, `idem_store_state{state="open",store="payments"} 1`)
	require.Equal(t, "ok\n", get("/healthz").Body.String())
	require.Equal(t, "ok\n", get("/readyz").Body.String())

	page := get("/admin/idem/", "ann", "secret")
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), "Overview")
	require.Equal(t, http.StatusOK, get("/admin/idem/api/stats", "ann", "secret").Code)
	require.Equal(t, "./idem/", get("/admin/idem", "ann", "secret").Header().Get("Location"))

	// A browser asks for the password when it gets a 401 that says how: at first, and again
	// after a wrong one.
	for _, path := range []string{"/admin/idem", "/admin/idem/", "/admin/idem/stuck", "/admin/idem/api/stats"} {
		for _, login := range [][]string{nil, {"ann", "wrong"}, {"bob", "secret"}} {
			w := get(path, login...)
			require.Equal(t, http.StatusUnauthorized, w.Code, "%s as %v", path, login)
			require.Equal(t, `Basic realm="payments"`, w.Header().Get("WWW-Authenticate"))
			require.NotContains(t, w.Body.String(), "Overview")
		}
	}
}
