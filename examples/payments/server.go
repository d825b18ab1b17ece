package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/idemkv/idem"
)

const (
	// lease is how long a claim of the remote route may stay in flight. The call
	// made under it ends well before, so that it needs no heartbeat; work that may
	// take longer calls Store.Extend while it runs, as idem.Do does by itself.
	lease       = 10 * time.Second
	callTimeout = 3 * time.Second
)

// server is the payment service.
type server struct {
	store  *idem.Store
	ledger ledger
	remote remoteClient
}

// storeOptions are the same for the server and for the audit.
func storeOptions() idem.Options {
	return idem.Options{
		Lease: lease,
		// This process is the only one that runs payments. Whoever held a claim
		// when it starts is dead, and its payment need not wait for the lease.
		LapseOnOpen: true,
	}
}

func (s *server) routes(engine string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /"+sameCommit, s.pay)
	mux.HandleFunc("POST /"+overNetwork, s.payRemote)
	if engine == "memory" {
		mux.HandleFunc("GET /books", s.serveBooks)
	}
	return mux
}

// pay charges the ledger in the database itself. Claim, charge and completion are
// one commit: whenever the process dies, all of it is there or none.
func (s *server) pay(w http.ResponseWriter, r *http.Request) {
	p, req, ok := readRequest(w, r, sameCommit)
	if !ok {
		return
	}
	// The client's impatience may cancel this: what is not committed is undone.
	receipt, replayed, err := s.ledger.charge(r.Context(), req, p)
	respond(w, receipt, replayed, err)
}

// payRemote charges a ledger over the network. The claim sees to it that one
// attempt runs at a time; if the process dies between the charge and Complete,
// the next attempt charges again, and only the ledger can tell, by the derived key.
func (s *server) payRemote(w http.ResponseWriter, r *http.Request) {
	p, req, ok := readRequest(w, r, overNetwork)
	if !ok {
		return
	}
	claim, err := s.store.Claim(r.Context(), req)
	if errors.Is(err, idem.ErrCompleted) {
		respond(w, claim.Record.Result, true, nil)
		return
	}
	if err != nil { // in flight, another payment, …: not ours to run
		respond(w, nil, false, err)
		return
	}
	// Ours. The client may leave now; what happens must be recorded all the same.
	ctx := context.WithoutCancel(r.Context())
	receipt, err := s.callRemote(ctx, claim.Token, p)
	if err == nil {
		err = s.store.Complete(ctx, claim.Token, receipt)
	}
	respond(w, receipt, false, err)
}

func (s *server) callRemote(ctx context.Context, t idem.Token, p payment) ([]byte, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	receipt, err := s.remote.charge(callCtx, idem.DownstreamKey(t.Key, "charge"), t.Fence, p)
	if err != nil {
		// Charged or not: unknown. This ledger knows the key again, so the next
		// attempt may simply ask it. Without that, Hold is the honest answer.
		return nil, errors.Join(err, s.store.Release(ctx, t))
	}
	return receipt, nil
}

// readRequest reads a payment and what to claim for it. If it is not ok the
// request was answered.
func readRequest(w http.ResponseWriter, r *http.Request, route string) (p payment, req idem.Request, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLine))
	if err != nil {
		problem(w, http.StatusBadRequest, "the body could not be read")
		return p, req, false
	}
	if err := json.Unmarshal(body, &p); err != nil {
		problem(w, http.StatusBadRequest, "the body is not a payment in JSON")
		return p, req, false
	}
	p.Key = r.Header.Get("Idempotency-Key")
	if err := p.check(); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return p, req, false
	}
	return p, idem.Request{
		Key:         storeKey(route, p.Key),
		Fingerprint: idem.FingerprintOf(body),
	}, true
}

// respond turns the outcome of a payment into its answer.
func respond(w http.ResponseWriter, receipt []byte, replayed bool, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		if replayed {
			w.Header().Set("Idempotent-Replayed", "true")
		}
		w.WriteHeader(http.StatusCreated)
		w.Write(receipt) // a client that is gone asks again
	case errors.Is(err, idem.ErrMismatch):
		problem(w, http.StatusUnprocessableEntity, "this key was used for another payment")
	case errors.Is(err, idem.ErrInFlight):
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusConflict, "this payment is being made; ask again")
	default:
		// Cancelled, store closing or full, ledger away, claim lost: the payment
		// may or may not be made, and asking again with the same key is right.
		if !errors.Is(err, context.Canceled) && !errors.Is(err, idem.ErrClosed) {
			log.Print(err)
		}
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusServiceUnavailable, "not now; ask again with the same key")
	}
}

// problem answers with an RFC 9457 problem.
func problem(w http.ResponseWriter, status int, title string) {
	b, _ := json.Marshal(map[string]any{"status": status, "title": title}) // cannot fail
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b)
}

// serveBooks shows ledger and records to the audit. Only the memory engine needs
// it: the files of the others are opened by the audit itself.
func (s *server) serveBooks(w http.ResponseWriter, r *http.Request) {
	b, err := readBooks(r.Context(), s.store, s.ledger)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(b) // the audit sees an answer that is cut off
}

// serverMain runs the service until its standard input ends, which is how the
// supervisor stops it, and what happens if the supervisor dies.
//
// It writes "listening <address>" and, for each takeover, "takeover <key hash>"
// to its standard output at once, so that a kill loses none of it.
func serverMain(args []string, open opener) int {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	engine := flags.String("engine", "bolt", "bolt, pebble or memory")
	path := flags.String("db", "payments.db", "file or directory of the store")
	remote := flags.String("remote", "", "URL of the remote ledger")
	start := flags.Uint64("start", 1, "which start of the server this is")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetPrefix(fmt.Sprintf("server %d: ", *start))
	log.SetFlags(0)
	signal.Ignore(os.Interrupt) // the supervisor hears it too, and stops us
	if err := serve(*engine, *path, *remote, *start, open); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func serve(engine, path, remote string, start uint64, open opener) (err error) {
	o := storeOptions()
	broken := make(chan error, 1)
	o.Observer = func(e idem.Event) {
		switch e.Kind {
		case idem.ClaimTakeover:
			fmt.Println("takeover", e.KeyHash)
		case idem.StoreBroken: // comes once
			broken <- e.Err
		}
	}
	store, ledger, err := open(engine, path, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	s := &server{
		store: store, ledger: ledger,
		remote: remoteClient{url: remote, server: start, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s.routes(engine), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	fmt.Println("listening", listener.Addr())

	stdinEnded := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stdinEnded)
	}()
	select {
	case err := <-served:
		return err
	case err := <-broken:
		return err // only opening the store again finds out what the disk holds: start anew
	case <-stdinEnded:
	}
	// First no more requests, then no more claims, then the files.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(h.Shutdown(ctx), store.Shutdown(ctx))
}
