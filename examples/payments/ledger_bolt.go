package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"go.etcd.io/bbolt"
)

// boltLedger keeps charges and balances in two buckets of the store's own file.
type boltLedger struct {
	store   *idem.Store
	backend *bolt.Backend
}

var (
	chargesBucket  = []byte("ledger.charges")  // number, big endian → charge
	balancesBucket = []byte("ledger.balances") // account → cents, big endian
)

func (l *boltLedger) charge(ctx context.Context, t idem.Token, p payment) error {
	// The function touches only tx, because it may run more than once; one run
	// commits, together with the answer that it returns.
	return bolt.Complete(ctx, l.store, t, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		charges, err := tx.CreateBucketIfNotExists(chargesBucket)
		if err != nil {
			return nil, err
		}
		balances, err := tx.CreateBucketIfNotExists(balancesBucket)
		if err != nil {
			return nil, err
		}
		balance := p.Cents
		if old := balances.Get([]byte(p.Account)); old != nil {
			balance += int64(binary.BigEndian.Uint64(old))
		}
		number, err := charges.NextSequence()
		if err != nil {
			return nil, err
		}
		entry, answer, err := newCharge(number, p, balance)
		if err != nil {
			return nil, err
		}
		if err := charges.Put(binary.BigEndian.AppendUint64(nil, number), entry); err != nil {
			return nil, err
		}
		return answer, balances.Put([]byte(p.Account), binary.BigEndian.AppendUint64(nil, uint64(balance)))
	})
}

func (l *boltLedger) read() (charges []charge, balances map[string]int64, err error) {
	balances = make(map[string]int64)
	err = l.backend.DB().View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(chargesBucket); b != nil {
			err := b.ForEach(func(k, v []byte) error {
				var c charge
				if err := json.Unmarshal(v, &c); err != nil {
					return fmt.Errorf("charge %x of the ledger: %w", k, err)
				}
				charges = append(charges, c)
				return nil
			})
			if err != nil {
				return err
			}
		}
		if b := tx.Bucket(balancesBucket); b != nil {
			return b.ForEach(func(k, v []byte) error {
				balances[string(k)] = int64(binary.BigEndian.Uint64(v))
				return nil
			})
		}
		return nil
	})
	return charges, balances, err
}
