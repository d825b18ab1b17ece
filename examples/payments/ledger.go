package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

// ledger is the service's own ledger, kept where the idempotency records are.
type ledger interface {
	// charge charges p, ends the operation that t claims, and stores its answer (see
	// paid), all in one commit.
	charge(ctx context.Context, t idem.Token, p payment) error
	// read returns all charges, in order, and the balance of each account.
	read() ([]charge, map[string]int64, error)
}

// opener opens a store with the ledger beside it; closing the store closes both.
type opener func(engine, path string, o idem.Options) (*idem.Store, ledger, error)

// openLedger opens the engine's files at path, which the memory engine ignores.
func openLedger(engine, path string, o idem.Options) (*idem.Store, ledger, error) {
	switch engine {
	case "bolt":
		backend, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			return nil, nil, err
		}
		return openOn(backend, o, func(s *idem.Store) ledger { return &boltLedger{s, backend} })
	case "pebble":
		backend, err := pebble.Open(path, pebble.Options{})
		if err != nil {
			return nil, nil, err
		}
		return openOn(backend, o, func(s *idem.Store) ledger { return &pebbleLedger{s, backend} })
	case "memory":
		return openOn(memory.New(memory.Options{}), o, newMemoryLedger)
	}
	return nil, nil, fmt.Errorf("no engine is called %q; there are bolt, pebble and memory", engine)
}

func openOn(b engine.Backend, o idem.Options, ledgerOf func(*idem.Store) ledger) (*idem.Store, ledger, error) {
	store, err := idem.New(b, o)
	if err != nil {
		b.Close() // New left it ours
		return nil, nil, err
	}
	return store, ledgerOf(store), nil
}

// newCharge is the charge of p with number n, to append to a ledger, and the answer
// with its receipt.
func newCharge(n uint64, p payment, balance int64) (entry, answer []byte, err error) {
	c := charge{Number: n, Payment: p.Key, Account: p.Account, Cents: p.Cents}
	if entry, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	shown, err := json.Marshal(receipt{charge: c, Balance: balance})
	if err != nil {
		return nil, nil, err
	}
	answer, err = paid(shown)
	return entry, answer, err
}
