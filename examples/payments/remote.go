package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// remoteLedger is the ledger of another company: reached over HTTP, it shares no
// commit with the service and outlives it. It takes an idempotency key of its own
// and a fencing token, and it keeps two books, to show what each is worth: one of
// the charges it made, and one of all that arrived, which is what a ledger that
// knows no keys would have charged.
type remoteLedger struct {
	mu       sync.Mutex
	charged  []charge
	arrived  []charge
	receipts map[string][]byte          // by downstream key
	fences   map[string]uint64          // highest seen, by downstream key
	working  map[caller]context.Context // the latest request under way
	stale    int                        // refused: the fence was older than one seen
	overlaps int                        // two requests of one server for one key at once

	kill     *killOrder // waiting for its moment; nil if none is
	killed   chan killOrder
	lastKill uint64 // server of the last kill
}

type caller struct {
	key    string
	server uint64
}

// remoteCharge is the body of a request to the remote ledger.
type remoteCharge struct {
	payment
	// Fence is of the claim under which the service asks.
	Fence uint64 `json:"fence"`
	// Server is which start of the server asks. A real one would not say.
	Server uint64 `json:"server"`
}

// killOrder says at which moment the server is to be killed. The ledger sees the
// moments that matter, so it gives the sign, and holds its answer until the
// server that waits for it is dead.
type killOrder struct {
	// payments is how many must have arrived.
	payments int
	// charged: the ledger has charged and the server does not know it yet. If
	// not, the claim is granted and the charge has not been made.
	charged bool
}

func newRemoteLedger() *remoteLedger {
	return &remoteLedger{
		receipts: make(map[string][]byte),
		fences:   make(map[string]uint64),
		working:  make(map[caller]context.Context),
		killed:   make(chan killOrder, 1),
	}
}

// killAt gives the ledger its next kill order. The sign comes on killed.
func (l *remoteLedger) killAt(k killOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kill = &k
}

func (l *remoteLedger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c remoteCharge
	key := r.Header.Get("Idempotency-Key")
	body := http.MaxBytesReader(w, r.Body, maxLine)
	if err := json.NewDecoder(body).Decode(&c); err != nil || key == "" || c.check() != nil {
		http.Error(w, "not a charge", http.StatusBadRequest)
		return
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return // the caller is gone
	}
	from := caller{key, c.Server}
	if !l.begin(r.Context(), from, c.Fence) {
		http.Error(w, "a later claim of this payment was seen: the caller has lost it", http.StatusPreconditionFailed)
		return
	}
	defer l.end(r.Context(), from)

	time.Sleep(latency())
	if l.killNow(c.Server, false) {
		<-r.Context().Done()
		return
	}
	receipt, err := l.charge(key, c.payment)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if l.killNow(c.Server, true) {
		<-r.Context().Done()
		return
	}
	time.Sleep(latency())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	w.Write(receipt) // an answer that does not arrive is asked for again
}

// latency is how long the network and the work of the other company take, each way.
func latency() time.Duration { return rand.N(4 * time.Millisecond) }

// begin refuses a caller whose claim was taken over: its fence is older than one
// already seen. This is the check that a fencing token is for.
func (l *remoteLedger) begin(ctx context.Context, from caller, fence uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fence < l.fences[from.key] {
		l.stale++
		return false
	}
	l.fences[from.key] = fence
	if other := l.working[from]; other != nil && other.Err() == nil { // and still waited for
		l.overlaps++
	}
	l.working[from] = ctx
	return true
}

func (l *remoteLedger) end(ctx context.Context, from caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.working[from] == ctx {
		delete(l.working, from)
	}
}

// charge charges p unless key was charged before, and returns its receipt.
func (l *remoteLedger) charge(key string, p payment) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrived = append(l.arrived, charge{uint64(len(l.arrived) + 1), p.Key, p.Account, p.Cents})
	if r := l.receipts[key]; r != nil {
		return r, nil
	}
	c := charge{uint64(len(l.charged) + 1), p.Key, p.Account, p.Cents}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	l.charged = append(l.charged, c)
	l.receipts[key] = b
	return b, nil
}

// killNow reports whether the moment of the kill order has come, and gives the sign.
// Requests that a dead server left behind do not count as traffic.
func (l *remoteLedger) killNow(server uint64, charged bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kill
	if k == nil || k.charged != charged || len(l.fences) < k.payments || server <= l.lastKill {
		return false
	}
	l.kill, l.lastKill = nil, server
	l.killed <- *k // has room: there is one order at a time
	return true
}

// books returns both books and what else was counted.
func (l *remoteLedger) books() remoteBooks {
	l.mu.Lock()
	defer l.mu.Unlock()
	return remoteBooks{slices.Clone(l.charged), slices.Clone(l.arrived), l.stale, l.overlaps}
}

type remoteBooks struct {
	charged, arrived []charge
	stale, overlaps  int
}

// remoteClient is the service's way to the remote ledger.
type remoteClient struct {
	url    string
	server uint64
	http   *http.Client
}

// errStale is returned when the ledger has seen a later claim of the payment.
var errStale = errors.New("the ledger has seen a later claim of this payment")

// charge asks the ledger to charge p. key is the same on every attempt, so that
// a ledger that checks it charges once.
func (c *remoteClient) charge(ctx context.Context, key string, fence uint64, p payment) ([]byte, error) {
	body, err := json.Marshal(remoteCharge{p, fence, c.server})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusPreconditionFailed:
		return nil, errStale
	case resp.StatusCode != http.StatusCreated:
		return nil, fmt.Errorf("the ledger answered %s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}
