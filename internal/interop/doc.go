// Package interop tests idemhttp with other people's code.
//
// The clients, through the bad network of internal/faultproxy, are Go's own
// http.Transport, which repeats a request with an Idempotency-Key on its own,
// go-retryablehttp, and stripe-go, which makes keys and repeats requests on its own.
//
// The routers, frameworks and middleware, around idemhttp and inside it, are chi, gin,
// echo, gorilla's handlers, httpsnoop and otelhttp.
//
// The package is its own module, to keep these dependencies out of the root module.
package interop
