package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/idemkv/idem/idemhttp"
	"github.com/stretchr/testify/require"
)

// fake is a payment service that is right, unless told otherwise.
type fake struct {
	twoReceipts   bool // every answer is a new one
	saysMadeTwice bool // replays do not say so
	takesChanged  bool // another payment under a key is accepted
	refusesRetry  bool // a retry is refused as another payment
	holds         bool // on the route that may, no outcome is known
	holdsAll      bool // on all of them
	badRequest    bool

	mu   sync.Mutex
	seen map[string]string // key → body
	n    int
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	key := r.URL.Path + r.Header.Get("Idempotency-Key")
	was, known := f.seen[key]
	switch {
	case f.badRequest:
		w.WriteHeader(http.StatusBadRequest)
		return
	case f.n%5 == 0:
		w.WriteHeader([]int{502, 503, 429}[f.n/5%3])
		return
	case f.holds && r.URL.Path == "/"+bankHeld, f.holdsAll:
		idemhttp.WriteProblem(w, r, idemhttp.Problem{Type: idemhttp.TypeOutcomeUnknown, Status: http.StatusInternalServerError})
		return
	case known && was != string(b) && !f.takesChanged, known && f.refusesRetry:
		idemhttp.WriteProblem(w, r, idemhttp.Problem{Type: idemhttp.TypeMismatch, Status: http.StatusUnprocessableEntity})
		return
	}
	if known && !f.saysMadeTwice {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	if !known {
		f.seen[key] = string(b)
	}
	w.WriteHeader(http.StatusCreated)
	if fmt.Fprintf(w, "receipt of %s", r.Header.Get("Idempotency-Key")); f.twoReceipts {
		fmt.Fprint(w, f.n)
	}
}

// clientsOf are clients of h, over a network of their own.
func clientsOf(h *httptest.Server) (*traffic, *network) {
	counts := newCounters()
	n := newNetwork(counts)
	n.leadTo(h)
	return &traffic{newClient("http://payments", n), counts}, n
}

func (n *network) leadTo(h *httptest.Server) {
	address := h.Listener.Addr().String()
	n.server.Store(&address)
}

// sendToFake sends payments in fair and foul weather and returns what the client
// has to report.
func sendToFake(t *testing.T, f *fake, all []order) report {
	f.seen = make(map[string]string)
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	clients, network := clientsOf(h)
	clients.sendAll(t.Context(), all, routes, 1, 4)
	network.CloseIdleConnections()
	var buf strings.Builder
	require.NoError(t, clients.counts.write(&buf))
	var r report
	require.NoError(t, json.Unmarshal([]byte(buf.String()), &r))
	return r
}

func TestClientSendsAll(t *testing.T) {
	t.Parallel()
	lines := append(generate(60, 1), payment{"pay-1-000002", "someone else", 7}, generate(1, 1)[0])
	r := sendToFake(t, new(fake), orders(lines))
	require.Empty(t, r.Trouble)
	require.Zero(t, r.Flying)
	for _, route := range routes {
		n := r.Counts[route]
		require.Equal(t, 60, n.Accepted)
		require.Equal(t, n.Requests, n.Made+n.Replayed+n.Mismatched+n.Unknown+n.NotNow+n.Lost+n.Unanswered)
		for what, count := range map[string]int{
			"made": n.Made, "replayed": n.Replayed, "mismatched": n.Mismatched,
			"not now": n.NotNow, "lost": n.Lost, "retries": n.Retries,
		} {
			require.NotZero(t, count, what)
		}
		require.LessOrEqual(t, n.Made, 60)
	}
}

func TestClientNotices(t *testing.T) {
	t.Parallel()
	for says, f := range map[string]*fake{
		"has two receipts":                     {twoReceipts: true},
		"was made":                             {saysMadeTwice: true},
		"another payment under the key":        {takesChanged: true},
		"was refused with 422":                 {refusesRetry: true},
		"was not accepted: 400":                {badRequest: true},
		"sent again, got 201":                  {saysMadeTwice: true},
		`in place of its receipt receipt of "`: {twoReceipts: true},
		"was refused with 500":                 {holdsAll: true},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			all := orders(generate(15, 2))
			all[0].again = []payment{all[0].payment}
			r := sendToFake(t, f, all)
			require.Contains(t, strings.Join(r.Trouble, "\n"), says)
			require.LessOrEqual(t, len(r.Trouble), maxTrouble)
		})
	}
}

// What the service does not know is counted and left alone, where it may not know.
func TestClientTakesUnknownForAnAnswer(t *testing.T) {
	t.Parallel()
	r := sendToFake(t, &fake{holds: true}, orders(generate(40, 3)))
	require.Empty(t, r.Trouble)
	require.Equal(t, 40, r.Counts[bankHeld].Held)
	require.Zero(t, r.Counts[bankHeld].Accepted)
	require.Equal(t, 40, r.Counts[ownLedger].Accepted)
	require.Zero(t, r.Counts[ownLedger].Held)
}

// A server that is not there is asked again until it is.
func TestClientFollowsTheServer(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	h := httptest.NewServer(&fake{seen: make(map[string]string)})
	t.Cleanup(h.Close)
	clients, network := clientsOf(gone)
	done := make(chan func(), 1)
	go func() {
		done <- clients.send(context.Background(), ownLedger, order{payment: generate(1, 1)[0]}, weather{copies: 1})
	}()
	unanswered := func() int {
		clients.counts.mu.Lock()
		defer clients.counts.mu.Unlock()
		return clients.counts.report.Counts[ownLedger].Unanswered
	}
	for unanswered() == 0 {
		runtime.Gosched()
	}
	network.leadTo(h)
	require.Nil(t, <-done)
	require.Empty(t, clients.counts.report.Trouble)
	require.Equal(t, 1, clients.counts.report.Counts[ownLedger].Accepted)
	network.CloseIdleConnections()
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	clients, _ := clientsOf(gone)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := clients.client.pay(withTrip(ctx, new(trip)), ownLedger, generate(1, 1)[0])
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, clients.send(ctx, ownLedger, order{payment: generate(1, 1)[0]}, weather{copies: 2}))
	require.Contains(t, clients.counts.report.Trouble[0], "was not accepted")
}

func TestForecast(t *testing.T) {
	t.Parallel()
	year := func() (all []weather) {
		rng := rand.New(rand.NewPCG(1, 1))
		for range 365 {
			all = append(all, forecast(rng))
		}
		return all
	}
	require.Equal(t, year(), year())
	var copies, lose, changed, late int
	for _, w := range year() {
		require.Positive(t, w.copies)
		copies += w.copies - 1
		for n, is := range map[*int]bool{&lose: w.lose, &changed: w.changed, &late: w.late} {
			if is {
				*n++
			}
		}
	}
	for _, n := range []int{copies, lose, changed, late} {
		require.Greater(t, n, 20)
	}
}
