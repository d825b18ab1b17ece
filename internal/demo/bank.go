package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// bank makes payouts, in a process that the kills spare. It pays every order that
// arrives, or each idempotency key once if it checks them.
type bank struct {
	checksKeys bool
	killed     chan<- killOrder // has room for one

	mu       sync.Mutex
	payouts  []service.Payment
	receipts map[string][]byte          // by reference: the bank's statement
	arrived  map[string]bool            // references
	working  map[caller]context.Context // the latest request under way
	overlaps int                        // two requests of one server for one payment at once
	order    *killOrder                 // waiting for its moment
	doomed   int                        // the server that is about to be killed, or was
}

type caller struct {
	reference string
	server    int
}

// killOrder says when to kill the service. The banks see the moments that matter. A bank
// gives the sign, and keeps its answer until the server that waits for it is dead.
type killOrder struct {
	way     string
	server  int  // which start of it
	arrived int  // how many payments the bank must have seen
	paid    bool // after the payout, which the server does not know of yet; or before it
}

func newBank(checksKeys bool, killed chan<- killOrder) *bank {
	return &bank{
		checksKeys: checksKeys, killed: killed,
		receipts: make(map[string][]byte), arrived: make(map[string]bool), working: make(map[caller]context.Context),
	}
}

// killAt gives the bank its next kill order.
func (b *bank) killAt(k killOrder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.order = &k
}

const (
	referenceHeader = "Bank-Reference" // printed on the statement
	serverHeader    = "Demo-Server"    // which start of the server asks
)

func (b *bank) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var p service.Payment
	server, err := strconv.Atoi(r.Header.Get(serverHeader))
	if err == nil {
		err = json.NewDecoder(r.Body).Decode(&p)
	}
	from := caller{r.Header.Get(referenceHeader), server}
	if err != nil || from.reference == "" {
		http.Error(w, "not an order", http.StatusBadRequest)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // only then does net/http watch for the caller to go
	b.begin(r.Context(), from)
	defer b.end(r.Context(), from)

	latency()
	if b.killNow(server, false) {
		<-r.Context().Done()
		return
	}
	receipt, err := b.pay(from.reference, r.Header.Get("Idempotency-Key"), p)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if b.killNow(server, true) {
		<-r.Context().Done()
		return
	}
	latency()
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(receipt)
}

// latency is that of the network and of the work of another company.
func latency() { time.Sleep(rand.N(4 * time.Millisecond)) }

func (b *bank) begin(ctx context.Context, from caller) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrived[from.reference] = true
	if other := b.working[from]; other != nil && other.Err() == nil { // and still waited for
		b.overlaps++
	}
	b.working[from] = ctx
}

func (b *bank) end(ctx context.Context, from caller) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.working[from] == ctx {
		delete(b.working, from)
	}
}

// pay makes the payout, unless the bank knows its key, and returns the receipt.
func (b *bank) pay(reference, key string, p service.Payment) (receipt []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if receipt := b.receipts[key]; b.checksKeys && receipt != nil {
		return receipt, nil
	}
	p.Number = uint64(len(b.payouts) + 1)
	if receipt, err = json.Marshal(p); err != nil {
		return nil, err
	}
	b.payouts = append(b.payouts, p)
	b.receipts[reference] = receipt
	return receipt, nil
}

// killNow gives the sign if the moment of the order has come. It reports whether the
// server is to hear no more. What a server that died earlier has left behind does not
// count.
func (b *bank) killNow(server int, paid bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.order; k != nil && k.paid == paid && k.server == server && len(b.arrived) >= k.arrived {
		b.order, b.doomed = nil, server
		b.killed <- *k // has room: there is one order at a time
	}
	return b.doomed == server
}

// books returns what the bank has paid, and how often two requests were at one payment.
func (b *bank) books() (payouts []service.Payment, overlaps int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.payouts), b.overlaps
}

// statement returns the receipts by reference.
func (b *bank) statement() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.receipts)
}

// bankClient is the service's way to the bank at url. A bank that checks keys can be asked
// again, so it gets a Transport that does. Another one is shown no key at all: net/http
// takes one for permission to repeat the request.
func bankClient(url string, server int, checksKeys bool) service.Bank {
	var transport http.RoundTripper = &http.Transport{MaxIdleConnsPerHost: 100}
	if checksKeys {
		transport = &idemhttp.Transport{Base: transport}
	}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	return func(ctx context.Context, key string, p service.Payment) ([]byte, error) {
		body, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set(referenceHeader, key)
		req.Header.Set(serverHeader, strconv.Itoa(server))
		if checksKeys {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		receipt, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusCreated {
			err = fmt.Errorf("the bank answered %s: %s", resp.Status, bytes.TrimSpace(receipt))
		}
		return receipt, err
	}
}
