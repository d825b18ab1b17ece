package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/stretchr/testify/require"
)

// service is the payment service on the memory engine, and its banks, which a test
// may put something in front of.
func service(t *testing.T, front func(http.Handler) http.Handler, observer ...func(context.Context, idem.Event)) (url string, s *server, at map[string]*bank) {
	o := storeOptions()
	o.Observer = func(ctx context.Context, e idem.Event) {
		for _, tell := range observer {
			tell(ctx, e)
		}
	}
	store, ledger, err := openLedger("memory", "", o)
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	s = &server{store: store, ledger: ledger, banks: make(map[string]bankClient)}
	at = make(map[string]*bank)
	for _, route := range bankRoutes {
		b := newBank(route == bankWithKeys, nil)
		h := http.Handler(b)
		if front != nil {
			h = front(h)
		}
		far := httptest.NewServer(h)
		t.Cleanup(far.Close)
		c := newBankClient(far.URL, 1, b.checksKeys)
		if t, ok := c.http.Transport.(*idemhttp.Transport); ok {
			t.MaxTries = 1 // the tests have the clients ask again
		}
		t.Cleanup(c.http.CloseIdleConnections)
		s.banks[route], at[route] = c, b
	}
	near := httptest.NewServer(s.handler())
	t.Cleanup(near.Close)
	return near.URL, s, at
}

func post(t *testing.T, url, key, body string) (*http.Response, string) {
	return postAs(t, shopKey, url, key, body)
}

func postAs(t *testing.T, who, url, key, body string) (*http.Response, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", who)
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

// charged is what a route has charged.
func charged(t *testing.T, s *server, at map[string]*bank, route string) []charge {
	if route != ownLedger {
		return at[route].books().charges
	}
	charges, _, err := s.ledger.read()
	require.NoError(t, err)
	return charges
}

// What the middleware promises holds on each route.
func TestServiceMakesReplaysAndRefuses(t *testing.T) {
	t.Parallel()
	for _, route := range routes {
		t.Run(route, func(t *testing.T) {
			t.Parallel()
			url, s, at := service(t, nil)
			url += "/" + route
			key := clientKey(route, "p1")
			resp, receipt := post(t, url, key, body)
			require.Equal(t, http.StatusCreated, resp.StatusCode)
			require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			require.Empty(t, resp.Header.Get("Idempotent-Replayed"))
			require.Contains(t, receipt, `"payment":"`+key+`"`)

			resp, again := post(t, url, key, body)
			require.Equal(t, http.StatusCreated, resp.StatusCode)
			require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			require.Equal(t, "true", resp.Header.Get("Idempotent-Replayed"))
			require.Equal(t, receipt, again)

			resp, problem := post(t, url, key, other)
			require.Equal(t, http.StatusUnprocessableEntity, resp.StatusCode)
			require.Contains(t, problem, idemhttp.TypeMismatch)

			for _, bad := range []struct{ key, body string }{
				{"", body},
				{"p 2", body},
				{"p3", "nonsense"},
				{"p4", body + body},
				{"p5", `{"account":"alice"}`},
			} {
				resp, _ := post(t, url, bad.key, bad.body)
				require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			}
			resp, _ = postAs(t, "Bearer somebody", url, "p6", body)
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode)

			charges := charged(t, s, at, route)
			require.Len(t, charges, 1)
			charges[0].Reference = ""
			require.Equal(t, charge{1, key, "alice", 1999, ""}, charges[0])

			require.NoError(t, s.store.Close())
			resp, _ = post(t, url, key, body)
			require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
			require.Len(t, charged(t, s, at, route), 1)
		})
	}
}

// Options.Wait: while one request is at it, the same one waits for its answer,
// and the payment is made even if its client leaves.
func TestServiceInFlight(t *testing.T) {
	t.Parallel()
	for _, route := range bankRoutes {
		t.Run(route, func(t *testing.T) {
			t.Parallel()
			reached, goOn, met := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
			url, s, at := service(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					reached <- struct{}{}
					<-goOn
					h.ServeHTTP(w, r)
				})
			}, func(_ context.Context, e idem.Event) {
				if e.Kind == idem.ClaimInFlight {
					met <- struct{}{}
				}
			})
			c := &client{http: http.DefaultClient, url: url} // one that does not ask again
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				_, err := c.pay(ctx, route, payment{"p1", "alice", 1999})
				left <- err
			}()
			<-reached
			leave()
			require.ErrorIs(t, <-left, context.Canceled)

			var again answer
			go func() {
				var err error
				again, err = c.pay(t.Context(), route, payment{"p1", "alice", 1999})
				left <- err
			}()
			<-met
			close(goOn)
			require.NoError(t, <-left)
			require.True(t, again.made())
			require.True(t, again.replayed)
			require.Len(t, charged(t, s, at, route), 1)
		})
	}
}

// awayOnce is a bank whose first answer does not arrive: it has charged before, or not.
func awayOnce(charges bool) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		var requests atomic.Int32
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) > 1 {
				h.ServeHTTP(w, r)
				return
			}
			if charges {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			w.WriteHeader(http.StatusGatewayTimeout)
		})
	}
}

// What each route does when nobody knows whether the bank has charged.
func TestServiceUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, route := range bankRoutes {
		for name, reached := range map[string]bool{"charged": true, "never charged": false} {
			t.Run(route+"/"+name, func(t *testing.T) {
				t.Parallel()
				url, s, at := service(t, awayOnce(reached))
				url += "/" + route
				key := clientKey(route, "p1")
				resp, _ := post(t, url, key, body)
				require.Equal(t, http.StatusBadGateway, resp.StatusCode)

				resp, answer := post(t, url, key, body)
				if route == bankHeld {
					require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
					require.Contains(t, answer, idemhttp.TypeOutcomeUnknown)
					statement, err := at[route].statement()
					require.NoError(t, err)
					done, err := settle(t.Context(), s.store, statement)
					require.NoError(t, err)
					require.Equal(t, settled{charged: only(reached, storeKey(route, "p1")), never: only(!reached, storeKey(route, "p1"))}, done)
					resp, answer = post(t, url, key, body)
				}
				require.Equal(t, http.StatusCreated, resp.StatusCode)
				require.Equal(t, route == bankHeld && reached, resp.Header.Get("Idempotent-Replayed") == "true")
				require.Contains(t, answer, `"payment":"`+key+`"`)
				want := 1
				if route == bankCareless && reached {
					want = 2
				}
				require.Len(t, charged(t, s, at, route), want)

				resp, again := post(t, url, key, body)
				require.Equal(t, "true", resp.Header.Get("Idempotent-Replayed"))
				require.Equal(t, answer, again)
				done, err := settle(t.Context(), s.store, nil)
				require.NoError(t, err)
				require.Zero(t, done.total(), "nothing is left to settle")
			})
		}
	}
}

func only(is bool, key string) []string {
	if is {
		return []string{key}
	}
	return nil
}

// Charges that share commits and read and write one balance lose no update,
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
						claim, err := store.Claim(context.Background(), idem.Request{Key: storeKey(ownLedger, p.Key)})
						p.Key = clientKey(ownLedger, p.Key)
						if err == nil {
							err = ledger.charge(context.Background(), claim.Token, p)
						}
						if err != nil {
							t.Errorf("%s: %v", p.Key, err)
						}
						if err := ledger.charge(context.Background(), claim.Token, p); err == nil {
							t.Errorf("%s: charged under a claim that has ended", p.Key)
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
			require.Equal(t, 200, a.check(ownLedger, payments, b.Charges).once)
			a.checkBalances(b)
			a.checkRecords(ownLedger, payments, b.Charges, b.Records)
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
