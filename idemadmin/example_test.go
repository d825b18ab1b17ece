package idemadmin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// Probes for Kubernetes and pages for the person on call, beside the service's own
// handlers.
func Example() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	admin, err := idemadmin.New(store, idemadmin.Options{
		Authorize: func(r *http.Request, a idemadmin.Action) (who string, ok bool) {
			user, password, _ := r.BasicAuth() // or whatever the service has checked further out
			return user, user == "ann" && password == "secret"
		},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", idemhttp.Healthz(store))
	mux.Handle("/readyz", idemhttp.Readyz(store))
	mux.Handle("/admin/idem/", http.StripPrefix("/admin/idem", admin))

	for _, path := range []string{"/healthz", "/readyz", "/admin/idem/stuck"} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(path, w.Code)
	}
	// Output:
	// /healthz 200
	// /readyz 200
	// /admin/idem/stuck 403
}
