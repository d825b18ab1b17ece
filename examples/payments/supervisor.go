package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/idemkv/idem"
)

// supervisor runs the demo: it keeps the service and its clients going, and the banks.
type supervisor struct {
	config
	began  time.Time
	orders []order

	banks      map[string]*bank // by route
	bankServer *http.Server
	banksURL   string
	killed     chan killOrder // the banks' sign

	server *child
	addr   string // of the server
	start  uint64 // how often the server was started
	client *child

	mu     sync.Mutex
	report report        // the clients' latest
	events map[event]int // that the server told of
}

// event is an idem.EventKind, by name, on a route.
type event struct{ kind, route string }

// supervise runs the whole demo; ok is the verdict.
func supervise(ctx context.Context, c config) (ok bool, err error) {
	payments, err := c.payments()
	if err != nil {
		return false, err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "idem-payments-"); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	} else if err := makeEmpty(c.dir); err != nil {
		return false, err
	}
	s := &supervisor{
		config: c, began: time.Now(), orders: orders(payments),
		banks: make(map[string]*bank), killed: make(chan killOrder, 1),
		report: newReport(), events: make(map[event]int),
	}
	for _, route := range bankRoutes {
		s.banks[route] = newBank(route == bankWithKeys, s.killed)
	}
	defer s.killAll()
	return s.run(ctx, payments)
}

func (s *supervisor) run(ctx context.Context, payments []payment) (ok bool, err error) {
	s.say("engine %s, %d payments in each of %d ways, %d at once, %d kills to come",
		s.engine, len(s.orders), len(routes), s.workers, s.kills)
	if s.engine == "memory" {
		s.say("a memory store loses all when it is killed: no kills")
	}
	kills, err := s.traffic(ctx, "payments", payments, routes, s.kills)
	if err != nil {
		return false, err
	}
	if kills < s.kills {
		s.say("only %d of %d kills: the traffic was over before the next; send more payments (-n)", kills, s.kills)
	}
	r := result{payments: len(s.orders), kills: kills, wanted: s.kills, counts: s.report.Counts}
	trouble := slices.Clone(s.report.Trouble)
	var b books
	if b, r.settled, err = s.close(ctx); err != nil {
		return false, err
	}
	if heard, held := r.counts[bankHeld].Held, r.settled.total(); heard != held {
		trouble = append(trouble, fmt.Sprintf("%s: %d payments were held, clients heard of %d", bankHeld, held, heard))
	}
	if r.settled.total() > 0 {
		trouble = append(trouble, s.report.Trouble...) // of those who asked again
	}

	want := make([]payment, len(s.orders))
	for i, o := range s.orders {
		want[i] = o.payment
	}
	at := make(map[string]bankBooks)
	for route, bank := range s.banks {
		at[route] = bank.books()
	}
	r.events, r.audit = s.events, auditAll(want, b, at)
	r.print(os.Stdout)
	if trouble = append(trouble, r.audit.trouble...); len(trouble) > 0 {
		printTrouble(os.Stderr, trouble)
		return false, nil
	}
	fmt.Println("OK: every payment is charged once, on each route that promises it.")
	return true, nil
}

// close stops everything, sees to what is held, and returns the books.
func (s *supervisor) close(ctx context.Context) (b books, done settled, err error) {
	if s.engine == "memory" { // gone with the server
		if b, err = s.askBooks(ctx); err == nil {
			err = s.stop(ctx)
		}
		return b, done, err
	}
	if err := s.stop(ctx); err != nil {
		return b, done, err
	}
	err = s.withStore(func(store *idem.Store, _ ledger) (err error) {
		statement, err := s.banks[bankHeld].statement() // final: the bank is closed
		if err == nil {
			done, err = settle(ctx, store, statement)
		}
		return err
	})
	if err != nil {
		return b, done, fmt.Errorf("settling: %w", err)
	}
	if done.total() > 0 {
		s.say("%d payments are held, their outcome unknown; the bank's statement has %d of them: settled", done.total(), len(done.charged))
		if err := s.askAgain(ctx, done); err != nil {
			return b, done, err
		}
	}
	s.say("auditing")
	err = s.withStore(func(store *idem.Store, l ledger) (err error) {
		b, err = readBooks(ctx, store, l)
		return err
	})
	return b, done, err
}

// askAgain has the clients of payments that were held ask for them again.
func (s *supervisor) askAgain(ctx context.Context, done settled) error {
	var again []payment
	for _, o := range s.orders {
		key := storeKey(bankHeld, o.Key)
		if slices.Contains(done.charged, key) || slices.Contains(done.never, key) {
			again = append(again, o.payment)
		}
	}
	s.report = newReport() // nobody else is there
	if _, err := s.traffic(ctx, "held", again, []string{bankHeld}, 0); err != nil {
		return err
	}
	s.say("their clients have asked again: %d done", s.report.Counts[bankHeld].Accepted)
	return s.stop(ctx)
}

// withStore opens the server's database once the server has left it.
func (s *supervisor) withStore(f func(*idem.Store, ledger) error) (err error) {
	store, ledger, err := openLedger(s.engine, s.dbPath(), storeOptions())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return f(store, ledger)
}

// askBooks asks a server for its books.
func (s *supervisor) askBooks(ctx context.Context) (b books, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/books", nil)
	if err != nil {
		return b, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return b, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxLine))
		return b, fmt.Errorf("the server's books: %s: %s", resp.Status, text)
	}
	return b, json.NewDecoder(resp.Body).Decode(&b)
}

// say prints a line of progress.
func (s *supervisor) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}
