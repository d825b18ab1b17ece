package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
)

// client sends payments and behaves like networks do; see network.go.
type client struct {
	server atomic.Pointer[string] // base URL, changes when the server is restarted
	http   *http.Client

	mu     sync.Mutex
	report report
}

// counts are of one route. Requests is the sum of the seven after it.
type counts struct {
	Requests   int
	Made       int // 201, the payment was made now
	Replayed   int // 201, it had been made before
	InFlight   int // 409
	Mismatched int // 422
	NotNow     int // 503
	Dropped    int // the client hung up before the answer
	Unanswered int // no connection, or the server died under it

	Retries  int // of the requests: sent again for want of a final answer
	Accepted int // payments that are done
}

// answer is what came back for a request.
type answer struct {
	status   int
	replayed bool
	body     []byte
}

// deliver sends p until it gets an answer that will not change, always with the
// same key. It hangs up on the first answer if drop is set. It fails only with ctx.
func (c *client) deliver(ctx context.Context, route string, p payment, drop bool) (answer, error) {
	for try := 0; ; try++ {
		if try > 0 {
			c.count(route, func(n *counts) { n.Retries++ })
		}
		a, err := c.send(ctx, route, p, drop && try == 0)
		if err == nil && (a.status == http.StatusCreated || a.status == http.StatusUnprocessableEntity) {
			return a, nil
		}
		if err == nil && a.status == http.StatusBadRequest {
			return a, fmt.Errorf("400: %s", a.body)
		}
		// Retry-After counts in seconds, too coarse for payments that take
		// milliseconds; back off by ourselves, with jitter.
		backoff := rand.N(min(10*time.Millisecond<<min(try, 6), 300*time.Millisecond))
		select {
		case <-ctx.Done():
			return answer{}, ctx.Err()
		case <-time.After(backoff):
		}
	}
}

// send sends p once.
func (c *client) send(ctx context.Context, route string, p payment, drop bool) (answer, error) {
	c.fly(1)
	defer c.fly(-1)
	if drop {
		err := c.sendAndHangUp(ctx, route, p)
		c.count(route, func(n *counts) { n.Requests++; n.Dropped++ })
		return answer{}, err
	}
	a, err := c.exchange(ctx, route, p)
	c.count(route, func(n *counts) {
		n.Requests++
		switch {
		case err != nil:
			n.Unanswered++
		case a.status == http.StatusCreated && a.replayed:
			n.Replayed++
		case a.status == http.StatusCreated:
			n.Made++
		case a.status == http.StatusConflict:
			n.InFlight++
		case a.status == http.StatusUnprocessableEntity:
			n.Mismatched++
		default:
			n.NotNow++
		}
	})
	return a, err
}

func (c *client) exchange(ctx context.Context, route string, p payment) (answer, error) {
	body, err := json.Marshal(map[string]any{"account": p.Account, "amount_cents": p.Cents})
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *c.server.Load()+"/"+route, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.GetBody = nil // or the transport resends by itself, uncounted
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", p.Key)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, replayed: resp.Header.Get("Idempotent-Replayed") == "true"}
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// report is what the client tells the supervisor, one JSON object a line.
type report struct {
	Counts  map[string]*counts // by route
	Flying  int                // requests under way
	Trouble []string           // what must not happen and did
}

func (c *client) count(route string, f func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.report.Counts[route])
}

func (c *client) fly(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Flying += n
}

// complain notes what must not happen.
func (c *client) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Trouble) < maxTrouble {
		c.report.Trouble = append(c.report.Trouble, fmt.Sprintf(format, args...))
	}
}

func (c *client) writeReport(w io.Writer) error {
	c.mu.Lock()
	b, err := json.Marshal(c.report)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// clientMain sends the payments of a file. It reads the server's URL from its
// standard input, again whenever it changes, and ends when that ends.
func clientMain(args []string) int {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	in := flags.String("in", "", "payments, as JSON lines")
	seed := flags.Uint64("seed", 1, "of the network's misbehaviour")
	workers := flags.Int("workers", 32, "payments under way at once")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetPrefix("client: ")
	log.SetFlags(0)
	signal.Ignore(os.Interrupt) // the supervisor hears it too, and stops us
	if err := sendFile(*in, *seed, *workers); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func sendFile(in string, seed uint64, workers int) error {
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

	c := newClient()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	known := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for first := true; lines.Scan(); first = false {
			url := lines.Text()
			c.server.Store(&url)
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
		c.sendAll(ctx, orders(payments), seed, workers)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.writeReport(os.Stdout); err != nil {
				return err
			}
		case <-done:
			return c.writeReport(os.Stdout)
		}
	}
}

func newClient() *client {
	c := &client{
		http: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 200},
		},
		report: report{Counts: make(map[string]*counts)},
	}
	for _, route := range routes {
		c.report.Counts[route] = new(counts)
	}
	return c
}
