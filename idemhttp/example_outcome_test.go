package idemhttp_test

import (
	"fmt"
	"net/http"

	"github.com/idemkv/idem/idemhttp"
)

// A handler inside of which an http.TimeoutHandler cannot be avoided: its 503 says
// nothing about what the handler is still doing.
func ExampleOptions_outcome() {
	store := exampleStore()
	defer store.Close()
	options := idemhttp.Options{Outcome: func(status int) idemhttp.Outcome {
		if status == http.StatusServiceUnavailable {
			return idemhttp.Unknown // perhaps the handler still runs
		}
		return idemhttp.DefaultOutcome(status)
	}}
	runs := 0
	h := idemhttp.New(store, account, options)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		http.Error(w, "timeout", http.StatusServiceUnavailable)
	}))
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")
	fmt.Println("runs:", runs)
	// Output:
	// 503 timeout
	// 500 Outcome of this operation is unknown
	// runs: 1
}
