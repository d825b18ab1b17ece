package memory_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

// The first caller of a key does the work. Every later one gets the result, until the
// process ends.
func Example() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	ctx := context.Background()

	for range 2 {
		claim, err := store.Claim(ctx, idem.Request{Key: "order-1"})
		switch {
		case err == nil: // ours: do the work, then
			fmt.Println("charged:", store.Complete(ctx, claim.Token, []byte("receipt 17")))
		case errors.Is(err, idem.ErrCompleted):
			fmt.Printf("charged before: %s\n", claim.Record.Result)
		}
	}
	// Output:
	// charged: <nil>
	// charged before: receipt 17
}

// At a bound new keys are refused. The claims that were granted can still be completed,
// and nothing is evicted to make room.
func ExampleOptions() {
	store, err := idem.New(memory.New(memory.Options{MaxRecords: 1}), idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	ctx := context.Background()

	claim, err := store.Claim(ctx, idem.Request{Key: "order-1"})
	fmt.Println(err)
	_, err = store.Claim(ctx, idem.Request{Key: "order-2"})
	fmt.Println(errors.Is(err, idem.ErrFull))
	fmt.Println(store.Complete(ctx, claim.Token, []byte("receipt 17")))
	// Output:
	// <nil>
	// true
	// <nil>
}
