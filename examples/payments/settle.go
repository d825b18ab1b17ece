package main

import (
	"context"

	"github.com/idemkv/idem"
)

// settled is what became of payments that were held, by key in the store.
type settled struct {
	charged, never []string
}

// settle ends what was held because nobody knew how it ended, with the statement of
// the bank in hand: its receipts, by reference. A payment on the statement was made,
// and its next request gets the receipt. One that is not on it never was, and its next
// request makes it.
//
// The statement must be final: the bank takes no more of the orders that it is to
// cover. And no other process has the store open, so that what is in flight here is
// left over from one that died.
func settle(ctx context.Context, store *idem.Store, statement map[string][]byte) (s settled, err error) {
	for r, err := range store.Records(ctx, idem.Filter{}) {
		if err != nil {
			return s, err
		}
		if r.State != idem.Held && (r.State != idem.InFlight || !r.HoldUnknown) {
			continue
		}
		receipt, charged := statement[idem.DownstreamKey(r.Key, "charge")]
		if !charged {
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
		s.charged = append(s.charged, r.Key)
	}
	return s, nil
}

func (s settled) total() int { return len(s.charged) + len(s.never) }
