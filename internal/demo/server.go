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
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// storeOptions are the server's and the audit's. No other process makes payments, so
// claims that are open when it starts are those of a dead one.
func storeOptions() idem.Options { return idem.Options{LapseOnOpen: true} }

// handler is the example's Handler, and two routes that run the example's Payout under
// other rules, at banks that ignore keys.
func handler(store *idem.Store, l ledger, bankOf func(way string) service.Bank) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", service.Handler(store, l.charge, bankOf(payouts)))
	o := idemhttp.Options{RequireKey: true, Wait: 5 * time.Second}
	mux.Handle("POST /"+held, idemhttp.New(store, idemhttp.GlobalScope, o)(service.Payout(bankOf(held))))
	o.RetryUnknown = true // wrong: nothing makes this payout repeatable
	mux.Handle("POST /"+careless, idemhttp.New(store, idemhttp.GlobalScope, o)(service.Payout(bankOf(careless))))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // the Observer counts by way
		way := strings.TrimPrefix(r.URL.Path, "/")
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), wayKey{}, way)))
	})
}

type wayKey struct{}

// serverMain runs the service until its standard input ends. That is how the supervisor
// stops it, and what happens when the supervisor dies.
//
// It writes "listening <address>", and "<event> <way>" for what the report counts, to its
// standard output at once: a kill loses none of it.
func serverMain(args []string, open opener) int {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	engine := flags.String("engine", "bolt", "bolt, pebble or memory")
	path := flags.String("store", "", "file or directory of the store")
	bankURL := flags.String("banks", "", "URL of the banks")
	start := flags.Int("start", 1, "which start of the server this is")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetPrefix(fmt.Sprintf("server %d: ", *start))
	log.SetFlags(0)
	signal.Ignore(os.Interrupt) // the supervisor hears it too, and stops us
	if err := serve(*engine, *path, *bankURL, *start, open); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func serve(engine, path, bankURL string, start int, open opener) (err error) {
	ended := make(chan error, 3)
	o := storeOptions()
	o.Observer = func(ctx context.Context, e idem.Event) {
		switch e.Kind {
		case idem.ClaimTakeover, idem.ClaimInFlight:
			fmt.Println(e.Kind, ctx.Value(wayKey{}))
		case idem.StoreBroken: // once; only a restart finds out what the disk holds
			ended <- e.Err
		}
	}
	store, l, err := open(engine, path, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	h := handler(store, l, func(way string) service.Bank {
		return bankClient(bankURL+"/"+way, start, way == payouts)
	})
	address, shutdown, err := listen(h, ended)
	if err != nil {
		return err
	}
	fmt.Println("listening", address)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	err = <-ended
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err = errors.Join(err, shutdown(ctx)); err == nil && engine == "memory" {
		err = saveBooks(ctx, path, store, l) // it has no file for the audit to open
	}
	return errors.Join(err, store.Shutdown(ctx))
}

// listen serves h on a port of its own. shutdown waits for the requests under way.
func listen(h http.Handler, failed chan<- error) (address string, shutdown func(context.Context) error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return listener.Addr().String(), func(ctx context.Context) error {
		return errors.Join(server.Shutdown(ctx), server.Close())
	}, nil
}

func saveBooks(ctx context.Context, path string, store *idem.Store, l ledger) error {
	b, err := readBooks(ctx, store, l)
	if err != nil {
		return err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
