package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// fake is a payment service that is right, unless told otherwise.
type fake struct {
	twoReceipts   bool // every answer is a new one
	saysMadeTwice bool // replays do not say that they are
	takesChanged  bool // another payment under a key is accepted
	refusesRetry  bool
	holds         bool // where that is allowed
	holdsAll      bool
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
	case f.holds && r.URL.Path == "/"+held, f.holdsAll:
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

// sendTo makes payments at f, and returns what the clients counted.
func sendTo(t *testing.T, f *fake, all []service.Payment) *tally {
	f.seen = make(map[string]string)
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	n := newNetwork(newTally())
	n.leadTo(h.Listener.Addr().String())
	newClients(n).sendAll(t.Context(), all, ways, 1)
	require.Zero(t, n.flying.Load())
	return n.tally
}

// Every request is counted once by how it ended, and all of it happens.
func TestClientsSendAll(t *testing.T) {
	t.Parallel()
	got := sendTo(t, new(fake), generate(60, 1))
	require.Empty(t, got.trouble)
	for _, way := range ways {
		require.Equal(t, 60, got.get(accepted, way))
		sum := 0
		for _, row := range []string{made, replayed, mismatched, notNow, lost} {
			require.NotZero(t, got.get(row, way), row)
			sum += got.get(row, way)
		}
		require.Equal(t, got.get(requests, way), sum+got.get(unknown, way)+got.get(unanswered, way))
		require.NotZero(t, got.get(retries, way))
	}
}

func TestClientsNotice(t *testing.T) {
	t.Parallel()
	for says, f := range map[string]*fake{
		"has two receipts":                   {twoReceipts: true},
		"not its receipt":                    {twoReceipts: true},
		"that it made payment pay-":          {saysMadeTwice: true},
		"sent again, got 201":                {saysMadeTwice: true},
		"another payment under the key":      {takesChanged: true},
		"was refused: 422":                   {refusesRetry: true},
		"was refused: 400":                   {badRequest: true},
		"payments: payment pay-000001 was r": {holdsAll: true},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, strings.Join(sendTo(t, f, generate(20, 2)).trouble, "\n"), says)
		})
	}
}

// Where payouts are held, an unknown outcome is an answer.
func TestClientsTakeUnknownForAnAnswer(t *testing.T) {
	t.Parallel()
	got := sendTo(t, &fake{holds: true}, generate(40, 3))
	require.Empty(t, got.trouble)
	require.Equal(t, 40, got.get(outcomeHeld, held))
	require.Zero(t, got.get(accepted, held))
	require.Equal(t, 40, got.get(accepted, payments))
}

// A server that is gone is asked again until another one is there.
func TestClientsFollowTheServer(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	h := httptest.NewServer(&fake{seen: make(map[string]string)})
	t.Cleanup(h.Close)
	n := newNetwork(newTally())
	n.leadTo(gone.Listener.Addr().String())
	c, done := newClients(n), make(chan struct{})
	go func() {
		defer close(done)
		c.send(context.Background(), payments, generate(1, 1)[0], behaviour{copies: 1})
	}()
	for n.tally.get(unanswered, payments) == 0 {
		runtime.Gosched()
	}
	n.leadTo(h.Listener.Addr().String())
	<-done
	require.Empty(t, n.tally.trouble)
	require.Equal(t, 1, n.tally.get(accepted, payments))
	c.http.CloseIdleConnections()
}
