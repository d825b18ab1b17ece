// Command resolver settles payments whose outcome is unknown: the bank did not answer, or
// the process died on the way. It asks the bank by the key that each payment was sent
// with. Run it twice:
//
//	go run ./examples/resolver
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// bank is what the bank offers. It pays once per key, and knows its keys.
type bank interface {
	Pay(ctx context.Context, key string, cents int) (receipt string, err error)
	Find(ctx context.Context, key string) (receipt string, found bool, err error)
}

const prefix = "payments/"

// pay pays an order once. If the bank does not answer, the payment is held: paying again
// could pay twice, and giving up could pay not at all.
func pay(ctx context.Context, store *idem.Store, b bank, order string, cents int) (string, error) {
	request := idem.Request{Key: prefix + order, Fingerprint: idem.FingerprintOf(fmt.Append(nil, cents)), HoldUnknown: true}
	receipt, _, err := idem.Do(ctx, store, request, func(ctx context.Context, c idem.Claim) (string, error) {
		receipt, err := b.Pay(ctx, idem.DownstreamKey(c.Token.Key, "pay"), cents)
		if err != nil {
			return "", idem.Unknown(fmt.Errorf("the bank did not answer: %w", err))
		}
		return receipt, nil
	})
	return receipt, err
}

// settle finds out what became of one payment.
func settle(store *idem.Store, b bank, now func() time.Time) func(context.Context, idem.Record) error {
	return func(ctx context.Context, rec idem.Record) error {
		if !strings.HasPrefix(rec.Key, prefix) {
			return nil // not ours
		}
		if rec.Lapsed && now().Sub(rec.LeaseUntil) < time.Minute {
			return nil // it may still be on its way to the bank; ask next time
		}
		receipt, found, err := b.Find(ctx, idem.DownstreamKey(rec.Key, "pay"))
		switch {
		case err != nil:
			return err // told in the end; the next round asks again
		case !found:
			return store.Release(ctx, rec.Token(), []byte("the bank has no such payment"))
		}
		result, err := json.Marshal(receipt) // as Do stores it; idemhttp stores an idemhttp.Answer
		if err != nil {
			return err
		}
		return store.Complete(ctx, rec.Token(), result)
	}
}

// resolve settles what can be settled, every so often, until ctx ends.
func resolve(ctx context.Context, store *idem.Store, b bank, every time.Duration) {
	rounds := time.NewTicker(every)
	defer rounds.Stop()
	for {
		if err := idem.Resolve(ctx, store, settle(store, b, time.Now)); err != nil && ctx.Err() == nil {
			log.Print(err)
		}
		select {
		case <-rounds.C:
		case <-ctx.Done():
			return
		}
	}
}

// silent is a bank that pays and whose answers get lost.
type silent map[string]string

func (s silent) Pay(_ context.Context, key string, cents int) (string, error) {
	s[key] = fmt.Sprintf("receipt for %d cents", cents)
	return "", context.DeadlineExceeded
}

func (s silent) Find(_ context.Context, key string) (string, bool, error) {
	receipt, found := s[key]
	return receipt, found, nil
}

func run(ctx context.Context, path string) error {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	store, err := idem.New(backend, idem.Options{})
	if err != nil {
		return errors.Join(err, backend.Close())
	}
	b := silent{}
	show := func() {
		receipt, err := pay(ctx, store, b, "order-1001", 1250)
		fmt.Printf("%q %v\n", receipt, err)
	}
	show()
	show()
	err = idem.Resolve(ctx, store, settle(store, b, time.Now)) // a service calls resolve
	show()
	return errors.Join(err, store.Close())
}

func main() {
	if err := run(context.Background(), "resolver.db"); err != nil {
		log.Fatal(err)
	}
}
