package idemhttp_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// A service that replays its 500s, as Stripe does. All other statuses keep their meaning.
func ExampleOptions_outcome() {
	store := exampleStore()
	defer store.Close()
	options := idemhttp.Options{Outcome: func(status int, header http.Header) idemhttp.Outcome {
		if status == http.StatusInternalServerError {
			return idemhttp.Stored
		}
		return idemhttp.DefaultOutcome(status, header)
	}}
	runs := 0
	h := idemhttp.New(store, account, options)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		http.Error(w, "out of luck", http.StatusInternalServerError)
	}))
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	fmt.Println("runs:", runs)
	// Output:
	// 500 out of luck
	// 500 out of luck, replayed
	// runs: 1
}

// An adaptor for handlers that return errors. It tells the operation, and writes the
// answer that the error becomes inside of the middleware.
func ExampleOperation_Returned() {
	store := exampleStore()
	defer store.Close()
	adapt := func(h func(http.ResponseWriter, *http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := h(w, r)
			idemhttp.FromContext(r.Context()).Returned(err)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
			}
		})
	}
	attempts := 0
	h := idemhttp.New(store, account, idemhttp.Options{})(adapt(func(w http.ResponseWriter, _ *http.Request) error {
		if attempts++; attempts == 1 {
			return idem.Retryable(errors.New("the stock is locked"))
		}
		_, err := fmt.Fprint(w, "ordered")
		return err
	}))
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	// Output:
	// 502 the stock is locked
	// 200 ordered
	// 200 ordered, replayed
}

// In front of a reverse proxy a 502 is an unknown outcome, but for a connection that was
// never made: nothing was sent over it. 503 with Retry-After says so.
func ExampleDefaultOutcome_proxy() {
	store := exampleStore()
	defer store.Close()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}) // where nobody listens
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		var failed *net.OpError
		if errors.As(err, &failed) && failed.Op == "dial" {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "not reached", http.StatusServiceUnavailable)
			return
		}
		http.Error(w, "no answer", http.StatusBadGateway)
	}
	h := idemhttp.New(store, account, idemhttp.Options{})(proxy)
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	// Output:
	// 503 not reached
	// 503 not reached
}
