// Command quickstart charges a card once, however often it is asked to and however often
// it is started. The record is in payments.db.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

func main() {
	backend, err := bolt.Open("payments.db", bolt.Options{})
	if err != nil {
		log.Fatal(err)
	}
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true}) // after a crash, claims are free
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	charge := func(context.Context, idem.Claim) (string, error) {
		fmt.Println("charging the card")
		return "receipt 42", nil
	}
	for range 3 { // a client that retries
		request := idem.Request{Key: "order-1001", Fingerprint: idem.FingerprintOf([]byte("12.50 EUR"))}
		receipt, replayed, err := idem.Do(context.Background(), store, request, charge)
		fmt.Println(receipt, replayed, err)
	}
}
