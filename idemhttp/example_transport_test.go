package idemhttp_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// A client that tries again by itself, and a server that charges once: the
// connection breaks after the charge, before its answer.
func ExampleTransport() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	charges := 0
	charge := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		charges++
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "receipt 1")
	})
	requests := 0
	breaks := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests++; requests > 1 {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(httptest.NewRecorder(), r) // nobody gets this answer
			panic(http.ErrAbortHandler)               // ends the connection
		})
	}
	server := httptest.NewServer(breaks(idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{})(charge)))
	defer server.Close()

	client := &http.Client{Transport: &idemhttp.Transport{}}
	resp, err := client.Post(server.URL+"/charges", "text/plain", strings.NewReader("12.50"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	receipt, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s, replayed %s\n", receipt, resp.Header.Get("Idempotent-Replayed"))
	fmt.Printf("%d requests, %d charge\n", requests, charges)
	// Output:
	// receipt 1, replayed true
	// 2 requests, 1 charge
}

// A client of several services, of which one honours keys. The other ignores them and
// charges for each request, so the Transport sends it one.
func ExampleTransport_honoursKeys() {
	charges := 0
	ignoresKeys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		charges++
		w.WriteHeader(http.StatusGatewayTimeout)
	}))
	defer ignoresKeys.Close()

	client := &http.Client{Transport: &idemhttp.Transport{
		HonoursKeys: func(r *http.Request) bool { return r.URL.Host == "api.stripe.com" },
	}}
	resp, err := client.Post(ignoresKeys.URL+"/charges", "text/plain", strings.NewReader("12.50"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Printf("%d, %d charge\n", resp.StatusCode, charges)
	// Output:
	// 504, 1 charge
}
