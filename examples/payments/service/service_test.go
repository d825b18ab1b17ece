package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is the service on a store that can be opened again, and its bank.
type world struct {
	http.Handler
	backend *bolt.Backend
	store   *idem.Store
	mu      sync.Mutex
	paid    map[string]int64 // by key
	asked   int
	deaf    bool // the bank pays, and its answer is lost
	full    bool // the ledger fails
}

func newWorld(t *testing.T) *world {
	w := &world{paid: make(map[string]int64)}
	path := filepath.Join(t.TempDir(), "payments.db")
	w.open(t, path)
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) open(t *testing.T, path string) {
	var err error
	w.backend, err = bolt.Open(path, bolt.Options{})
	require.NoError(t, err)
	w.store, err = idem.New(w.backend, idem.Options{LapseOnOpen: true})
	require.NoError(t, err)
	w.Handler = Handler(w.store, w.ledger, w.bank)
}

func (w *world) ledger(ctx context.Context, store *idem.Store, t idem.Token, p Payment) error {
	if w.full {
		return errors.New("no room")
	}
	return BoltLedger(ctx, store, t, p)
}

func (w *world) bank(_ context.Context, key string, p Payment) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	w.paid[key] = p.Cents
	if w.deaf {
		return nil, errors.New("no answer")
	}
	return fmt.Appendf(nil, "paid %d, order %d", p.Cents, len(w.paid)), nil
}

// post returns the status and body, and marks a replay.
func (w *world) post(path, key, body string) string {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	answer := fmt.Sprintf("%d %s", rec.Code, strings.TrimSpace(rec.Body.String()))
	if rec.Header().Get("Idempotent-Replayed") != "" {
		answer += " (replayed)"
	}
	return answer
}

func (w *world) lines(t *testing.T) (lines []Payment) {
	require.NoError(t, w.backend.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		return tx.Bucket([]byte("ledger")).ForEach(func(_, v []byte) error {
			var p Payment
			defer func() { lines = append(lines, p) }()
			return json.Unmarshal(v, &p)
		})
	}))
	return lines
}

const body = `{"account":"alice","cents":1999}`

// A payment is made once by requests that come together and later, also after the
// service was stopped and started. Another payment under its key is refused.
func TestPaidOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const line = `201 {"number":1,"id":"order-1","account":"alice","cents":1999}`
	answers := make([]string, 10)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = w.post("/payments", "order-1", body) })
	}
	wg.Wait()
	fresh := 0
	for _, a := range answers {
		if a == line {
			fresh++
			continue
		}
		require.Equal(t, line+" (replayed)", a)
	}
	require.Equal(t, 1, fresh)
	path := w.backend.DB().Path()
	require.NoError(t, w.store.Close())
	w.open(t, path)
	require.Equal(t, line+" (replayed)", w.post("/payments", "order-1", body))
	require.Contains(t, w.post("/payments", "order-1", strings.Replace(body, "19", "20", 1)), "422 ")
	require.Contains(t, w.post("/payments", "order-2", body), `201 {"number":2`)
	require.Len(t, w.lines(t), 2)
}

// A payout is ordered under one key, however often it takes to get the bank's answer.
func TestPayoutAfterALostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deaf = true
	require.Equal(t, "502 ask again with the same key", w.post("/payouts", "order-1", body))
	w.deaf = false
	require.Equal(t, "201 paid 1999, order 1", w.post("/payouts", "order-1", body))
	require.Equal(t, "201 paid 1999, order 1 (replayed)", w.post("/payouts", "order-1", body))
	require.Equal(t, 2, w.asked)
	require.Len(t, w.paid, 1)
}

func TestTurnedAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.full = true
	require.Equal(t, "502 ask again with the same key", w.post("/payments", "order-1", body))
	w.full = false
	require.Contains(t, w.post("/payments", "order-1", body), `201 {"number":1`)
	require.Contains(t, w.post("/payments", "", body), "400 ")
	for i, bad := range []string{"", "nonsense", `{"cents":1}`, `{"account":"alice"}`, `{"account":"alice","cents":-1}`} {
		key := fmt.Sprint("bad-", i)
		require.Equal(t, "400 not a payment", w.post("/payments", key, bad))
		require.Equal(t, "400 not a payment (replayed)", w.post("/payments", key, bad), "final")
	}
	require.Len(t, w.lines(t), 1)
}
