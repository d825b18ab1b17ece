package interop

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/memory"
)

// team is who is on call, with passwords.
type team map[string]string

func (t team) allows(user, password string) bool {
	want, ok := t[user]
	return ok && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
}

// operated opens a store and gives the service r what its operators need.
func operated(r chi.Router, backend engine.Backend, registry *prometheus.Registry, team team) (*idem.Store, error) {
	metrics := idemprom.New(idemprom.Options{Store: "payments"})
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true, Observer: metrics.Observe})
	if err != nil {
		return nil, err
	}
	metrics.Watch(store)
	registry.MustRegister(metrics)
	admin, err := idemadmin.New(store, idemadmin.Options{
		Authorize: func(r *http.Request, _ idemadmin.Action) (who string, ok bool) {
			user, password, _ := r.BasicAuth()
			return user, team.allows(user, password)
		},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	r.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	r.Handle("/healthz", idemhttp.Healthz(store))
	r.Handle("/readyz", idemhttp.Readyz(store))
	r.Mount("/admin/idem", http.StripPrefix("/admin/idem", admin))
	return store, nil
}

// The service that the documentation shows has metrics, health and admin pages.
func TestChiServiceIsOperated(t *testing.T) {
	t.Parallel()
	r := chi.NewRouter()
	store, err := operated(r, memory.New(memory.Options{}), prometheus.NewRegistry(), team{"ann": "secret"})
	require.NoError(t, err)
	defer store.Close()
	r.With(idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{})).Post("/payments", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	})
	ask := func(method, path, user string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
		request.SetBasicAuth(user, "secret")
		request.Header.Set("Idempotency-Key", "order-1")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, request)
		return w
	}
	for range 2 {
		require.Equal(t, http.StatusCreated, ask(http.MethodPost, "/payments", "").Code)
	}

	scrape := ask(http.MethodGet, "/metrics", "").Body.String()
	require.Contains(t, scrape, `idem_claims_total{outcome="replayed",store="payments"} 1`)
	require.Contains(t, scrape, `idem_store_state{state="open",store="payments"} 1`)
	require.Equal(t, "ok\n", ask(http.MethodGet, "/healthz", "").Body.String())
	require.Equal(t, "ok\n", ask(http.MethodGet, "/readyz", "").Body.String())

	require.Equal(t, http.StatusForbidden, ask(http.MethodGet, "/admin/idem/", "bob").Code)
	page := ask(http.MethodGet, "/admin/idem/", "ann")
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), "Overview")
	require.Equal(t, http.StatusOK, ask(http.MethodGet, "/admin/idem/api/stats", "ann").Code)
	bare := ask(http.MethodGet, "/admin/idem", "ann")
	require.Equal(t, "./idem/", bare.Header().Get("Location"))
}
