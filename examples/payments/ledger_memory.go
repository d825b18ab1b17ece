package main

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/idemkv/idem"
)

// memoryLedger is gone with its process, like the records of the memory engine.
// There is no commit to share: the claim alone sees to it that a payment is
// charged once, which is enough as long as the process lives.
type memoryLedger struct {
	store *idem.Store

	mu       sync.Mutex
	charges  []charge
	balances map[string]int64
}

func newMemoryLedger(s *idem.Store) ledger {
	return &memoryLedger{store: s, balances: make(map[string]int64)}
}

func (l *memoryLedger) charge(ctx context.Context, r idem.Request, p payment) ([]byte, bool, error) {
	return idem.Do(ctx, l.store, r, func(context.Context, idem.Claim) ([]byte, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		number := uint64(len(l.charges) + 1)
		_, receipt, err := newReceipt(number, p, l.balances[p.Account]+p.Cents)
		if err != nil {
			return nil, err
		}
		l.charges = append(l.charges, charge{Number: number, Payment: p.Key, Account: p.Account, Cents: p.Cents})
		l.balances[p.Account] += p.Cents
		return receipt, nil
	})
}

func (l *memoryLedger) read() ([]charge, map[string]int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.charges), maps.Clone(l.balances), nil
}
