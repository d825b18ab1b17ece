package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a payment service that is right, unless told otherwise.
type fake struct {
	twoReceipts   bool // every answer is a new one
	saysMadeTwice bool // replays do not say so
	takesChanged  bool // another payment under a key is accepted
	refusesRetry  bool // a retry is refused as another payment
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
		w.WriteHeader([]int{409, 503, 500}[f.n/5%3])
		return
	case known && was != string(b) && !f.takesChanged, known && f.refusesRetry:
		w.WriteHeader(http.StatusUnprocessableEntity)
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

// sendToFake sends payments in fair and foul weather and returns what the client
// has to report.
func sendToFake(t *testing.T, f *fake, all []order) report {
	f.seen = make(map[string]string)
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	c := newClient()
	c.server.Store(&h.URL)
	c.sendAll(t.Context(), all, 1, 4)
	c.http.CloseIdleConnections()
	var buf strings.Builder
	require.NoError(t, c.writeReport(&buf))
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
		require.Equal(t, n.Requests, n.Made+n.Replayed+n.InFlight+n.Mismatched+n.NotNow+n.Dropped+n.Unanswered)
		for what, count := range map[string]int{
			"made": n.Made, "replayed": n.Replayed, "in flight": n.InFlight, "mismatched": n.Mismatched,
			"not now": n.NotNow, "dropped": n.Dropped, "retries": n.Retries,
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
		"in place of its receipt receipt of p": {twoReceipts: true},
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

// A server that is not there is asked again until it is.
func TestClientFollowsTheServer(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	f := &fake{seen: make(map[string]string)}
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	c := newClient()
	c.server.Store(&gone.URL)
	done := make(chan error, 1)
	go func() {
		a, err := c.deliver(context.Background(), sameCommit, generate(1, 1)[0], false)
		if err == nil && a.status != http.StatusCreated {
			err = fmt.Errorf("status %d", a.status)
		}
		done <- err
	}()
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.report.Counts[sameCommit].Unanswered > 0
	}, maxWait, poll)
	c.server.Store(&h.URL)
	require.NoError(t, <-done)
	c.http.CloseIdleConnections()
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	c := newClient()
	c.server.Store(&gone.URL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.deliver(ctx, sameCommit, generate(1, 1)[0], false)
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, c.pay(ctx, sameCommit, order{payment: generate(1, 1)[0]}, weather{copies: 2}))
	require.Contains(t, c.report.Trouble[0], "was not accepted")
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
	var copies, drop, changed, late int
	for _, w := range year() {
		require.Positive(t, w.copies)
		copies += w.copies - 1
		for n, is := range map[*int]bool{&drop: w.drop, &changed: w.changed, &late: w.late} {
			if is {
				*n++
			}
		}
	}
	for _, n := range []int{copies, drop, changed, late} {
		require.Greater(t, n, 20)
	}
}
