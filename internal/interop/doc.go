// Package interop holds idemhttp against what nobody here wrote.
//
// Clients, through the bad network of internal/faultproxy: Go's own http.Transport, which
// sends a request with an Idempotency-Key again by itself, go-retryablehttp, and
// stripe-go, which makes keys and tries again by itself.
//
// Routers, frameworks and middleware around idemhttp and inside of it: chi, gin, echo,
// gorilla's handlers, httpsnoop and otelhttp.
//
// It is a module of its own, so that none of them gets into the other one.
package interop
