package idemhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/faultproxy"
)

// charge is what clients ask for, and slip what they get.
type charge struct {
	Op, Nonce string
	Pad       []byte
}

type slip struct {
	Op, Nonce string
	Number    uint64
	Pad       []byte
}

// tally counts what happened.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
	all    uint64
}

// add returns the sum of all that was counted.
func (c *tally) add(what string, n int) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what] += n
	c.all += uint64(n)
	return c.all
}

// service charges once for each run, and counts the charges of each operation. It takes its
// time, and now and then turns a request away before it has done anything.
type service struct {
	effects tally
	runs    tally
	serial  atomic.Uint64
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c charge
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.runs.add("runs of the handler", 1)
	rng := rand.New(rand.NewPCG(seedOf(c.Op), s.serial.Add(1)))
	if rng.IntN(20) == 0 {
		s.runs.add("turned away by it (503)", 1)
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	switch rng.IntN(12) { // some outlast the patience of a try
	case 0:
		time.Sleep(time.Duration(rng.IntN(250)) * time.Millisecond)
	case 1, 2, 3:
		time.Sleep(time.Duration(rng.IntN(4000)) * time.Microsecond)
	}
	number := s.effects.add(c.Op, 1)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(slip{c.Op, c.Nonce, number, c.Pad})
}

func seedOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}

// statuses counts what a server answered, whoever heard it.
func statuses(next http.Handler, c *tally) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		c.add("answers of the server", 1)
		c.add(fmt.Sprint("… of status ", rec.status), 1)
		if w.Header().Get("Idempotent-Replayed") != "" {
			c.add("… replayed", 1)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.Header().Del("Retry-After") // a second is long for what takes milliseconds
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Through a network that drops, cuts, delays and reorders, each operation has its
// effect exactly once, and each client gets the answer of its own. More
// operations: IDEM_ROBUSTNESS_OPS=10000 go test -run TestProxy -v ./idemhttp
func TestProxy(t *testing.T) {
	t.Parallel()
	ops, seed := fromEnv(t, "IDEM_ROBUSTNESS_OPS", 750), fromEnv(t, "IDEM_ROBUSTNESS_SEED", 1)
	engines(t, func(t *testing.T, store *idem.Store) {
		proxied(t, store, int(ops), seed)
	})
}

func proxied(t *testing.T, store *idem.Store, ops int, seed uint64) {
	service := &service{effects: tally{counts: map[string]int{}}, runs: tally{counts: map[string]int{}}}
	total := &service.runs
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: statuses(idemhttp.New(store, idemhttp.GlobalScope, idemhttp.Options{StrictKey: true})(service), total)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ErrServerClosed
	p, err := faultproxy.Listen(faultproxy.Options{Target: listener.Addr().String(), Plan: faultproxy.Seeded(seed, faultproxy.Odds{
		Fault: 1, Turns: 3, MaxBytes: 700, MaxDelay: 300 * time.Millisecond,
	})})
	require.NoError(t, err)

	const clients = 24
	kept, fresh := &http.Transport{MaxIdleConnsPerHost: clients}, &http.Transport{DisableKeepAlives: true}
	transport := idemhttp.Transport{
		MaxTries: 12, TryTimeout: 150 * time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Observer: func(try idemhttp.Try) {
			total.add("tries", 1)
			if try.Err != nil {
				total.add("… without an answer", 1)
			} else if try.Status == http.StatusConflict {
				total.add("… told that it is in flight (409)", 1)
			}
		},
	}
	queue := make(chan int)
	var sending sync.WaitGroup
	var mu sync.Mutex
	numbers := map[uint64]string{}
	wrong := make(chan error, clients)
	for i := range clients {
		sending.Go(func() {
			own := transport
			if own.Base = kept; i%2 == 0 {
				own.Base = fresh
			}
			client := &http.Client{Transport: &own}
			for n := range queue {
				got, replayed, err := send(client, "http://"+p.Addr()+"/charges", chargeOf(seed, n), total)
				if err != nil {
					wrong <- err
					for range queue { // let the others end
					}
					return
				}
				mu.Lock()
				if other, taken := numbers[got.Number]; taken {
					err = fmt.Errorf("%s and %s have the same receipt, %d", got.Op, other, got.Number)
				}
				numbers[got.Number] = got.Op
				mu.Unlock()
				if replayed {
					total.add("final answers that were replays", 1)
				}
				if err != nil {
					wrong <- err
				}
			}
		})
	}
	for n := range ops {
		queue <- n
	}
	close(queue)
	sending.Wait()
	kept.CloseIdleConnections()
	require.NoError(t, p.Close())
	require.NoError(t, server.Shutdown(context.Background()))
	serving.Wait()
	select {
	case err := <-wrong:
		t.Fatal(err)
	default:
	}

	require.Len(t, service.effects.counts, ops)
	for op, n := range service.effects.counts {
		require.Equal(t, 1, n, "effects of %s", op)
	}
	for what, n := range p.Counts() {
		total.add("network: "+what, n)
		require.Positive(t, n, "the network never had: %s", what)
	}
	total.add("operations", ops)
	total.add("effects", len(numbers))
	for _, what := range []string{"… of status 409", "… replayed", "… without an answer", "turned away by it (503)"} {
		require.Positive(t, total.counts[what], what)
	}
	require.Zero(t, total.counts["… of status 422"])
	require.Zero(t, total.counts["… of status 500"])
	for _, what := range slices.Sorted(maps.Keys(total.counts)) {
		t.Log(what, total.counts[what])
	}
}

// chargeOf is the nth operation.
func chargeOf(seed uint64, n int) charge {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	pad := make([]byte, rng.IntN(600))
	for i := range pad {
		pad[i] = byte(rng.Uint32())
	}
	return charge{Op: fmt.Sprint("op-", n), Nonce: strconv.FormatUint(rng.Uint64(), 36), Pad: pad}
}

// send makes one charge and returns when it has its receipt. What the Transport could
// not do it goes on with under the same key, as callers should.
func send(client *http.Client, url string, c charge, total *tally) (got slip, replayed bool, err error) {
	body, err := json.Marshal(c)
	if err != nil {
		return got, false, err
	}
	key := ""
	for round := 0; ; round++ {
		if round > 0 {
			// A busy machine may need longer than a try lasts. Whoever does not become
			// more patient keeps it busy, and gets no answer.
			more := *client.Transport.(*idemhttp.Transport)
			more.TryTimeout, more.MaxBackoff = 2*more.TryTimeout, 2*more.MaxBackoff
			client.Transport = &more
		}
		r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return got, false, err
		}
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
			total.add("operations asked for again, with their key", 1)
		}
		resp, err := client.Do(r)
		var failed *idemhttp.TransportError
		if errors.As(err, &failed) {
			key = failed.Key
			continue
		}
		if err != nil {
			return got, false, err
		}
		key = resp.Request.Header.Get("Idempotency-Key")
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil, resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusServiceUnavailable:
			continue
		case resp.StatusCode != http.StatusCreated:
			return got, false, fmt.Errorf("%s: status %d: %s", c.Op, resp.StatusCode, text)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			return got, false, fmt.Errorf("%s: %w: %s", c.Op, err, text)
		}
		if got.Op != c.Op || got.Nonce != c.Nonce || !bytes.Equal(got.Pad, c.Pad) {
			return got, false, fmt.Errorf("%s got the receipt of %s", c.Op, got.Op)
		}
		return got, resp.Header.Get("Idempotent-Replayed") == "true", nil
	}
}

// fromEnv returns a number from the environment, or what is given.
func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}
