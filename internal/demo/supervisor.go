package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
)

// supervisor keeps the service running, kills it, and has the clients and the banks.
type supervisor struct {
	config
	began    time.Time
	path     string // of the store
	payments []service.Payment
	tally    *tally
	network  *network

	banks   map[string]*bank // by way
	bankURL string
	killed  chan killOrder // the banks' sign
	failed  chan error     // the banks' server

	server *child
	starts int // of the server
}

// supervise runs the whole demo. ok is the verdict.
func supervise(ctx context.Context, c config) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "idem-demo-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t := newTally()
	s := &supervisor{
		config: c, began: time.Now(), path: filepath.Join(dir, "payments.db"),
		payments: generate(c.n, c.seed), tally: t, network: newNetwork(t),
		banks: make(map[string]*bank), killed: make(chan killOrder, 1), failed: make(chan error, 2),
	}
	for _, way := range banks {
		s.banks[way] = newBank(way == payouts, s.killed)
	}
	return s.run(ctx)
}

func (s *supervisor) run(ctx context.Context) (ok bool, err error) {
	s.say("engine %s, %d payments in each of %d ways, %d at once, %d kills to come", s.engine, s.n, len(ways), workers, s.kills)
	kills, err := s.traffic(ctx, s.payments, ways, s.kills)
	if err != nil {
		return false, err
	}
	if kills < s.kills {
		s.say("only %d of %d kills: the traffic was over before the next; make more payments (-n)", kills, s.kills)
	}
	done, err := s.settleHeld(ctx)
	if err != nil {
		return false, fmt.Errorf("settling: %w", err)
	}
	s.say("auditing")
	b, err := s.readBooks(ctx)
	if err != nil {
		return false, fmt.Errorf("auditing: %w", err)
	}
	var audits []*audit
	trouble := s.tally.trouble
	for _, way := range ways {
		ledger, overlaps := b.Ledger, 0
		if bank := s.banks[way]; bank != nil {
			ledger, overlaps = bank.books()
		}
		a := check(way, s.payments, ledger, b.Records)
		if overlaps > 0 {
			a.complain("two requests were at one payment, %d times: two owners of one claim", overlaps)
		}
		audits, trouble = append(audits, a), append(trouble, a.trouble...)
	}
	report(os.Stdout, s.tally, kills, s.n, done, audits)
	if len(trouble) > 0 {
		printTrouble(os.Stderr, trouble)
		return false, nil
	}
	fmt.Println("OK: no payment was lost, and none was made twice in a way that promises it.")
	return true, nil
}

// traffic opens the banks and the service, has the clients make payments, and kills and
// restarts the service until they are done. Then it ends the service, and the banks last:
// they take no more orders and have none under way when it returns.
func (s *supervisor) traffic(ctx context.Context, payments []service.Payment, to []string, wanted int) (kills int, err error) {
	mux := http.NewServeMux()
	for way, bank := range s.banks {
		mux.Handle("POST /"+way, bank)
	}
	address, closeBanks, err := listen(mux, s.failed)
	if err != nil {
		return 0, err
	}
	s.bankURL = "http://" + address
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { err = errors.Join(err, closeBanks(ctx)) }()
	if err := s.startServer(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stopServer(ctx)) }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		newClients(s.network).sendAll(ctx, payments, to, s.seed)
	}()
	answered := func() int { return s.tally.get(accepted, to...) + s.tally.get(outcomeHeld, to...) }
	before := answered()
	s.orderKill(kills, wanted)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return kills, ctx.Err()
		case err := <-s.failed:
			return kills, fmt.Errorf("the banks: %w", err)
		case <-s.server.ended:
			return kills, fmt.Errorf("the server ended unasked: %v", s.server.err)
		case order := <-s.killed:
			kills++
			if err := s.killServer(ctx, kills, order); err != nil {
				return kills, err
			}
			s.orderKill(kills, wanted)
		case <-tick.C:
			s.say("%d of %d payments answered, server %d", answered()-before, len(to)*len(payments), s.starts)
		case <-done:
			return kills, nil
		}
	}
}

// orderKill orders the next kill. The kills are spread evenly over the traffic, and go
// round the banks and their moments. The service's own ledger is killed wherever it is.
func (s *supervisor) orderKill(done, wanted int) {
	if done == wanted {
		return
	}
	way := banks[len(banks)-1-done%len(banks)]
	s.banks[way].killAt(killOrder{
		way: way, server: s.starts, arrived: s.n * (done + 1) / (wanted + 1), paid: done/len(banks)%2 == 0,
	})
}

func (s *supervisor) killServer(ctx context.Context, number int, order killOrder) error {
	flying, killed := s.network.flying.Load(), time.Now()
	s.server.kill()
	moment := "claimed and not yet made"
	if order.paid {
		moment = "made and not yet recorded"
	}
	s.say("kill %d of %d: %d requests under way, one of %s %s", number, s.kills, flying, order.way, moment)
	if err := s.startServer(ctx); err != nil {
		return err
	}
	s.say("server %d is up after %v", s.starts, time.Since(killed).Round(time.Millisecond))
	return nil
}

// startServer starts the service, waits until it listens and leads the network there. It
// gets a new port each time, because the old one may be taken.
func (s *supervisor) startServer(ctx context.Context) error {
	s.starts++
	listening := make(chan string, 1)
	server, err := startChild(func(line string) {
		word, rest, _ := strings.Cut(line, " ")
		if word == "listening" {
			listening <- rest
			return
		}
		s.tally.count(word, rest)
	}, "server", "-engine", s.engine, "-store", s.path, "-banks", s.bankURL, "-start", strconv.Itoa(s.starts))
	if err != nil {
		return err
	}
	select {
	case address := <-listening:
		s.server = server
		s.network.leadTo(address)
		return nil
	case <-server.ended:
		return fmt.Errorf("server %d did not start: %v", s.starts, server.err)
	case <-ctx.Done():
		server.kill()
		return ctx.Err()
	}
}

// stopServer has the server end in order, or kills it when ctx ends.
func (s *supervisor) stopServer(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.server.kill)
	defer stop()
	if err := s.server.stop(); err != nil {
		return fmt.Errorf("the server did not end in order: %w", err)
	}
	return nil
}

// settleHeld resolves the payouts that are held, and has their clients ask again.
func (s *supervisor) settleHeld(ctx context.Context) (done settled, err error) {
	if s.engine == "memory" {
		return done, nil // it was not killed, and its records are gone
	}
	store, _, err := openStore(s.engine, s.path, storeOptions())
	if err != nil {
		return done, err
	}
	done, err = settle(ctx, store, s.banks[held].statement()) // final: the banks are closed
	if err := errors.Join(err, store.Close()); err != nil || done.total() == 0 {
		return done, err
	}
	s.say("%d payments are held, their outcome unknown; the bank's statement has %d of them: settled", done.total(), len(done.paid))
	heard := s.tally.get(outcomeHeld, held)
	if heard != done.total() {
		s.tally.complain("%s: %d payments were held, clients heard of %d", held, done.total(), heard)
	}
	var again []service.Payment
	for _, p := range s.payments {
		if key := storeKey(held, p.ID); slices.Contains(done.paid, key) || slices.Contains(done.never, key) {
			again = append(again, p)
		}
	}
	if _, err := s.traffic(ctx, again, []string{held}, 0); err != nil {
		return done, err
	}
	if n := s.tally.get(outcomeHeld, held) - heard; n > 0 {
		s.tally.complain("%s: %d payments are held again, though they were settled", held, n)
	}
	s.say("their clients have asked again")
	return done, nil
}

// readBooks reads what the server has left.
func (s *supervisor) readBooks(ctx context.Context) (b books, err error) {
	if s.engine == "memory" {
		text, err := os.ReadFile(s.path)
		if err != nil {
			return b, err
		}
		return b, json.Unmarshal(text, &b)
	}
	store, l, err := openStore(s.engine, s.path, idem.Options{})
	if err != nil {
		return b, err
	}
	b, err = readBooks(ctx, store, l)
	return b, errors.Join(err, store.Close())
}

// say prints a line of progress.
func (s *supervisor) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}
