package main

import (
	"context"

	"github.com/idemkv/idem"
)

// settled are payments whose outcome was unknown, by key of their record.
type settled struct{ paid, never []string }

func (s settled) total() int { return len(s.paid) + len(s.never) }

// settle resolves operations that are held, with the bank's statement in hand: its
// receipts, by reference. A payout on the statement was made, and its next request gets
// the receipt. One that is not on it was never made, and its next request makes it.
//
// The statement must be final: the bank takes no more of the orders that it covers.
func settle(ctx context.Context, store *idem.Store, statement map[string][]byte) (s settled, err error) {
	for r, err := range store.Records(ctx, idem.Filter{Unsettled: true}) {
		if err != nil {
			return s, err
		}
		receipt, made := statement[idem.DownstreamKey(r.Key, "payout")]
		if !made {
			if err := store.Release(ctx, r.Token(), nil); err != nil {
				return s, err
			}
			s.never = append(s.never, r.Key)
			continue
		}
		answer, err := paid(receipt)
		if err != nil {
			return s, err
		}
		if err := store.Complete(ctx, r.Token(), answer); err != nil {
			return s, err
		}
		s.paid = append(s.paid, r.Key)
	}
	return s, nil
}
