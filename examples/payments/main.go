// Command payments is a payment service that loses no payment and makes none twice.
//
//	go run ./examples/payments
//	curl -i localhost:8080/payments -H 'Idempotency-Key: order-1' -d '{"account":"alice","cents":1999}'
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/examples/payments/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, "localhost:8080", "payments.db"); err != nil {
		log.Fatal(err)
	}
}

// serve runs until ctx ends. Then it waits for the requests, and closes the store last.
func serve(ctx context.Context, addr, path string) error {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true}) // claims of a dead process are free
	if err != nil {
		return errors.Join(err, backend.Close())
	}
	handler := service.Handler(store, service.BoltLedger, bank)
	server := &http.Server{Addr: addr, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(grace), store.Shutdown(grace))
}

// bank stands in for your bank's client. The bank must check the key.
func bank(_ context.Context, key string, p service.Payment) ([]byte, error) {
	return fmt.Appendf(nil, "paid %d cents, reference %s\n", p.Cents, key), nil
}
