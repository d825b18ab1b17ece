package idem_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// The code that the package documentation shows, compiled and run. readme_test.go fails
// if a block it shows is not found here, or in another example file, line by line.

// payOnce charges once for each payment ID, however often it is called.
func payOnce(ctx context.Context, store *idem.Store, bank *bankClient, id string, body []byte) ([]byte, error) {
	claim, err := store.Claim(ctx, idem.Request{
		Key:         id,
		Fingerprint: idem.FingerprintOf(body), // the same ID with another body is refused
	})
	switch {
	case err == nil: // ours to run
		receipt, err := bank.charge(ctx, idem.DownstreamKey(id, "charge"), body)
		if err != nil {
			return nil, errors.Join(err, store.Release(ctx, claim.Token, []byte(err.Error()))) // may be tried again
		}
		return receipt, store.Complete(ctx, claim.Token, receipt)
	case errors.Is(err, idem.ErrCompleted): // a retry: the same receipt again
		return claim.Record.Result, nil
	default: // in flight elsewhere, another body under this ID, failed for good, …
		return nil, err
	}
}

func openStore(path string) (*idem.Store, error) {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	return idem.New(backend, idem.Options{})
}

// bankClient is the service downstream: it charges once for each key it is shown.
type bankClient struct {
	charged map[string]int
	down    bool // answers nothing
}

func (b *bankClient) charge(_ context.Context, key string, body []byte) ([]byte, error) {
	if b.down {
		return nil, errors.New("bank: no answer")
	}
	b.charged[key]++
	return fmt.Appendf(nil, "receipt for %s", body), nil
}

func (b *bankClient) find(string) (receipt []byte, found bool) {
	return []byte("receipt"), len(b.charged) > 0
}

// Example_claimAndComplete charges once, in three calls.
func Example_claimAndComplete() {
	withStore(func(ctx context.Context, store *idem.Store) error {
		bank := &bankClient{charged: map[string]int{}}
		bank.down = true
		_, err := payOnce(ctx, store, bank, "txn_001", []byte("12.50"))
		fmt.Println(err)

		bank.down = false
		for range 3 {
			receipt, err := payOnce(ctx, store, bank, "txn_001", []byte("12.50"))
			if err != nil {
				return err
			}
			fmt.Printf("%s, charged %d time\n", receipt, len(bank.charged))
		}
		_, err = payOnce(ctx, store, bank, "txn_001", []byte("99.00"))
		fmt.Println(err)
		return nil
	})
	// Output:
	// bank: no answer
	// receipt for 12.50, charged 1 time
	// receipt for 12.50, charged 1 time
	// receipt for 12.50, charged 1 time
	// idem: key is in use by a different request
}

// Example_tokenText saves a claim's token as text, to complete it from elsewhere.
func Example_tokenText() {
	withStore(func(ctx context.Context, store *idem.Store) error {
		claim, err := store.Claim(ctx, idem.Request{Key: "job_7"})
		if err != nil {
			return err
		}
		text, err := claim.Token.MarshalText() // idem1.<fence>.<key>
		if err != nil {
			return err
		}
		var token idem.Token
		if err := token.UnmarshalText(text); err != nil {
			return err
		}
		fmt.Println(token == claim.Token, store.Complete(ctx, token, nil))
		return nil
	})
	// Output: true <nil>
}

// Example_checkpoint shows that a second attempt goes on where the first one ended.
func Example_checkpoint() {
	withStore(func(ctx context.Context, store *idem.Store) error {
		reserve := func(id string) error {
			fmt.Println("reserving for", id)
			return nil
		}
		attempt := func(id string, end func(context.Context, idem.Token) error) error {
			claim, err := store.Claim(ctx, idem.Request{Key: id})
			if err != nil {
				return err
			}
			if claim.Record.Checkpoint == nil { // no attempt has come this far
				if err := reserve(id); err != nil {
					return err
				}
				if err := store.Checkpoint(ctx, claim.Token, []byte("reserved")); err != nil {
					return err
				}
			}
			if err := store.Extend(ctx, claim.Token, 0); err != nil {
				return err // idem.ErrFenced: another attempt has taken over
			}
			fmt.Printf("attempt %d\n", claim.Record.Attempt)
			return end(ctx, claim.Token)
		}
		release := func(ctx context.Context, t idem.Token) error {
			return store.Release(ctx, t, []byte("no seats yet"))
		}
		if err := attempt("trip_4", release); err != nil {
			return err
		}
		return attempt("trip_4", func(ctx context.Context, t idem.Token) error {
			return store.Complete(ctx, t, []byte("booked"))
		})
	})
	// Output:
	// reserving for trip_4
	// attempt 1
	// attempt 2
}

// Example_held settles an operation whose outcome nobody knew.
func Example_held() {
	withStore(func(ctx context.Context, store *idem.Store) error {
		bank := &bankClient{charged: map[string]int{"txn_001": 1}}
		settle := func(id string) error {
			claim, err := store.Claim(ctx, idem.Request{Key: id, HoldUnknown: true})
			if errors.Is(err, idem.ErrHeld) {
				if receipt, found := bank.find(id); found {
					return store.Complete(ctx, claim.Record.Token(), receipt)
				}
				return store.Release(ctx, claim.Record.Token(), nil) // it never happened
			}
			return errors.Join(err, store.Hold(ctx, claim.Token, []byte("no answer")))
		}
		for range 2 {
			if err := settle("txn_001"); err != nil {
				return err
			}
			record, err := store.Get(ctx, "txn_001")
			fmt.Println(record.State, err)
		}
		return nil
	})
	// Output:
	// held <nil>
	// completed <nil>
}

// Example_do runs a function once and replays its value.
func Example_do() {
	type Receipt struct{ Number int }
	withStore(func(ctx context.Context, store *idem.Store) error {
		send := func(_ context.Context, attempt int) (Receipt, error) {
			fmt.Println("sending, attempt", attempt)
			return Receipt{Number: 42}, nil
		}
		for range 2 {
			id := "order_9"
			receipt, replayed, err := idem.Do(ctx, store, idem.Request{Key: id},
				func(ctx context.Context, claim idem.Claim) (Receipt, error) {
					return send(ctx, claim.Record.Attempt)
				})
			fmt.Println(receipt.Number, replayed, err)
		}
		return nil
	})
	// Output:
	// sending, attempt 1
	// 42 false <nil>
	// 42 true <nil>
}

// Example_sameCommit writes to a ledger in the commit that completes the operation.
func Example_sameCommit() {
	withStore(func(ctx context.Context, store *idem.Store) error {
		for range 2 {
			id := "txn_001"
			result, replayed, err := bolt.Do(ctx, store, idem.Request{Key: id},
				func(ctx context.Context, tx *bbolt.Tx) ([]byte, error) {
					ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
					if err != nil {
						return nil, err
					}
					return []byte("paid"), ledger.Put([]byte(id), []byte("12.50"))
				})
			fmt.Printf("%s %t %v\n", result, replayed, err)
		}
		return nil
	})
	// Output:
	// paid false <nil>
	// paid true <nil>
}

// withStore runs an example on a new store and prints what went wrong in it.
func withStore(example func(context.Context, *idem.Store) error) {
	dir, err := os.MkdirTemp("", "idem")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := openStore(filepath.Join(dir, "idem.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := errors.Join(example(context.Background(), store), store.Close()); err != nil {
		fmt.Println(err)
	}
}
