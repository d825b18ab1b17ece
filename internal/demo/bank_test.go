package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
)

func payment(id string) service.Payment {
	return service.Payment{ID: id, Account: "alice", Cents: 1999}
}

// A bank that checks keys pays once for each; another one pays again.
func TestBankPays(t *testing.T) {
	t.Parallel()
	for _, checksKeys := range []bool{true, false} {
		b := newBank(checksKeys, nil)
		h := httptest.NewServer(b)
		t.Cleanup(h.Close)
		pay := bankClient(h.URL, 1, checksKeys)
		first, err := pay(t.Context(), "k1", payment("p1"))
		require.NoError(t, err)
		again, err := pay(t.Context(), "k1", payment("p1"))
		require.NoError(t, err)
		require.Equal(t, checksKeys, string(first) == string(again))
		other, err := pay(t.Context(), "k2", payment("p2"))
		require.NoError(t, err)
		paid, overlaps := b.books()
		require.Zero(t, overlaps)
		require.Len(t, paid, map[bool]int{true: 2, false: 3}[checksKeys])
		require.Equal(t, map[string][]byte{"k1": again, "k2": other}, b.statement())
		_, err = pay(t.Context(), "", payment("p3"))
		require.Error(t, err)
	}
}

// A bank that checks no keys is shown none and asked once: net/http itself would take a key
// for permission to repeat the request.
func TestBankClientRepeatsOnlyWithKeys(t *testing.T) {
	t.Parallel()
	for _, checksKeys := range []bool{true, false} {
		requests, keys := 0, 0
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			if r.Header.Get("Idempotency-Key") != "" {
				keys++
			}
			if w.WriteHeader(http.StatusCreated); requests == 1 {
				panic(http.ErrAbortHandler)
			}
		}))
		_, err := bankClient(h.URL, 1, checksKeys)(t.Context(), "k1", payment("p1"))
		h.Close()
		require.Equal(t, checksKeys, err == nil, "%v", err)
		require.Equal(t, map[bool][2]int{true: {2, 2}, false: {1, 0}}[checksKeys], [2]int{requests, keys})
	}
}

// Two requests of one server for one payment at once are two owners. What a dead server
// left, or a caller that is gone, is none.
func TestBankSeesTwoOwners(t *testing.T) {
	t.Parallel()
	b := newBank(false, nil)
	overlaps := func() int { _, n := b.books(); return n }
	gone, leave := context.WithCancel(t.Context())
	one, two := caller{"k", 1}, caller{"k", 2}
	b.begin(gone, one)
	b.begin(t.Context(), two)
	require.Zero(t, overlaps())
	b.begin(t.Context(), one)
	require.Equal(t, 1, overlaps())
	b.end(t.Context(), one)
	b.begin(gone, one)
	leave()
	b.begin(t.Context(), one)
	require.Equal(t, 1, overlaps())
}

// The sign comes at the moment that was ordered, and the server then hears no more.
func TestBankGivesTheSignToKill(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("paid %t", after), func(t *testing.T) {
			t.Parallel()
			killed := make(chan killOrder, 1)
			b := newBank(false, killed)
			h := httptest.NewServer(b)
			t.Cleanup(h.Close)
			pay := bankClient(h.URL, 1, false)
			order := killOrder{way: held, server: 1, arrived: 2, paid: after}
			b.killAt(order)
			_, err := pay(t.Context(), "k1", payment("p1"))
			require.NoError(t, err, "it is not time yet")

			ctx, kill := context.WithCancel(t.Context())
			answered := make(chan error, 1)
			go func() {
				_, err := pay(ctx, "k2", payment("p2"))
				answered <- err
			}()
			require.Equal(t, order, <-killed)
			require.Empty(t, answered, "the answer is held back until the server is dead")
			paid, _ := b.books()
			require.Equal(t, after, len(paid) == 2)
			require.True(t, b.killNow(1, false), "and so is every other one")
			kill()
			require.ErrorIs(t, <-answered, context.Canceled)

			// The next order is not for what the dead server left behind.
			b.killAt(killOrder{server: 2, arrived: 1, paid: after})
			require.True(t, b.killNow(1, after))
			require.Empty(t, killed)
			require.True(t, b.killNow(2, after))
			require.Len(t, killed, 1)
		})
	}
}

// Payments that share commits all get a line of their own, and it is there after the
// store is opened again.
func TestLedgers(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"memory", "bolt", "pebble"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "payments.db")
			store, l, err := openStore(engine, path, storeOptions())
			require.NoError(t, err)
			all := generate(120, 5)
			errs := make([]error, len(all))
			var wg sync.WaitGroup
			for i, p := range all {
				wg.Go(func() {
					claim, err := store.Claim(context.Background(), idem.Request{Key: storeKey(payments, p.ID)})
					p.ID = clientKey(payments, p.ID)
					if err == nil {
						err = l.charge(context.Background(), store, claim.Token, p)
					}
					if errs[i] = err; err == nil && l.charge(context.Background(), store, claim.Token, p) == nil {
						errs[i] = fmt.Errorf("%s was made under a claim that has ended", p.ID)
					}
				})
			}
			wg.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			if engine != "memory" {
				require.NoError(t, store.Close())
				store, l, err = openStore(engine, path, storeOptions())
				require.NoError(t, err)
			}
			b, err := readBooks(t.Context(), store, l)
			require.NoError(t, err)
			require.NoError(t, store.Close())
			got := check(payments, all, b.Ledger, b.Records)
			require.Empty(t, got.trouble)
			require.Equal(t, 120, got.once)
		})
	}
}

// What is on the statement is completed with its receipt, all else is free again.
func TestSettle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "payments.db")
	store, _, err := openStore("bolt", path, storeOptions())
	require.NoError(t, err)
	for _, key := range []string{"held", "held and paid", "died", "died and paid", "repeatable"} {
		claim, err := store.Claim(t.Context(), idem.Request{Key: key, HoldUnknown: key != "repeatable"})
		require.NoError(t, err)
		if strings.HasPrefix(key, "held") {
			require.NoError(t, store.Hold(t.Context(), claim.Token, nil))
		}
	}
	require.NoError(t, store.Close())
	store, _, err = openStore("bolt", path, storeOptions())
	require.NoError(t, err)
	defer store.Close()
	done, err := settle(t.Context(), store, map[string][]byte{
		idem.DownstreamKey("held and paid", "payout"): []byte("receipt"),
		idem.DownstreamKey("died and paid", "payout"): []byte("receipt"),
	})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"held and paid", "died and paid"}, done.paid)
	require.ElementsMatch(t, []string{"held", "died"}, done.never)
	answer, err := paid([]byte("receipt"))
	require.NoError(t, err)
	for _, key := range done.paid {
		claim, err := store.Claim(t.Context(), idem.Request{Key: key})
		require.ErrorIs(t, err, idem.ErrCompleted)
		require.Equal(t, answer, claim.Record.Result)
	}
	for _, key := range done.never {
		_, err := store.Claim(t.Context(), idem.Request{Key: key})
		require.NoError(t, err)
	}
}
