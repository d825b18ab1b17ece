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

// serverMain runs the service until its standard input ends, which is how the
// supervisor stops it, and what happens if the supervisor dies.
//
// It writes "listening <address>", and "<event> <key hash>" for each takeover and for
// each duplicate of a payment in flight, to its standard output at once, so that a kill
// loses none of it.
func serverMain(args []string, open opener) int {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	engine := flags.String("engine", "bolt", "bolt, pebble or memory")
	path := flags.String("db", "payments.db", "file or directory of the store")
	banks := flags.String("banks", "", "URL of the banks")
	start := flags.Uint64("start", 1, "which start of the server this is")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetPrefix(fmt.Sprintf("server %d: ", *start))
	log.SetFlags(0)
	signal.Ignore(os.Interrupt) // the supervisor hears it too, and stops us
	if err := serve(*engine, *path, *banks, *start, open); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func serve(engine, path, banksURL string, start uint64, open opener) (err error) {
	o := storeOptions()
	broken := make(chan error, 1)
	o.Observer = func(ctx context.Context, e idem.Event) {
		switch e.Kind {
		case idem.ClaimTakeover, idem.ClaimInFlight:
			fmt.Println(e.Kind, ctx.Value(routeKey{}))
		case idem.StoreBroken: // comes once
			broken <- e.Err
		}
	}
	store, ledger, err := open(engine, path, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	s := &server{store: store, ledger: ledger, banks: make(map[string]bankClient)}
	for _, route := range bankRoutes {
		s.banks[route] = newBankClient(banksURL+"/"+route, start, route == bankWithKeys)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler())
	if engine == "memory" {
		mux.HandleFunc("GET /books", s.serveBooks)
	}
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
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
	ctx, cancel := context.WithTimeout(context.Background(), bankTimeout)
	defer cancel()
	return errors.Join(h.Shutdown(ctx), store.Shutdown(ctx))
}

// serveBooks shows ledger and records to the audit. Only the memory engine needs
// it: the files of the others are opened by the audit itself.
func (s *server) serveBooks(w http.ResponseWriter, r *http.Request) {
	b, err := readBooks(r.Context(), s.store, s.ledger)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(b) // the audit sees an answer that is cut off
}
