// Package idemhttp makes HTTP requests idempotent by a key, in the server and in the
// client. A client that got no answer sends its request again with the same
// Idempotency-Key header; the server runs it once, and answers every repetition as it
// answered the first. It follows the IETF draft "The Idempotency-Key HTTP Header
// Field" (draft-ietf-httpapi-idempotency-key-header-07) and the practice of Stripe.
//
// # The server
//
// New makes a middleware of the usual shape, func(http.Handler) http.Handler, from a
// store and from what says whose request it is:
//
//	mux.Handle("POST /payments", idemhttp.New(store, account, idemhttp.Options{})(payments))
//
// The middleware belongs inside of what authenticates, limits and logs requests, and
// outside of whatever reads the body. POST and PATCH requests that bring a key are its
// business; all others pass through untouched.
package idemhttp
