package pebble_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/pebble"
)

// The first caller of a key does the work. Every later one gets the result, also after the
// program was stopped and started.
func Example() {
	dir, err := os.MkdirTemp("", "idem")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	for range 2 {
		backend, err := pebble.Open(filepath.Join(dir, "idem"), pebble.Options{})
		if err != nil {
			panic(err)
		}
		store, err := idem.New(backend, idem.Options{})
		if err != nil {
			panic(err)
		}
		claim, err := store.Claim(ctx, idem.Request{Key: "order-1"})
		switch {
		case err == nil: // ours: do the work, then
			fmt.Println("charged:", store.Complete(ctx, claim.Token, []byte("receipt 17")))
		case errors.Is(err, idem.ErrCompleted):
			fmt.Printf("charged before: %s\n", claim.Record.Result)
		}
		if err := store.Close(); err != nil {
			panic(err)
		}
	}
	// Output:
	// charged: <nil>
	// charged before: receipt 17
}

// tempStore opens a store in a directory that remove deletes.
func tempStore() (store *idem.Store, remove func()) {
	dir, err := os.MkdirTemp("", "idem")
	if err != nil {
		panic(err)
	}
	backend, err := pebble.Open(filepath.Join(dir, "idem"), pebble.Options{})
	if err != nil {
		panic(err)
	}
	store, err = idem.New(backend, idem.Options{})
	if err != nil {
		panic(err)
	}
	return store, func() {
		if err := errors.Join(store.Close(), os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	}
}

// The write to the ledger and the completion are one commit: a crash leaves both or
// neither.
func ExampleDo() {
	store, remove := tempStore()
	defer remove()

	for range 2 {
		result, replayed, err := pebble.Do(context.Background(), store, idem.Request{Key: "order-1"},
			func(_ context.Context, batch *pebbledb.Batch) ([]byte, error) {
				return []byte("receipt 17"), batch.Set([]byte("ledger/order-1"), []byte("12.50"), nil)
			})
		fmt.Printf("%s, replayed: %t, %v\n", result, replayed, err)
	}
	// Output:
	// receipt 17, replayed: false, <nil>
	// receipt 17, replayed: true, <nil>
}

// Where something else has claimed the key, such as idemhttp or consume, Complete joins
// the write and the completion.
func ExampleComplete() {
	store, remove := tempStore()
	defer remove()
	ctx := context.Background()
	claim, err := store.Claim(ctx, idem.Request{Key: "order-1"})
	if err != nil {
		panic(err)
	}

	err = pebble.Complete(ctx, store, claim.Token, func(_ context.Context, batch *pebbledb.Batch) ([]byte, error) {
		return []byte("receipt 17"), batch.Set([]byte("ledger/order-1"), []byte("12.50"), nil)
	})
	fmt.Println(err)
	record, err := store.Get(ctx, "order-1")
	fmt.Println(record.State, err)
	// Output:
	// <nil>
	// completed <nil>
}

// The directory may hold data of your own that belongs to no operation.
func ExampleBackend_Update() {
	store, remove := tempStore()
	defer remove()
	backend, err := pebble.From(store)
	if err != nil {
		panic(err)
	}

	err = backend.Update(context.Background(), func(batch *pebbledb.Batch) error {
		return batch.Set([]byte("price/coffee"), []byte("3.20"), nil)
	})
	fmt.Println(err)
	price, closer, err := backend.DB().Get([]byte("price/coffee"))
	if err != nil {
		panic(err)
	}
	defer closer.Close() // before the store is closed
	fmt.Printf("coffee: %s\n", price)
	// Output:
	// <nil>
	// coffee: 3.20
}
