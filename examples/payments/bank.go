package main

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// bank is the ledger of another company: reached over HTTP, it shares no commit with
// the service and outlives it. It charges each order that arrives, or, if it checks
// keys, each idempotency key once.
type bank struct {
	checksKeys bool

	mu       sync.Mutex
	charges  []charge
	receipts map[string][]byte          // by key, if it checks them
	seen     map[string]bool            // references
	working  map[caller]context.Context // the latest request under way
	overlaps int                        // two requests of one server for one payment at once
	kill     *killOrder                 // waiting for its moment; nil if none is
	killed   chan<- killOrder
	doomed   uint64 // the server that is about to be killed, or was
}

type caller struct {
	reference string
	server    uint64
}

// killOrder says at which moment the server is to be killed. A bank sees the moments
// that matter, so it gives the sign, and holds its answer until the server that waits
// for it is dead.
type killOrder struct {
	server   uint64 // which start of it
	route    string
	payments int // how many must have arrived
	// charged: the bank has charged and the server does not know it yet. If not, the
	// claim is granted and the charge has not been made.
	charged bool
}

// newBank makes a bank, which gives its signs to killed: it must have room for one.
func newBank(checksKeys bool, killed chan<- killOrder) *bank {
	return &bank{
		checksKeys: checksKeys,
		receipts:   make(map[string][]byte),
		seen:       make(map[string]bool),
		working:    make(map[caller]context.Context),
		killed:     killed,
	}
}

// killAt gives the bank its next kill order.
func (b *bank) killAt(k killOrder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kill = &k
}

func (b *bank) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var o bankOrder
	key := r.Header.Get("Idempotency-Key")
	body := http.MaxBytesReader(w, r.Body, maxLine)
	if err := json.NewDecoder(body).Decode(&o); err != nil || o.Reference == "" || o.check() != nil || b.checksKeys && key == "" {
		http.Error(w, "not an order", http.StatusBadRequest)
		return
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return // the caller is gone
	}
	from := caller{o.Reference, o.Server}
	b.begin(r.Context(), from)
	defer b.end(r.Context(), from)

	time.Sleep(latency())
	if b.killNow(o.Server, false) {
		<-r.Context().Done()
		return
	}
	receipt, err := b.charge(key, o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if b.killNow(o.Server, true) {
		<-r.Context().Done()
		return
	}
	time.Sleep(latency())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	w.Write(receipt)
}

// latency is how long the network and the work of the other company take, each way.
func latency() time.Duration { return rand.N(4 * time.Millisecond) }

func (b *bank) begin(ctx context.Context, from caller) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[from.reference] = true
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

// charge charges the order, unless the bank knows its key, and returns the receipt.
func (b *bank) charge(key string, o bankOrder) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.receipts[key]; b.checksKeys && r != nil {
		return r, nil
	}
	c := charge{uint64(len(b.charges) + 1), o.Key, o.Account, o.Cents, o.Reference}
	receipt, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	b.charges = append(b.charges, c)
	if b.checksKeys {
		b.receipts[key] = receipt
	}
	return receipt, nil
}

// killNow gives the sign if the moment of the kill order has come. It reports whether
// the server is to hear no more: the traffic must not be over before it is dead.
// Requests that an earlier server left behind are not what the order is for.
func (b *bank) killNow(server uint64, charged bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.kill; k != nil && k.charged == charged && k.server == server && len(b.seen) >= k.payments {
		b.kill, b.doomed = nil, server
		b.killed <- *k // has room: there is one order at a time
	}
	return b.doomed == server
}

// bankBooks is what a bank has to show.
type bankBooks struct {
	charges  []charge
	overlaps int
}

func (b *bank) books() bankBooks {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bankBooks{slices.Clone(b.charges), b.overlaps}
}

// statement is the receipt of each charge, by reference.
func (b *bank) statement() (map[string][]byte, error) {
	s := make(map[string][]byte)
	for _, c := range b.books().charges {
		receipt, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		s[c.Reference] = receipt
	}
	return s, nil
}
