// Command webhooks processes each delivery from GitHub once, although GitHub delivers at
// least once, in any order, and again when someone presses Redeliver.
//
//	WEBHOOK_SECRET=s3cret go run ./examples/webhooks
//
// The order of the layers matters. First comes the signature, so a stranger can neither
// use up IDs nor learn which are known; then idemhttp; then the handler.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
)

const maxBody = 25 << 20 // GitHub's own limit

// receiver takes deliveries at POST /webhooks.
func receiver(store *idem.Store, secret []byte) http.Handler {
	once := idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{
		Header:       "X-GitHub-Delivery",
		RequireKey:   true, // GitHub gives every delivery an ID
		MaxBody:      maxBody,
		Retention:    30 * 24 * time.Hour, // deliveries can be sent again for three days
		Wait:         5 * time.Second,     // a copy that comes while the first runs gets its answer
		RetryUnknown: true,                // an attempt that died has written nothing
	})
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", signed(secret, once(deliver(store))))
	return mux
}

// signed passes on requests that the sender has signed.
func signed(secret []byte, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "cannot read the body", http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(body)
		want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
		if !hmac.Equal([]byte(want), []byte(r.Header.Get("X-Hub-Signature-256"))) {
			http.Error(w, "wrong signature", http.StatusUnauthorized)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// issue is what we read from an "issues" event, and keep.
type issue struct {
	URL       string    `json:"html_url"`
	State     string    `json:"state"`
	UpdatedAt time.Time `json:"updated_at"`
	Events    int       `json:"events"` // our own count
}

// deliver saves the event in the commit that completes the delivery.
func deliver(store *idem.Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct{ Issue issue } // other events have none
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			http.Error(w, "not an event", http.StatusBadRequest) // final: a redelivery gets it too
			return
		}
		op := idemhttp.FromContext(r.Context())
		err := bolt.Complete(r.Context(), store, op.Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			if err := event.Issue.save(tx); err != nil {
				return nil, err
			}
			return idemhttp.Answer{Status: http.StatusNoContent}.MarshalBinary()
		})
		if err != nil {
			log.Printf("delivery %s: %v", store.KeyHash(op.Token().Key), err)
			op.Retryable() // nothing was written
			http.Error(w, "not saved; deliver it again", http.StatusServiceUnavailable)
		}
	})
}

// save counts the event and keeps the latest state of the issue. "Once" does not mean "in
// order": an event that comes after a later one is only counted.
func (i issue) save(tx *bbolt.Tx) error {
	issues, err := tx.CreateBucketIfNotExists([]byte("issues"))
	if err != nil || i.URL == "" {
		return err
	}
	var known issue
	if b := issues.Get([]byte(i.URL)); b != nil {
		if err := json.Unmarshal(b, &known); err != nil {
			return err
		}
	}
	if known.UpdatedAt.After(i.UpdatedAt) {
		i = known
	}
	i.Events = known.Events + 1
	b, err := json.Marshal(i)
	return errors.Join(err, issues.Put([]byte(i.URL), b))
}

func serve(ctx context.Context, addr, path string, secret []byte) error {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true})
	if err != nil {
		return errors.Join(err, backend.Close())
	}
	server := &http.Server{Addr: addr, Handler: receiver(store, secret), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(grace), store.Shutdown(grace))
}

func main() {
	secret := os.Getenv("WEBHOOK_SECRET")
	if secret == "" {
		log.Fatal("set WEBHOOK_SECRET to the webhook's secret")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, "localhost:8080", "webhooks.db", []byte(secret)); err != nil {
		log.Fatal(err)
	}
}
