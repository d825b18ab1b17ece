package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// server is the payment service.
type server struct {
	store  *idem.Store
	ledger ledger
	banks  map[string]bankClient // by route
}

func storeOptions() idem.Options {
	return idem.Options{
		// This process is the only one that runs payments. Whoever held a claim
		// when it starts is dead, and its payment need not wait for the lease.
		LapseOnOpen: true,
	}
}

// handler is the whole service: each route is wrapped in idemhttp once.
func (s *server) handler() http.Handler {
	o := idemhttp.Options{
		RequireKey: true,            // a payment that cannot be told from its retry is not taken
		Wait:       5 * time.Second, // a double click gets the answer of the first click
		OnError: func(_ *http.Request, err error) {
			if !errors.Is(err, idem.ErrHeld) { // what is held is for settle, not for the log at each repetition
				log.Print(err)
			}
		},
	}
	// The default: an attempt that ended without a word is held, and never run again
	// on a guess.
	hold := idemhttp.New(s.store, merchant, o)
	// Right only where an attempt can be repeated.
	o.RetryUnknown = true
	again := idemhttp.New(s.store, merchant, o)

	mux := http.NewServeMux()
	mux.Handle("POST /"+ownLedger, again(http.HandlerFunc(s.pay)))           // right: one commit
	mux.Handle("POST /"+bankWithKeys, again(s.payAt(s.banks[bankWithKeys]))) // right: the bank checks our key
	mux.Handle("POST /"+bankHeld, hold(s.payAt(s.banks[bankHeld])))          // right: nothing makes it repeatable
	mux.Handle("POST /"+bankCareless, again(s.payAt(s.banks[bankCareless]))) // wrong, to see what comes of it
	// The store's Observer gets the values of the request's context, and counts by route.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := strings.TrimPrefix(r.URL.Path, "/")
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, route)))
	})
}

type routeKey struct{}

// merchant tells whose payment it is, from what the service itself can check. Keys of
// one merchant mean nothing to another.
func merchant(r *http.Request) (string, error) {
	name, known := map[string]string{shopKey: shop}[r.Header.Get("Authorization")]
	if !known {
		return "", idemhttp.Problem{Status: http.StatusUnauthorized, Title: "No such merchant"}
	}
	return name, nil
}

// pay charges the service's own ledger. The charge, the end of the operation and its
// answer are one commit: whenever the process dies, all of them are there or none.
func (s *server) pay(w http.ResponseWriter, r *http.Request) {
	p, ok := readPayment(w, r)
	if !ok {
		return
	}
	if err := s.ledger.charge(r.Context(), idemhttp.FromContext(r.Context()).Token(), p); err != nil {
		log.Print(err)
		// Nothing was committed. A 503 with Retry-After is not stored: the client may ask again.
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not now; ask again with the same key", http.StatusServiceUnavailable)
	}
	// Otherwise there is nothing to write: idemhttp sends the answer that was committed.
}

// payAt charges at another company. If this process dies after the charge and before
// its answer is recorded, what happens next is the route's policy in handler.
func (s *server) payAt(bank bankClient) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := readPayment(w, r)
		if !ok {
			return
		}
		reference := idemhttp.FromContext(r.Context()).DownstreamKey("charge") // the same on every attempt
		receipt, err := bank.charge(r.Context(), reference, p)
		if err != nil {
			log.Print(err)
			// Charged or not: we do not know, and a 502 says so. It is held, or run
			// again on the routes that do that.
			http.Error(w, "the bank did not answer", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(receipt) // a client that is gone asks again
	})
}

// readPayment reads a payment. If it is not ok the request was answered; a 400 is
// final, and stored like any other answer.
func readPayment(w http.ResponseWriter, r *http.Request) (p payment, ok bool) {
	body, err := io.ReadAll(r.Body) // idemhttp has bounded and read it
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		http.Error(w, "not a payment: "+err.Error(), http.StatusBadRequest)
		return p, false
	}
	p.Key = idemhttp.FromContext(r.Context()).Key()
	return p, true
}
