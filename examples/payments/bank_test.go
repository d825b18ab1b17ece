package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

func bankFor(t *testing.T, checksKeys bool) (*bank, bankClient, chan killOrder) {
	killed := make(chan killOrder, 1)
	b := newBank(checksKeys, killed)
	h := httptest.NewServer(b)
	t.Cleanup(h.Close)
	c := newBankClient(h.URL, 1, checksKeys)
	t.Cleanup(c.http.CloseIdleConnections)
	return b, c, killed
}

// A bank that checks keys is none the worse for a second attempt; one that does
// not charges again.
func TestBankCharges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		checksKeys bool
		charges    []charge
	}{
		"with keys":    {true, []charge{{1, "p1", "alice", 1999, "k1"}, {2, "p2", "bob", 1, "k2"}}},
		"without keys": {false, []charge{{1, "p1", "alice", 1999, "k1"}, {2, "p1", "alice", 1999, "k1"}, {3, "p2", "bob", 1, "k2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, c, _ := bankFor(t, tc.checksKeys)
			p := payment{"p1", "alice", 1999}
			first, err := c.charge(t.Context(), "k1", p)
			require.NoError(t, err)
			again, err := c.charge(t.Context(), "k1", p)
			require.NoError(t, err)
			require.Equal(t, tc.checksKeys, string(first) == string(again))
			other, err := c.charge(t.Context(), "k2", payment{"p2", "bob", 1})
			require.NoError(t, err)
			require.Equal(t, tc.charges, b.books().charges)
			var shown charge
			require.NoError(t, json.Unmarshal(other, &shown))
			require.Equal(t, tc.charges[len(tc.charges)-1], shown)

			statement, err := b.statement()
			require.NoError(t, err)
			require.Len(t, statement, 2)
			require.Equal(t, string(again), string(statement["k1"]))
			require.Equal(t, string(other), string(statement["k2"]))
		})
	}
}

// A bank that does not check keys gets none: net/http itself would take one for leave
// to send the order again.
func TestBankClientShowsAKeyToWhoChecksIt(t *testing.T) {
	t.Parallel()
	for _, checksKeys := range []bool{true, false} {
		var header http.Header
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header = r.Header
			w.WriteHeader(http.StatusCreated)
		}))
		c := newBankClient(h.URL, 1, checksKeys)
		_, err := c.charge(t.Context(), "reference", payment{"p1", "alice", 1})
		require.NoError(t, err)
		c.http.CloseIdleConnections()
		h.Close()
		require.Equal(t, checksKeys, header.Get("Idempotency-Key") == "reference")
		require.Equal(t, checksKeys, header.Get("Idempotency-Key") != "")
	}
}

// A bank that checks keys is asked again by the Transport; the other is asked once.
func TestBankClientAsksAgain(t *testing.T) {
	t.Parallel()
	for _, checksKeys := range []bool{true, false} {
		var requests atomic.Int32
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) == 1 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}))
		c := newBankClient(h.URL, 1, checksKeys)
		_, err := c.charge(t.Context(), "reference", payment{"p1", "alice", 1})
		c.http.CloseIdleConnections()
		h.Close()
		if checksKeys {
			require.NoError(t, err)
			require.EqualValues(t, 2, requests.Load())
			continue
		}
		require.ErrorContains(t, err, "502")
		require.EqualValues(t, 1, requests.Load())
	}
}

func TestBankSeesTwoOwners(t *testing.T) {
	t.Parallel()
	b, _, _ := bankFor(t, false)
	gone, leave := context.WithCancel(t.Context())
	one, two := caller{"k", 1}, caller{"k", 2}
	b.begin(gone, one)
	b.begin(t.Context(), two) // what a dead server left is no owner
	require.Zero(t, b.books().overlaps)
	b.begin(t.Context(), one)
	require.Equal(t, 1, b.books().overlaps)
	b.end(t.Context(), one)

	b.begin(gone, one)
	leave() // nobody waits for this one any more
	b.begin(t.Context(), one)
	require.Equal(t, 1, b.books().overlaps)
}

func TestBankGivesTheSignToKill(t *testing.T) {
	t.Parallel()
	for name, charged := range map[string]bool{"before the charge": false, "after the charge": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, c, killed := bankFor(t, false)
			order := killOrder{server: 1, route: bankHeld, payments: 2, charged: charged}
			b.killAt(order)
			_, err := c.charge(t.Context(), "k1", payment{"p1", "alice", 1})
			require.NoError(t, err, "it is not time yet")

			ctx, kill := context.WithCancel(t.Context())
			answered := make(chan error, 1)
			go func() {
				_, err := c.charge(ctx, "k2", payment{"p2", "alice", 1})
				answered <- err
			}()
			require.Equal(t, order, <-killed)
			require.Empty(t, answered, "the answer is held until the server is dead")
			want := 1
			if charged {
				want = 2
			}
			require.Len(t, b.books().charges, want)
			require.True(t, b.killNow(1, false), "and so is every other one to it")
			require.False(t, b.killNow(2, false))
			kill()
			require.ErrorIs(t, <-answered, context.Canceled)

			// The next order is not for what the dead server left behind.
			b.killAt(killOrder{server: 2, payments: 1, charged: charged})
			require.True(t, b.killNow(1, charged))
			require.Empty(t, killed)
			require.True(t, b.killNow(2, charged))
			require.Len(t, killed, 1)
		})
	}
}

func TestBankRefusesNonsense(t *testing.T) {
	t.Parallel()
	b, c, _ := bankFor(t, true)
	_, err := c.charge(t.Context(), "", payment{"p1", "alice", 1})
	require.ErrorIs(t, err, idem.ErrInvalid, "an empty key is not even sent")
	_, err = c.charge(t.Context(), "k", payment{"p1", "alice", 0})
	require.ErrorContains(t, err, "400")
	_, err = newBankClient(c.url, 1, false).charge(t.Context(), "k", payment{"p1", "alice", 1})
	require.ErrorContains(t, err, "400", "no key")
	require.Empty(t, b.books().charges)

	resp, err := http.Get(c.url)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}
