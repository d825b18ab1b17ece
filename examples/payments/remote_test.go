package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func remoteFor(t *testing.T, l *remoteLedger, server uint64) *remoteClient {
	h := httptest.NewServer(l)
	t.Cleanup(h.Close)
	return &remoteClient{url: h.URL, server: server, http: h.Client()}
}

// D7: a derived key makes a second attempt harmless; without it there are two charges.
func TestRemoteLedgerChargesAKeyOnce(t *testing.T) {
	t.Parallel()
	l := newRemoteLedger()
	c := remoteFor(t, l, 1)
	p := payment{"p1", "alice", 1999}
	first, err := c.charge(t.Context(), "k1", 10, p)
	require.NoError(t, err)
	again, err := c.charge(t.Context(), "k1", 11, p)
	require.NoError(t, err)
	require.Equal(t, first, again)
	other, err := c.charge(t.Context(), "k2", 12, payment{"p2", "bob", 1})
	require.NoError(t, err)

	books := l.books()
	require.Equal(t, []charge{{1, "p1", "alice", 1999}, {2, "p2", "bob", 1}}, books.charged)
	require.Equal(t, []charge{{1, "p1", "alice", 1999}, {2, "p1", "alice", 1999}, {3, "p2", "bob", 1}}, books.arrived)
	var shown charge
	require.NoError(t, json.Unmarshal(other, &shown))
	require.Equal(t, books.charged[1], shown)
}

func TestRemoteLedgerRefusesAStaleFence(t *testing.T) {
	t.Parallel()
	l := newRemoteLedger()
	c := remoteFor(t, l, 1)
	p := payment{"p1", "alice", 1999}
	_, err := c.charge(t.Context(), "k1", 11, p)
	require.NoError(t, err)
	_, err = c.charge(t.Context(), "k1", 10, p)
	require.ErrorIs(t, err, errStale)
	require.Len(t, l.books().arrived, 1)
	require.Equal(t, 1, l.books().stale)
}

func TestRemoteLedgerSeesTwoOwners(t *testing.T) {
	t.Parallel()
	l := newRemoteLedger()
	gone, leave := context.WithCancel(t.Context())
	one, two := caller{"k", 1}, caller{"k", 2}
	require.True(t, l.begin(gone, one, 1))
	require.True(t, l.begin(t.Context(), two, 2)) // what a dead server left is no owner
	require.Zero(t, l.books().overlaps)
	require.True(t, l.begin(t.Context(), one, 3))
	require.Equal(t, 1, l.books().overlaps)
	l.end(t.Context(), one)

	require.True(t, l.begin(gone, one, 3))
	leave() // nobody waits for this one any more
	require.True(t, l.begin(t.Context(), one, 4))
	require.Equal(t, 1, l.books().overlaps)
}

func TestRemoteLedgerGivesTheSignToKill(t *testing.T) {
	t.Parallel()
	for name, charged := range map[string]bool{"before the charge": false, "after the charge": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newRemoteLedger()
			l.killAt(killOrder{payments: 2, charged: charged})
			c := remoteFor(t, l, 1)
			_, err := c.charge(t.Context(), "k1", 1, payment{"p1", "alice", 1})
			require.NoError(t, err, "it is not time yet")

			ctx, kill := context.WithCancel(t.Context())
			answered := make(chan error, 1)
			go func() {
				_, err := c.charge(ctx, "k2", 2, payment{"p2", "alice", 1})
				answered <- err
			}()
			require.Equal(t, killOrder{2, charged}, <-l.killed)
			require.Empty(t, answered, "the answer is held until the server is dead")
			want := 1
			if charged {
				want = 2
			}
			require.Len(t, l.books().charged, want)
			kill()
			require.ErrorIs(t, <-answered, context.Canceled)

			// The next order is not for what the dead server left behind.
			l.killAt(killOrder{payments: 1, charged: charged})
			_, err = c.charge(t.Context(), "k3", 3, payment{"p3", "alice", 1})
			require.NoError(t, err)
			require.Empty(t, l.killed)
		})
	}
}

func TestRemoteLedgerRefusesNonsense(t *testing.T) {
	t.Parallel()
	l := newRemoteLedger()
	c := remoteFor(t, l, 1)
	_, err := c.charge(t.Context(), "", 1, payment{"p1", "alice", 1})
	require.ErrorContains(t, err, "400")
	_, err = c.charge(t.Context(), "k", 1, payment{"p1", "alice", 0})
	require.ErrorContains(t, err, "400")
	require.Empty(t, l.books().arrived)

	resp, err := (&http.Client{Timeout: time.Minute}).Get(c.url)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}
