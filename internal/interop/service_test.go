package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/faultproxy"
	"github.com/idemkv/idem/memory"
)

// service is a payment service on a chi router, behind the middleware. It counts what
// it charged, per operation.
type service struct {
	url   string // through the proxy
	proxy *faultproxy.Proxy

	mu       sync.Mutex
	charged  map[string]int
	requests int
	keys     map[string]int // requests per Idempotency-Key
	replays  int
}

// serve starts a service behind a network that is as bad as plan says. It is stopped,
// and all that was under way ended, by the function it returns.
func serve(t *testing.T, plan func(int) faultproxy.Plan) (s *service, stop func()) {
	t.Helper()
	s = &service{charged: map[string]int{}, keys: map[string]int{}}
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	require.NoError(t, err)
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Recoverer, s.count)
	r.Route("/v1", func(r chi.Router) {
		// A duplicate in flight waits for its answer: not every client knows what to
		// make of a 409.
		r.Use(idemhttp.New(store, tenant, idemhttp.Options{RequireKey: true, Wait: time.Hour}))
		r.Post("/payment_intents", s.charge)
		r.Post("/accounts/{account}/charges", s.charge)
	})
	server := httptest.NewServer(r)
	target, err := url.Parse(server.URL)
	require.NoError(t, err)
	s.proxy, err = faultproxy.Listen(faultproxy.Options{Target: target.Host, Plan: plan})
	require.NoError(t, err)
	s.url = "http://" + s.proxy.Addr()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			require.NoError(t, s.proxy.Close())
			server.Close()
			require.NoError(t, store.Close())
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// tenant is the scope: whose secret key it is.
func tenant(r *http.Request) (string, error) {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), nil
}

func (s *service) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests++
		s.keys[r.Header.Get("Idempotency-Key")]++
		if w.Header().Get("Idempotent-Replayed") == "true" {
			s.replays++
		}
	})
}

// charge answers in the shape of Stripe's payment intents.
func (s *service) charge(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	op := r.Form.Get("metadata[op]")
	s.mu.Lock()
	s.charged[op]++
	n := len(s.charged)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": fmt.Sprint("pi_", n), "object": "payment_intent", "amount": json.Number(r.Form.Get("amount")),
		"currency": r.Form.Get("currency"), "description": chi.URLParam(r, "account"),
		"metadata": map[string]string{"op": op},
	})
}

// intent is what a client reads of an answer.
type intent struct {
	ID       string
	Amount   int64
	Metadata struct{ Op string }
}

// form is a charge of so many cents for an operation.
func form(op string, cents int) string {
	return url.Values{"amount": {fmt.Sprint(cents)}, "currency": {"eur"}, "metadata[op]": {op}}.Encode()
}

// read takes an answer apart; an error means that the connection broke.
func read(resp *http.Response) (got intent, err error) {
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode == http.StatusCreated {
		err = json.Unmarshal(text, &got)
	}
	return got, err
}

// audit holds the ledger to its operations: each was charged once.
func (s *service) audit(t *testing.T, ops int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.charged, ops)
	for op, n := range s.charged {
		require.Equal(t, 1, n, "charges of %s", op)
	}
	t.Logf("%d operations, %d charges, %d requests, %d replays; network: %v", ops, len(s.charged), s.requests, s.replays, s.proxy.Counts())
}
