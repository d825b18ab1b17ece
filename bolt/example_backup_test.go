package bolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// backup writes a copy of the store to path while the store is in use.
func backup(ctx context.Context, store *idem.Store, path string) error {
	backend, err := bolt.From(store)
	if err != nil {
		return err
	}
	return backend.Backup(ctx, path)
}

func ExampleBackend_Backup() {
	dir, err := os.MkdirTemp("", "idem")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	backend, err := bolt.Open(filepath.Join(dir, "payments.db"), bolt.Options{})
	if err != nil {
		panic(err)
	}
	store, err := idem.New(backend, idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	path := filepath.Join(dir, "backup.db")
	fmt.Println(backup(context.Background(), store, path))
	_, err = os.Stat(path)
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
}
