package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// What doc.go, docs/HTTP.md and README.md show, compiled and run.

type accountKey struct{}

// account names the tenant, as the authentication further out has found it.
func account(r *http.Request) (string, error) {
	id, _ := r.Context().Value(accountKey{}).(string)
	return id, nil // "" is nobody: 403
}

// A payment is made once, however often it is asked for.
func Example() {
	store := exampleStore()
	defer store.Close()
	paid := 0
	payments := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		paid++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "payment %d", paid)
	})

	mux := http.NewServeMux()
	mux.Handle("POST /payments", idemhttp.New(store, account, idemhttp.Options{})(payments))

	for _, amount := range []string{"12.50", "12.50", "99.00"} {
		show(mux, "order-1", amount)
	}
	show(mux, "order-2", "99.00")
	// Output:
	// 201 payment 1
	// 201 payment 1, replayed
	// 422 Idempotency key is used by a different request
	// 201 payment 2
}

type exampleStock struct{ soldOut bool }

func (s *exampleStock) reserve(string) error {
	if s.soldOut {
		return errors.New("sold out")
	}
	fmt.Println("reserved")
	return nil
}

type exampleBank struct{ keys []string }

func (b *exampleBank) charge(_ context.Context, key string) (string, error) {
	b.keys = append(b.keys, key)
	if len(b.keys) == 1 {
		return "", errors.New("no answer")
	}
	return "paid", nil
}

// A handler of two steps saves how far it came, and says what it knows.
func ExampleFromContext() {
	store := exampleStore()
	defer store.Close()
	stock, bank := &exampleStock{soldOut: true}, &exampleBank{}
	h := idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		if op.Checkpoint() == nil { // no attempt has come this far
			if err := stock.reserve(op.Key()); err != nil {
				op.Retryable() // nothing has happened
				http.Error(w, "sold out for now", http.StatusConflict)
				return
			}
			if err := op.SaveCheckpoint(r.Context(), []byte("reserved")); err != nil {
				panic(err) // the claim is lost, or the store is
			}
		}
		receipt, err := bank.charge(r.Context(), op.DownstreamKey("charge"))
		if err != nil {
			op.Unknown() // charged or not? somebody has to look
			http.Error(w, "the bank does not answer", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%s, attempt %d", receipt, op.Attempt())
	}))
	show(h, "order-1", "")
	stock.soldOut = false
	show(h, "order-1", "")
	show(h, "order-1", "")

	// Somebody has looked: it was not charged.
	rec, err := store.Get(context.Background(), idemhttp.StoreKey("*", "order-1"))
	if err != nil {
		panic(err)
	}
	fmt.Println(rec.State, store.Release(context.Background(), rec.Token(), nil))
	show(h, "order-1", "")
	fmt.Println("the same key to the bank:", bank.keys[0] == bank.keys[1])
	// Output:
	// 409 sold out for now
	// reserved
	// 502 the bank does not answer
	// 500 Outcome of this operation is unknown
	// held <nil>
	// 200 paid, attempt 3
	// the same key to the bank: true
}

// An operation that was held is settled with the answer that its clients are to get.
func ExampleAnswer() {
	store := exampleStore()
	defer store.Close()
	ctx := context.Background()
	h := idemhttp.New(store, func(*http.Request) (string, error) { return "account-7", nil }, idemhttp.Options{})(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) }))
	show(h, "order-1", "12.50")
	settle := func() error {
		answer, err := idemhttp.Answer{Status: http.StatusCreated, Body: []byte("paid")}.MarshalBinary()
		if err != nil {
			return err
		}
		rec, err := store.Get(ctx, idemhttp.StoreKey("account-7", "order-1"))
		if err != nil {
			return err
		}
		return store.Complete(ctx, rec.Token(), answer)
	}
	fmt.Println(settle())
	show(h, "order-1", "12.50")
	// Output:
	// 504
	// <nil>
	// 201 paid, replayed
}

// Webhooks bring their key in a header of their own, and come again for days.
func ExampleNew_webhooks() {
	store := exampleStore()
	defer store.Close()
	receive := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "received") })
	h := idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{
		Header:       "X-GitHub-Delivery",
		RequireKey:   true,
		Retention:    idem.Forever,
		RetryUnknown: true, // receive can be repeated
	})(receive)
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader("{}"))
		r.Header.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Printf("%d %s, replayed: %t\n", w.Code, w.Body, w.Header().Get("Idempotent-Replayed") == "true")
	}
	// Output:
	// 200 received, replayed: false
	// 200 received, replayed: true
}

func exampleStore() *idem.Store {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	return store
}

// show sends a request of account 7 and prints the answer.
func show(h http.Handler, key, body string) {
	r := httptest.NewRequest(http.MethodPost, "/payments", strings.NewReader(body))
	r.Header.Set("Idempotency-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accountKey{}, "account-7")))
	text, _ := io.ReadAll(w.Body)
	if w.Header().Get("Content-Type") == "application/problem+json" {
		_, rest, _ := strings.Cut(string(text), `"title":"`)
		title, _, _ := strings.Cut(rest, `"`)
		text = []byte(title)
	}
	line := strings.TrimSpace(fmt.Sprint(w.Code, " ", string(text)))
	if w.Header().Get("Idempotent-Replayed") != "" {
		line += ", replayed"
	}
	fmt.Println(line)
}
