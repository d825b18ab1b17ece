package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/idemkv/idem"
	"github.com/idemkv/idem/pebble"
)

// pebbleLedger keeps charges and balances under keys of its own in the store's
// database.
type pebbleLedger struct {
	store   *idem.Store
	backend *pebble.Backend
}

const (
	lastCharge     = "ledger/last"     // number of the last charge
	chargesPrefix  = "ledger/charge/"  // number, big endian → charge
	balancesPrefix = "ledger/balance/" // account → cents
)

func (l *pebbleLedger) charge(ctx context.Context, t idem.Token, p payment) error {
	// The batch reads through to the database and sees what earlier charges of
	// the same commit wrote, so that no balance misses another's update.
	return pebble.Complete(ctx, l.store, t, func(_ context.Context, b *pebbledb.Batch) ([]byte, error) {
		balanceKey := []byte(balancesPrefix + p.Account)
		old, err := readUint64(b, balanceKey)
		if err != nil {
			return nil, err
		}
		balance := int64(old) + p.Cents
		number, err := readUint64(b, []byte(lastCharge))
		if err != nil {
			return nil, err
		}
		number++
		entry, answer, err := newCharge(number, p, balance)
		if err != nil {
			return nil, err
		}
		return answer, errors.Join(
			b.Set([]byte(lastCharge), binary.BigEndian.AppendUint64(nil, number), nil),
			b.Set(binary.BigEndian.AppendUint64([]byte(chargesPrefix), number), entry, nil),
			b.Set(balanceKey, binary.BigEndian.AppendUint64(nil, uint64(balance)), nil),
		)
	})
}

// readUint64 reads a number, 0 if there is none.
func readUint64(r pebbledb.Reader, key []byte) (uint64, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebbledb.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	return binary.BigEndian.Uint64(v), nil
}

func (l *pebbleLedger) read() (charges []charge, balances map[string]int64, err error) {
	err = l.each(chargesPrefix, func(_ string, v []byte) error {
		var c charge
		if err := json.Unmarshal(v, &c); err != nil {
			return fmt.Errorf("charge %d of the ledger: %w", len(charges)+1, err)
		}
		charges = append(charges, c)
		return nil
	})
	balances = make(map[string]int64)
	return charges, balances, errors.Join(err, l.each(balancesPrefix, func(account string, v []byte) error {
		balances[account] = int64(binary.BigEndian.Uint64(v))
		return nil
	}))
}

// each calls f with what follows prefix in each key, and its value, in order.
func (l *pebbleLedger) each(prefix string, f func(rest string, value []byte) error) error {
	end := []byte(prefix)
	end[len(end)-1]++ // the slash at its end has a successor
	it, err := l.backend.DB().NewIter(&pebbledb.IterOptions{LowerBound: []byte(prefix), UpperBound: end})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = f(string(it.Key()[len(prefix):]), it.Value())
	}
	return errors.Join(err, it.Close())
}
