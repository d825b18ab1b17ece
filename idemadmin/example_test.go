package idemadmin_test

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// oncall checks a password.
func oncall(user, password string) bool {
	return user == "ann" && subtle.ConstantTimeCompare([]byte(password), []byte("secret")) == 1
}

// login answers 401 to whoever has not logged in. Without that no browser asks for a
// password.
func login(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); !oncall(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="idem"`)
			http.Error(w, "log in", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Probes for Kubernetes, and pages for the person on call, who logs in with a password.
func Example() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	admin, err := idemadmin.New(store, idemadmin.Options{
		Authorize: func(r *http.Request, a idemadmin.Action) (who string, ok bool) {
			user, password, _ := r.BasicAuth()
			return user, oncall(user, password)
		},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", idemhttp.Healthz(store))
	mux.Handle("/readyz", idemhttp.Readyz(store))
	mux.Handle("/admin/idem/", login(http.StripPrefix("/admin/idem", admin)))

	get := func(path string, logIn func(*http.Request)) {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil)
		logIn(r)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(path, w.Code)
		if how := w.Header().Get("WWW-Authenticate"); how != "" {
			fmt.Println("the browser asks:", how)
		}
	}
	get("/healthz", func(*http.Request) {})
	get("/readyz", func(*http.Request) {})
	get("/admin/idem/stuck", func(*http.Request) {})
	get("/admin/idem/stuck", func(r *http.Request) { r.SetBasicAuth("ann", "secret") })
	// Output:
	// /healthz 200
	// /readyz 200
	// /admin/idem/stuck 401
	// the browser asks: Basic realm="idem"
	// /admin/idem/stuck 200
}
