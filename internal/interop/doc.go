// Package interop holds idemhttp against clients and a router that nobody here wrote,
// through the bad network of internal/proxy: Go's own http.Transport, which sends a
// request with an Idempotency-Key again by itself, go-retryablehttp, stripe-go, which
// makes keys and tries again by itself, and chi. It is a module of its own, so that
// none of them gets into the other one.
package interop
