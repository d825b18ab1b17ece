package main

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/idemkv/idem"
)

// memoryLedger is gone with its process, like the records of the memory engine, and
// so needs no commit that both share: the lock is enough.
type memoryLedger struct {
	store *idem.Store

	mu       sync.Mutex
	charges  []charge
	balances map[string]int64
}

func newMemoryLedger(s *idem.Store) ledger {
	return &memoryLedger{store: s, balances: make(map[string]int64)}
}

func (l *memoryLedger) charge(ctx context.Context, t idem.Token, p payment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := uint64(len(l.charges) + 1)
	_, answer, err := newCharge(number, p, l.balances[p.Account]+p.Cents)
	if err != nil {
		return err
	}
	if err := l.store.Complete(ctx, t, answer); err != nil {
		return err
	}
	l.charges = append(l.charges, charge{Number: number, Payment: p.Key, Account: p.Account, Cents: p.Cents})
	l.balances[p.Account] += p.Cents
	return nil
}

func (l *memoryLedger) read() ([]charge, map[string]int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.charges), maps.Clone(l.balances), nil
}
