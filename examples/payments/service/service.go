// Package service is the part to copy. `make demo` kills a process that serves this
// Handler again and again, and audits the ledgers.
package service

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
	"go.etcd.io/bbolt"
)

// Payment is the body of a request. With its number it is also the answer, and a line in
// the ledger.
type Payment struct {
	Number  uint64 `json:"number"`
	ID      string `json:"id"` // the client's idempotency key
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

// Ledger makes a payment and completes its claim in one commit, as BoltLedger does.
type Ledger func(ctx context.Context, store *idem.Store, t idem.Token, p Payment) error

// Bank orders a payout, and returns the bank's receipt. Orders of one key are one order.
type Bank func(ctx context.Context, key string, p Payment) (receipt []byte, err error)

// Handler takes payments and payouts, and makes each of them once.
func Handler(store *idem.Store, ledger Ledger, bank Bank) http.Handler {
	once := idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{
		RequireKey:   true,            // without a key, a retry looks like a second payment
		Wait:         5 * time.Second, // a double click gets the answer to the first click
		RetryUnknown: true,            // after a crash, attempts run again: both ways below are safe
	})
	mux := http.NewServeMux()
	mux.Handle("POST /payments", once(handle(func(ctx context.Context, op *idemhttp.Operation, p Payment) ([]byte, error) {
		return nil, ledger(ctx, store, op.Token(), p) // an attempt that died has written nothing
	})))
	mux.Handle("POST /payouts", once(Payout(bank)))
	return mux
}

// Payout has the bank pay. The bank sees the same key on every attempt, and pays once.
func Payout(bank Bank) http.Handler {
	return handle(func(ctx context.Context, op *idemhttp.Operation, p Payment) ([]byte, error) {
		return bank(ctx, op.DownstreamKey("payout"), p)
	})
}

func handle(pay func(context.Context, *idemhttp.Operation, Payment) (receipt []byte, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p Payment
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Account == "" || p.Cents < 1 {
			http.Error(w, "not a payment", http.StatusBadRequest) // stored: a retry gets it too
			return
		}
		op := idemhttp.FromContext(r.Context())
		p.ID = op.Key()
		switch receipt, err := pay(r.Context(), op, p); {
		case err != nil:
			log.Print(err)
			http.Error(w, "ask again with the same key", http.StatusBadGateway) // not stored
		case receipt != nil: // otherwise idemhttp sends what the ledger has committed
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(receipt)
		}
	})
}

// BoltLedger is a bucket in the file of the store.
func BoltLedger(ctx context.Context, store *idem.Store, t idem.Token, p Payment) error {
	return bolt.Complete(ctx, store, t, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
		if err != nil {
			return nil, err
		}
		if p.Number, err = ledger.NextSequence(); err != nil {
			return nil, err
		}
		line, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		answer, err := idemhttp.Answer{Status: http.StatusCreated, Body: line}.MarshalBinary()
		return answer, errors.Join(err, ledger.Put(binary.BigEndian.AppendUint64(nil, p.Number), line))
	})
}
