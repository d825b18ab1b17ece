package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/idemkv/idem"
)

// config is what the flags of the supervisor say.
type config struct {
	engine  string
	in      string
	n       int
	seed    uint64
	dir     string
	kills   int
	workers int
	timeout time.Duration
}

// supervisorMain runs the demo and returns its exit status: 0 if every payment
// was charged as it should be, 1 if not, 2 for bad flags, 130 if interrupted.
func supervisorMain(args []string) int {
	var c config
	flags := flag.NewFlagSet("payments", flag.ContinueOnError)
	flags.StringVar(&c.engine, "engine", "bolt", "`engine` of the store: bolt, pebble, or memory, which loses all when killed and so is not")
	flags.StringVar(&c.in, "in", "", "`file` of payments, one JSON object a line (- is standard input); default: generated ones")
	flags.IntVar(&c.n, "n", 4000, "how many payments to generate")
	flags.Uint64Var(&c.seed, "seed", 1, "of the generated payments and of the network's misbehaviour")
	flags.StringVar(&c.dir, "dir", "", "`directory` to work in and leave behind; default: a temporary one, removed at the end")
	flags.IntVar(&c.kills, "kills", 5, "how many times to kill the server")
	flags.IntVar(&c.workers, "workers", 32, "how many payments are under way at once")
	flags.DurationVar(&c.timeout, "timeout", 2*time.Minute, "give up after this long")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "payments kills a payment service in the middle of its work and audits its ledgers.\n\n")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := c.check(flags.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "payments:", err)
		return 2
	}

	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, c.timeout)
	defer cancel()
	ok, err := supervise(ctx, c)
	switch {
	case interrupted.Err() != nil:
		fmt.Fprintln(os.Stderr, "payments: interrupted")
		return 130
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "payments: not finished after %v; send fewer payments (-n) or give it longer (-timeout)\n", c.timeout)
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, "payments:", err)
		return 1
	case !ok:
		return 1
	}
	return 0
}

func (c *config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("what is %q? only flags are expected, see -help", rest[0])
	case c.engine != "bolt" && c.engine != "pebble" && c.engine != "memory":
		return fmt.Errorf("-engine %s: there are bolt, pebble and memory", c.engine)
	case c.n < 1:
		return fmt.Errorf("-n %d: at least one payment is needed", c.n)
	case c.kills < 0:
		return fmt.Errorf("-kills %d: cannot be negative", c.kills)
	case c.workers < 1:
		return fmt.Errorf("-workers %d: at least one is needed", c.workers)
	case c.timeout <= 0:
		return fmt.Errorf("-timeout %v: must be above zero", c.timeout)
	}
	if c.engine == "memory" {
		c.kills = 0
	}
	return nil
}

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
	s := &supervisor{config: c, began: time.Now(), remote: newRemoteLedger(), takeovers: make(map[string]int)}
	return s.run(ctx, payments)
}

// payments reads the input, naming each line it skips, or generates it.
func (c config) payments() ([]payment, error) {
	if c.in == "" {
		return generate(c.n, c.seed), nil
	}
	in, name := os.Stdin, "standard input"
	if c.in != "-" {
		f, err := os.Open(c.in)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, c.in
	}
	payments, bad, err := readPayments(in)
	for _, b := range bad {
		fmt.Fprintf(os.Stderr, "%s, line %d: skipped: %v\n", name, b.line, b.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(payments) == 0 {
		return nil, fmt.Errorf("%s has no payment; a line looks like {\"key\":\"order-1\",\"account\":\"alice\",\"amount_cents\":1999}", name)
	}
	fmt.Printf("%s: %d payments read, %d bad lines skipped\n", name, len(payments), len(bad))
	return payments, nil
}

// makeEmpty makes the directory and refuses one that has anything in it: payments
// of an earlier run would be in the ledger, and not in the audit.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("-dir %s is not empty; give a new one", dir)
	}
	return err
}

// supervisor keeps server and client going.
type supervisor struct {
	config
	began   time.Time
	orders  []order
	routeOf map[string]string // of a key, by its hash
	remote  *remoteLedger
	url     string // of the remote ledger

	server *child
	addr   string // of the server
	start  uint64 // how often the server was started
	client *child

	mu        sync.Mutex
	report    report         // the client's latest
	takeovers map[string]int // by route
}

func (s *supervisor) run(ctx context.Context, payments []payment) (ok bool, err error) {
	s.orders = orders(payments)
	s.routeOf = routesByHash(s.orders)
	s.say("engine %s, %d payments on each of two routes, %d at once, %d kills to come",
		s.engine, len(s.orders), s.workers, s.kills)
	if s.engine == "memory" {
		s.say("a memory store loses all when it is killed: no kills")
	}
	in := filepath.Join(s.dir, "payments.jsonl")
	if err := saveFile(in, payments); err != nil {
		return false, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return false, err
	}
	s.url = "http://" + listener.Addr().String()
	h := &http.Server{Handler: s.remote, ReadHeaderTimeout: 10 * time.Second}
	go h.Serve(listener) // until Close
	defer h.Close()

	defer s.killAll()
	if err := s.startServer(ctx); err != nil {
		return false, err
	}
	s.client, err = startChild(s.onClientLine, "client", "-in", in,
		"-seed", strconv.FormatUint(s.seed, 10), "-workers", strconv.Itoa(s.workers))
	if err != nil {
		return false, err
	}
	s.client.tell("http://" + s.addr)
	kills, err := s.watch(ctx)
	if err != nil {
		return false, err
	}
	return s.finish(ctx, kills)
}

// watch kills and restarts the server until the client is done.
func (s *supervisor) watch(ctx context.Context) (kills int, err error) {
	s.orderKill(kills)
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
		case order := <-s.remote.killed:
			kills++
			if err := s.killServer(ctx, kills, order); err != nil {
				return kills, err
			}
			s.orderKill(kills)
		case <-tick.C:
			s.progress()
		}
	}
}

// orderKill orders the next kill: they are spread evenly over the traffic, and
// alternate between the two moments that matter to the remote route. Whatever
// else is under way then is killed at a moment of its own.
func (s *supervisor) orderKill(done int) {
	if done < s.kills {
		s.remote.killAt(killOrder{
			payments: len(s.orders) * (done + 1) / (s.kills + 1),
			charged:  done%2 == 0,
		})
	}
}

func (s *supervisor) killServer(ctx context.Context, number int, order killOrder) error {
	s.mu.Lock()
	flying := max(s.report.Flying, 1) // the report may be older than the one we know of
	s.mu.Unlock()
	killed := time.Now()
	s.server.kill()
	moment := "claimed, and not yet charged"
	if order.charged {
		moment = "charged by the remote ledger, and not yet known to the server"
	}
	s.say("kill %d of %d, about %d requests under way, one of them %s", number, s.kills, flying, moment)
	if err := s.startServer(ctx); err != nil {
		return err
	}
	s.client.tell("http://" + s.addr)
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
		switch word {
		case "listening":
			listening <- rest
		case "takeover":
			s.mu.Lock()
			s.takeovers[s.routeOf[rest]]++
			s.mu.Unlock()
		}
	}, "server", "-engine", s.engine, "-db", s.dbPath(), "-remote", s.url, "-start", strconv.FormatUint(s.start, 10))
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

// routesByHash tells the route of a key from its hash, which is all that a store
// says of keys to an observer.
func routesByHash(orders []order) map[string]string {
	m := make(map[string]string)
	for _, o := range orders {
		for _, route := range routes {
			m[idem.KeyHash(storeKey(route, o.Key))] = route
		}
	}
	return m
}

func (s *supervisor) onClientLine(line string) {
	var r report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return // not a report
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = r
}

func (s *supervisor) progress() {
	s.mu.Lock()
	var accepted, requests int
	for _, n := range s.report.Counts {
		accepted += n.Accepted
		requests += n.Requests
	}
	s.mu.Unlock()
	s.say("%d of %d payments done, %d requests, server %d", accepted, len(routes)*len(s.orders), requests, s.start)
}

// say prints a line of progress.
func (s *supervisor) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// finish stops the server, audits, and prints what came of it.
func (s *supervisor) finish(ctx context.Context, kills int) (ok bool, err error) {
	if kills < s.kills {
		s.say("only %d of %d kills: the traffic was over before the next; send more payments (-n)", kills, s.kills)
	}
	s.say("all answered; auditing")
	b, err := s.books(ctx)
	if err != nil {
		return false, err
	}
	want := make([]payment, len(s.orders))
	for i, o := range s.orders {
		want[i] = o.payment
	}
	remote := s.remote.books()
	r := result{
		payments: len(want), kills: kills, wanted: s.kills, stale: remote.stale,
		counts: s.report.Counts, takeovers: s.takeovers,
		audit: auditAll(want, b, remote),
	}
	r.print(os.Stdout)
	trouble := append(r.audit.trouble, s.report.Trouble...)
	if len(trouble) > 0 {
		printTrouble(os.Stderr, trouble)
		return false, nil
	}
	fmt.Println("OK: every payment is charged once, in the same-commit ledger and in the remote one.")
	return true, nil
}

// books stops the server and reads its database, or asks it first if it has none.
func (s *supervisor) books(ctx context.Context) (b books, err error) {
	if s.engine == "memory" {
		if b, err = s.askBooks(ctx); err != nil {
			return b, fmt.Errorf("the server's books: %w", err)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.server.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			return b, fmt.Errorf("the server did not stop in order: %w", err)
		}
	case <-ctx.Done():
		return b, ctx.Err()
	}
	if s.engine == "memory" {
		return b, nil
	}
	store, ledger, err := openLedger(s.engine, s.dbPath(), storeOptions())
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return readBooks(ctx, store, ledger)
}

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
		return b, fmt.Errorf("%s: %s", resp.Status, text)
	}
	return b, json.NewDecoder(resp.Body).Decode(&b)
}

// killAll ends what is still running.
func (s *supervisor) killAll() {
	for _, c := range []*child{s.client, s.server} {
		if c != nil {
			c.kill()
		}
	}
}

func saveFile(name string, payments []payment) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return writePayments(f, payments)
}
