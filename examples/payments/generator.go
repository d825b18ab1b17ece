package main

import (
	"fmt"
	"math/rand/v2"
)

// generate makes n payments on a few accounts, always the same ones for a seed.
// Few accounts make for many charges that read and write one balance.
func generate(n int, seed uint64) []payment {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]payment, n)
	for i := range out {
		out[i] = payment{
			Key:     fmt.Sprintf("pay-%d-%06d", seed, i+1),
			Account: fmt.Sprintf("account-%02d", rng.IntN(20)),
			Cents:   1 + rng.Int64N(50_000),
		}
	}
	return out
}
