package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/idemkv/idem"
	"github.com/stretchr/testify/require"
)

// service is the payment service on the memory engine, and a remote ledger that
// a test may put something in front of.
func service(t *testing.T, front func(http.Handler) http.Handler) (url string, s *server, remote *remoteLedger) {
	store, ledger, err := openLedger("memory", "", storeOptions())
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	remote = newRemoteLedger()
	h := http.Handler(remote)
	if front != nil {
		h = front(h)
	}
	far := httptest.NewServer(h)
	t.Cleanup(far.Close)
	s = &server{store: store, ledger: ledger, remote: remoteClient{url: far.URL, server: 1, http: far.Client()}}
	near := httptest.NewServer(s.routes("memory"))
	t.Cleanup(near.Close)
	return near.URL, s, remote
}

func post(t *testing.T, url, key, body string) (*http.Response, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

const (
	body  = `{"account":"alice","amount_cents":1999}`
	other = `{"account":"alice","amount_cents":2000}`
)

func TestServiceMakesReplaysAndRefuses(t *testing.T) {
	t.Parallel()
	for _, route := range routes {
		t.Run(route, func(t *testing.T) {
			t.Parallel()
			url, s, remote := service(t, nil)
			url += "/" + route
			resp, receipt := post(t, url, "p1", body)
			require.Equal(t, http.StatusCreated, resp.StatusCode)
			require.Empty(t, resp.Header.Get("Idempotent-Replayed"))

			resp, again := post(t, url, "p1", body)
			require.Equal(t, http.StatusCreated, resp.StatusCode)
			require.Equal(t, "true", resp.Header.Get("Idempotent-Replayed"))
			require.Equal(t, receipt, again)

			resp, problem := post(t, url, "p1", other)
			require.Equal(t, http.StatusUnprocessableEntity, resp.StatusCode)
			require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
			require.Contains(t, problem, "another payment")

			for _, bad := range []struct{ key, body string }{
				{"", body},
				{"p 2", body},
				{"p2", "nonsense"},
				{"p2", `{"account":"alice"}`},
				{"p2", `{"account":"alice","amount_cents":1,"memo":"` + strings.Repeat("x", maxLine) + `"}`},
			} {
				resp, _ := post(t, url, bad.key, bad.body)
				require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			}

			charges, balances, err := s.ledger.read()
			require.NoError(t, err)
			if route == sameCommit {
				require.Equal(t, []charge{{1, "p1", "alice", 1999}}, charges)
				require.Equal(t, map[string]int64{"alice": 1999}, balances)
			} else {
				require.Empty(t, charges)
				require.Equal(t, []charge{{1, "p1", "alice", 1999}}, remote.books().arrived)
			}

			require.NoError(t, s.store.Close())
			resp, _ = post(t, url, "p1", body)
			require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		})
	}
}

// A1 on the remote route: while one request is at it, the same one is refused, and
// the payment is made even if its client leaves.
func TestServiceRemoteInFlight(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}), make(chan struct{})
	url, s, remote := service(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached <- struct{}{}
			<-goOn
			h.ServeHTTP(w, r)
		})
	})
	url += "/" + overNetwork
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err == nil {
			req.Header.Set("Idempotency-Key", "p1")
			_, err = http.DefaultClient.Do(req)
		}
		left <- err
	}()
	<-reached
	resp, _ := post(t, url, "p1", body)
	require.Equal(t, http.StatusConflict, resp.StatusCode)
	require.Equal(t, "1", resp.Header.Get("Retry-After"))

	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	close(goOn)
	r, err := s.store.Wait(t.Context(), storeKey(overNetwork, "p1"))
	require.NoError(t, err)
	require.Equal(t, idem.Completed, r.State)
	resp, _ = post(t, url, "p1", body)
	require.Equal(t, "true", resp.Header.Get("Idempotent-Replayed"))
	require.Len(t, remote.books().arrived, 1)
}

// A5 on the remote route: a ledger that is away costs the claim nothing.
func TestServiceRemoteLedgerAway(t *testing.T) {
	t.Parallel()
	var once sync.Once
	url, s, remote := service(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			away := false
			once.Do(func() { away = true })
			if away {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	url += "/" + overNetwork
	resp, _ := post(t, url, "p1", body)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	resp, _ = post(t, url, "p1", body)
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	require.Len(t, remote.books().arrived, 1)
	r, err := s.store.Get(t.Context(), storeKey(overNetwork, "p1"))
	require.NoError(t, err)
	require.Equal(t, 2, r.Attempt)
}

// D8: charges that share commits and read and write one balance lose no update,
// and are there after the store is opened again.
func TestLedgers(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"memory", "bolt", "pebble"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "payments.db")
			store, ledger, err := openLedger(engine, path, storeOptions())
			require.NoError(t, err)
			payments := generate(200, 5)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for _, p := range payments[i*25 : (i+1)*25] {
						for _, again := range []bool{false, true} {
							_, replayed, err := ledger.charge(context.Background(), idem.Request{Key: storeKey(sameCommit, p.Key)}, p)
							if err != nil || replayed != again {
								t.Errorf("%s: replayed %v, error %v", p.Key, replayed, err)
							}
						}
					}
				})
			}
			wg.Wait()
			if engine != "memory" {
				require.NoError(t, store.Close())
				store, ledger, err = openLedger(engine, path, storeOptions())
				require.NoError(t, err)
			}
			b, err := readBooks(t.Context(), store, ledger)
			require.NoError(t, err)
			require.NoError(t, store.Close())

			var a audit
			require.Equal(t, 200, a.check("ledger", payments, b.Charges, false).once)
			a.checkBalances(b)
			a.checkRecords("ledger", sameCommit, payments, b.Charges, b.Records)
			require.Empty(t, a.trouble)
			for i, c := range b.Charges {
				require.Equal(t, uint64(i+1), c.Number)
			}
		})
	}
}

func TestOpenLedgerUnknownEngine(t *testing.T) {
	t.Parallel()
	_, _, err := openLedger("sqlite", "", idem.Options{})
	require.ErrorContains(t, err, "sqlite")
}

func TestOpenLedgerBadOptions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "payments.db")
	_, _, err := openLedger("bolt", path, idem.Options{Lease: -1})
	require.ErrorIs(t, err, idem.ErrInvalid)
	store, _, err := openLedger("bolt", path, idem.Options{}) // the file was let go of
	require.NoError(t, err)
	require.NoError(t, store.Close())
}
