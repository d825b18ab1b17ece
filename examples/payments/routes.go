package main

import "github.com/idemkv/idem/idemhttp"

// The four ways in which the service makes a payment, each a path of its own. What
// they are worth stands in main.go.
const (
	ownLedger    = "own-ledger"
	bankWithKeys = "bank-with-keys"
	bankHeld     = "bank-held"
	bankCareless = "bank-careless"
)

var (
	routes     = []string{ownLedger, bankWithKeys, bankHeld, bankCareless}
	bankRoutes = routes[1:]
)

// clientKey is the idempotency key for a payment on a route. It is four payments if it
// is made in four ways, so it has four keys.
func clientKey(route, key string) string { return route + ":" + key }

// storeKey is where the service's store keeps the payment.
func storeKey(route, key string) string { return idemhttp.StoreKey(shop, clientKey(route, key)) }

// The one merchant of the demo, and how it proves who it is.
const (
	shop    = "shop"
	shopKey = "Bearer demo-key-of-the-shop"
)
