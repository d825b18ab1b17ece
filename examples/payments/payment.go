package main

import (
	"fmt"
	"net/http"

	"github.com/idemkv/idem/idemhttp"
)

// payment is one line of the input: charge account amount_cents, once.
type payment struct {
	Key     string `json:"key"`
	Account string `json:"account"`
	Cents   int64  `json:"amount_cents"`
}

const (
	maxKey     = 240 // with a route before it, it is within idemhttp.MaxKey
	maxAccount = 255
	// maxCents keeps the sum of any input that fits a disk within an int64.
	maxCents = 10_000_000_000
)

// check says what is wrong with the payment, in words for whoever sent it.
func (p payment) check() error {
	switch {
	case p.Account == "":
		return fmt.Errorf(`"account" is missing or empty`)
	case len(p.Account) > maxAccount:
		return fmt.Errorf(`"account" has %d bytes, at most %d are allowed`, len(p.Account), maxAccount)
	case p.Cents < 1 || p.Cents > maxCents:
		return fmt.Errorf(`"amount_cents" is missing or out of range: %d is not from 1 to %d`, p.Cents, int64(maxCents))
	}
	return nil
}

// charge is one entry of a ledger. A ledger only appends, so that a payment
// charged twice would be there twice.
type charge struct {
	Number  uint64 `json:"charge"` // from 1, in the order of the ledger
	Payment string `json:"payment"`
	Account string `json:"account"`
	Cents   int64  `json:"amount_cents"`
	// Reference is what a bank prints on its statement, for whoever ordered the charge.
	Reference string `json:"reference,omitempty"`
}

// receipt is what the client gets for a payment, and gets again, byte for byte,
// however often it asks.
type receipt struct {
	charge
	// Balance of the account right after this charge, where the ledger is our own.
	Balance int64 `json:"balance_cents,omitempty"`
}

// paid is the answer to a payment that was made, in the form in which idemhttp
// stores answers and replays them.
func paid(receipt []byte) ([]byte, error) {
	return idemhttp.Answer{
		Status: http.StatusCreated,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   receipt,
	}.MarshalBinary()
}

// money prints cents for people.
func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}
