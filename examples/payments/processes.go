package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// traffic opens the banks, starts the server, has clients send the payments to some
// routes, and kills and restarts the server until they are done.
func (s *supervisor) traffic(ctx context.Context, name string, payments []payment, to []string, wanted int) (kills int, err error) {
	in := filepath.Join(s.dir, name+".jsonl")
	if err := saveFile(in, payments); err != nil {
		return 0, err
	}
	if err := s.openBanks(); err != nil {
		return 0, err
	}
	if err := s.startServer(ctx); err != nil {
		return 0, err
	}
	s.client, err = startChild(s.onClientLine, "client", "-in", in, "-routes", strings.Join(to, ","),
		"-seed", strconv.FormatUint(s.seed, 10), "-workers", strconv.Itoa(s.workers))
	if err != nil {
		return 0, err
	}
	s.client.tell(s.addr)
	s.orderKill(kills, wanted)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return kills, ctx.Err()
		case <-s.client.ended:
			if s.client.err != nil {
				return kills, fmt.Errorf("the client: %w", s.client.err)
			}
			return kills, nil
		case <-s.server.ended:
			return kills, fmt.Errorf("the server ended by itself: %v", s.server.err)
		case order := <-s.killed:
			kills++
			if err := s.killServer(ctx, kills, order); err != nil {
				return kills, err
			}
			s.orderKill(kills, wanted)
		case <-tick.C:
			s.progress(len(to) * len(payments))
		}
	}
}

// openBanks opens the banks, all under one address.
func (s *supervisor) openBanks() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for route, bank := range s.banks {
		mux.Handle("POST /"+route, bank)
	}
	s.banksURL = "http://" + listener.Addr().String()
	s.bankServer = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go s.bankServer.Serve(listener) // until stop or killAll
	return nil
}

// orderKill orders the next kill: they are spread evenly over the traffic, and go
// round the moments that matter to each bank. Whatever else is under way then, and the
// service's own ledger, is killed at a moment of its own.
func (s *supervisor) orderKill(done, wanted int) {
	if done < wanted {
		order := killOrder{
			server:   s.start,
			route:    bankRoutes[len(bankRoutes)-1-done%len(bankRoutes)],
			payments: len(s.orders) * (done + 1) / (wanted + 1),
			charged:  done/len(bankRoutes)%2 == 0,
		}
		s.banks[order.route].killAt(order)
	}
}

func (s *supervisor) killServer(ctx context.Context, number int, order killOrder) error {
	s.mu.Lock()
	flying := max(s.report.Flying, 1) // the report may be older than the one we know of
	s.mu.Unlock()
	killed := time.Now()
	s.server.kill()
	moment := "it is claimed, and not yet charged"
	if order.charged {
		moment = "the bank has charged, and the server does not know it yet"
	}
	s.say("kill %d of %d: about %d requests under way; of one to %s, %s", number, s.kills, flying, order.route, moment)
	if err := s.startServer(ctx); err != nil {
		return err
	}
	s.client.tell(s.addr)
	s.say("server %d is up after %v", s.start, time.Since(killed).Round(time.Millisecond))
	return nil
}

// startServer starts the server and waits until it listens. It gets a new port
// each time: the old one may have been taken meanwhile.
func (s *supervisor) startServer(ctx context.Context) (err error) {
	s.start++
	listening := make(chan string, 1)
	s.server, err = startChild(func(line string) {
		word, rest, _ := strings.Cut(line, " ")
		if word == "listening" {
			listening <- rest
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events[event{word, rest}]++
	}, "server", "-engine", s.engine, "-db", s.dbPath(), "-banks", s.banksURL, "-start", strconv.FormatUint(s.start, 10))
	if err != nil {
		return err
	}
	select {
	case s.addr = <-listening:
		return nil
	case <-s.server.ended:
		return fmt.Errorf("server %d did not start: %v", s.start, s.server.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *supervisor) dbPath() string { return filepath.Join(s.dir, "payments.db") }

func (s *supervisor) onClientLine(line string) {
	var r report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return // not a report
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = r
}

func (s *supervisor) progress(all int) {
	s.mu.Lock()
	var answered, requests int
	for _, n := range s.report.Counts {
		answered += n.Accepted + n.Held
		requests += n.Requests
	}
	s.mu.Unlock()
	s.say("%d of %d payments answered, %d requests, server %d", answered, all, requests, s.start)
}

// stop has the server end in order, and then closes the banks, which take no more
// orders and have none under way when it returns.
func (s *supervisor) stop(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.server.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			return fmt.Errorf("the server did not stop in order: %w", err)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.bankServer.Shutdown(ctx)
}

// killAll ends what is still running.
func (s *supervisor) killAll() {
	for _, c := range []*child{s.client, s.server} {
		if c != nil {
			c.kill()
		}
	}
	if s.bankServer != nil {
		s.bankServer.Close()
	}
}
