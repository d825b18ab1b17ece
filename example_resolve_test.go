package idem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem"
)

// A payment whose answer was lost is held. The bank knows what became of it, by the key
// that it was sent with.
func ExampleResolve() {
	store := memoryStore(idem.Options{})
	defer store.Close()
	ctx := context.Background()

	paid := map[string]string{} // at the bank
	_, _, err := idem.Do(ctx, store, idem.Request{Key: "order-7"}, func(_ context.Context, c idem.Claim) ([]byte, error) {
		paid[idem.DownstreamKey(c.Token.Key, "pay")] = "receipt 42"
		return nil, idem.Unknown(errors.New("no answer"))
	})
	fmt.Println(err)

	err = idem.Resolve(ctx, store, func(ctx context.Context, rec idem.Record) error {
		receipt, found := paid[idem.DownstreamKey(rec.Key, "pay")] // ask the bank
		if !found {
			return store.Release(ctx, rec.Token(), []byte("the bank has no such payment"))
		}
		return store.Complete(ctx, rec.Token(), []byte(receipt))
	})
	fmt.Println(err)

	claim, err := store.Claim(ctx, idem.Request{Key: "order-7"})
	fmt.Printf("%v: %s\n", err, claim.Record.Result)
	// Output:
	// no answer
	// <nil>
	// idem: operation is completed: receipt 42
}

// The records of one store move to another, on any engine. A token of the old store
// settles its claim in the new one.
func ExampleStore_Export() {
	ctx := context.Background()
	old, store := memoryStore(idem.Options{}), memoryStore(idem.Options{})
	defer old.Close()
	defer store.Close()
	claim, err := old.Claim(ctx, idem.Request{Key: "order-7"})
	if err != nil {
		panic(err)
	}

	var file bytes.Buffer
	if err := old.Export(ctx, &file); err != nil {
		panic(err)
	}
	report, err := store.Import(ctx, &file)
	fmt.Println(report.Records, err)
	fmt.Println(store.Complete(ctx, claim.Token, []byte("receipt 42")))
	// Output:
	// 1 <nil>
	// <nil>
}

// The time in a key tells a late retry from a new request, once the record is gone.
func ExampleKeyTime() {
	issued, ok := idem.KeyTime("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
	fmt.Println(issued.UTC().Format(time.DateTime), ok)

	store := memoryStore(idem.Options{Retention: 24 * time.Hour})
	defer store.Close()
	_, err := store.Claim(context.Background(), idem.Request{
		Key: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", IssuedAt: issued.Add(-time.Minute), // what clocks may differ by
	})
	fmt.Println(err)
	// Output:
	// 2022-02-22 19:22:22 true
	// idem: request is too old, its record may be gone
}
