package interop

import (
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemprom"
)

// operated makes a store and gives its operators what they need, on a router of their own.
func operated(backend engine.Backend, ops chi.Router, registry *prometheus.Registry, team team) (*idem.Store, error) {
	metrics := idemprom.New(idemprom.Options{Store: "payments"})
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true, Observer: metrics.Observe})
	if err != nil {
		return nil, errors.Join(err, backend.Close())
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
	ops.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	ops.Handle("/healthz", idemhttp.Healthz(store))
	ops.Handle("/readyz", idemhttp.Readyz(store))
	login := middleware.BasicAuth("payments", team) // 401: the browser asks for a password
	ops.With(login).Mount("/admin/idem", http.StripPrefix("/admin/idem", admin))
	return store, nil
}
