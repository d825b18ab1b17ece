package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"
)

// clientMain sends the payments of a file. It reads the server's address from its
// standard input, again whenever it changes, and ends when that ends. It writes
// reports to its standard output.
func clientMain(args []string) int {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	in := flags.String("in", "", "payments, as JSON lines")
	to := flags.String("routes", strings.Join(routes, ","), "where to send them")
	seed := flags.Uint64("seed", 1, "of the network's misbehaviour")
	workers := flags.Int("workers", 32, "payments under way at once")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetPrefix("client: ")
	log.SetFlags(0)
	signal.Ignore(os.Interrupt) // the supervisor hears it too, and stops us
	if err := sendFile(*in, strings.Split(*to, ","), *seed, *workers); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func sendFile(in string, to []string, seed uint64, workers int) error {
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	payments, bad, err := readPayments(f)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s:%d: %w", in, bad[0].line, bad[0].err)
	}

	counts := newCounters()
	network := newNetwork(counts)
	t := &traffic{newClient("http://payments", network), counts}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	known := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for first := true; lines.Scan(); first = false {
			address := lines.Text()
			network.server.Store(&address)
			if first {
				close(known)
			}
		}
		cancel() // the supervisor is gone
	}()
	select {
	case <-known:
	case <-ctx.Done():
		return ctx.Err()
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		t.sendAll(ctx, orders(payments), to, seed, workers)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := counts.write(os.Stdout); err != nil {
				return err
			}
		case <-done:
			return counts.write(os.Stdout)
		}
	}
}
