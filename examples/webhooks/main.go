// Command webhooks receives the webhooks of GitHub and processes each delivery once,
// although GitHub delivers at least once, in any order, and again after days when
// somebody presses Redeliver.
//
//	WEBHOOK_SECRET=s3cret go run ./examples/webhooks -store webhooks.db
//
// Other senders differ in the name of the ID's header (webhook-id, Stripe's event ID
// in the body, …) and in how they sign. The order of the layers is what matters: the
// signature is checked first, so that a stranger can neither use up IDs nor ask which
// are known; then idemhttp; then the handler, whose write and completion are one commit.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
)

const maxBody = 25 << 20 // as GitHub says

// receiver is the service: POST /webhooks takes deliveries, GET /issues shows what
// they have told.
func receiver(store *idem.Store, secret []byte) http.Handler {
	once := idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{
		Header:     "X-GitHub-Delivery",
		RequireKey: true, // a delivery without an ID is no delivery of GitHub's
		MaxBody:    maxBody,
		// Deliveries can be sent again for three days. Past the retention one is new.
		Retention: 30 * 24 * time.Hour,
		// A copy that comes while the first is being processed gets the same answer.
		Wait: 5 * time.Second,
		// An attempt that died has left nothing: what it writes and that it is done are
		// one commit. So the next one may run.
		RetryUnknown: true,
	})
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", signed(secret, once(deliver(store))))
	mux.Handle("GET /issues", list(store))
	return mux
}

// signed lets requests pass whose body the sender has signed.
func signed(secret []byte, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "the body cannot be read", http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(body)
		want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
		if !hmac.Equal([]byte(want), []byte(r.Header.Get("X-Hub-Signature-256"))) {
			http.Error(w, "the signature is not ours", http.StatusUnauthorized)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// deliver records the event of a delivery, and in the same commit that it is done.
func deliver(store *idem.Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event, err := readEvent(r)
		if err != nil {
			http.Error(w, "not an event", http.StatusBadRequest) // final: a redelivery gets it too
			return
		}
		op := idemhttp.FromContext(r.Context())
		answer, err := idemhttp.Answer{Status: http.StatusNoContent}.MarshalBinary()
		if err == nil {
			err = bolt.Complete(r.Context(), store, op.Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
				return answer, event.record(tx)
			})
		}
		if err != nil {
			log.Printf("delivery %s: %v", store.KeyHash(op.Token().Key), err)
			op.Retryable() // nothing was written
			http.Error(w, "not recorded; deliver it again", http.StatusServiceUnavailable)
		}
	})
}

func run(ctx context.Context, addr, path string, secret []byte) error {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true})
	if err != nil {
		return errors.Join(err, backend.Close())
	}
	server := &http.Server{Addr: addr, Handler: receiver(store, secret), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	log.Printf("listening on %s", addr)
	select {
	case err = <-served:
	case <-ctx.Done():
		shutdown, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = server.Shutdown(shutdown)
	}
	return errors.Join(err, store.Close())
}

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	path := flag.String("store", "webhooks.db", "file of the store")
	flag.Parse()
	secret := os.Getenv("WEBHOOK_SECRET")
	if secret == "" {
		log.Fatal("set WEBHOOK_SECRET to the webhook's secret")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *path, []byte(secret)); err != nil {
		log.Fatal(err)
	}
}
