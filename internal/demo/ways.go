package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// The ways to make a payment are routes of the service; see main.go.
const (
	payments = "payments"
	payouts  = "payouts"
	held     = "payouts-held"
	careless = "payouts-careless"
)

var (
	ways  = []string{payments, payouts, held, careless}
	banks = ways[1:] // a bank for each of these
)

// clientKey is the idempotency key of a payment. Made in four ways it is four payments.
func clientKey(way, id string) string { return way + ":" + id }

// storeKey is the key of its record.
func storeKey(way, id string) string { return idemhttp.StoreKey("*", clientKey(way, id)) }

// generate makes n payments from a few accounts, always the same ones for a seed.
func generate(n int, seed uint64) []service.Payment {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]service.Payment, n)
	for i := range out {
		out[i] = service.Payment{
			ID:      fmt.Sprintf("pay-%06d", i+1),
			Account: fmt.Sprintf("account-%02d", rng.IntN(20)),
			Cents:   1 + rng.Int64N(50_000),
		}
	}
	return out
}

// money prints cents for people.
func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}
