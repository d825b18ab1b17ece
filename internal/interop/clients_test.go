package interop

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85"
	"go.uber.org/goleak"

	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/faultproxy"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	goleak.VerifyTestMain(m)
}

// quiet takes what servers and middleware log of handlers that panic.
var quiet = log.New(io.Discard, "", 0)

// each runs do for so many operations, a few at a time.
func each(ops, clients int, do func(n int)) {
	queue := make(chan int)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for n := range queue {
				do(n)
			}
		})
	}
	for n := range ops {
		queue <- n
	}
	close(queue)
	wg.Wait()
}

// Go's own Transport sends a request with an Idempotency-Key again, unseen, when a
// connection that it had kept open breaks before the answer: every second request
// here. The caller never hears of it, and the server charges once.
func TestGoTransport(t *testing.T) {
	t.Parallel()
	faults := []faultproxy.Fault{faultproxy.DropRequest, faultproxy.DropAnswer, faultproxy.DropWaiting}
	s, stop := serve(t, func(n int) faultproxy.Plan {
		return faultproxy.Plan{Fault: faults[n%len(faults)], Turn: 1, Reset: n%2 == 0}
	})
	base := &http.Transport{}
	client := &http.Client{Transport: base}
	const ops = 120
	for n := range ops {
		op := fmt.Sprint("op-", n)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/accounts/a1/charges", strings.NewReader(form(op, 100+n)))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer sk_go")
		r.Header.Set("Idempotency-Key", op)
		resp, err := client.Do(r)
		require.NoError(t, err, "the Transport should have tried again by itself")
		got, err := read(resp)
		require.NoError(t, err)
		require.Equal(t, http.StatusCreated, resp.StatusCode)
		require.Equal(t, op, got.Metadata.Op)
		require.EqualValues(t, 100+n, got.Amount)
	}
	base.CloseIdleConnections()
	stop()
	s.audit(t, ops)
	counts := s.proxy.Counts()
	for _, f := range faults {
		assert.Greater(t, counts[f.String()], 20, f.String())
	}
	assert.Greater(t, s.replays, 20, "of answers that were dropped")
}

// go-retryablehttp tries again at connection errors, 429 and 5xx; the key is its
// caller's.
func TestRetryableHTTP(t *testing.T) {
	t.Parallel()
	s, stop := serve(t, faultproxy.Seeded(3, faultproxy.Odds{Fault: 0.7, MaxDelay: 20 * time.Millisecond}))
	client := retryablehttp.NewClient()
	client.Logger, client.RetryMax = nil, 50
	client.HTTPClient.Transport = &http.Transport{DisableKeepAlives: true}
	client.RetryWaitMin, client.RetryWaitMax = time.Millisecond, 10*time.Millisecond
	const ops = 300
	each(ops, 8, func(n int) {
		op := fmt.Sprint("op-", n)
		for { // a body that is cut is for the caller to ask for again
			r, err := retryablehttp.NewRequest(http.MethodPost, s.url+"/v1/accounts/a1/charges", []byte(form(op, 100+n)))
			if !assert.NoError(t, err) {
				return
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Authorization", "Bearer sk_retryable")
			r.Header.Set("Idempotency-Key", op)
			resp, err := client.Do(r)
			if !assert.NoError(t, err) {
				return
			}
			got, err := read(resp)
			if err != nil {
				continue
			}
			assert.Equal(t, http.StatusCreated, resp.StatusCode)
			assert.Equal(t, op, got.Metadata.Op)
			assert.EqualValues(t, 100+n, got.Amount)
			return
		}
	})
	stop()
	s.audit(t, ops)
	assert.Positive(t, s.replays)
}

// The same with idemhttp.Transport under go-retryablehttp's place: key and tries are
// its own.
func TestTransport(t *testing.T) {
	t.Parallel()
	s, stop := serve(t, faultproxy.Seeded(4, faultproxy.Odds{Fault: 0.7, MaxDelay: 20 * time.Millisecond}))
	client := &http.Client{Transport: &idemhttp.Transport{
		Base: &http.Transport{DisableKeepAlives: true}, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, MaxTries: 50,
	}}
	const ops = 300
	each(ops, 8, func(n int) {
		op := fmt.Sprint("op-", n)
		r, err := http.NewRequest(http.MethodPost, s.url+"/v1/accounts/a1/charges", strings.NewReader(form(op, 100+n)))
		if !assert.NoError(t, err) {
			return
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer sk_transport")
		resp, err := client.Do(r)
		if !assert.NoError(t, err) {
			return
		}
		got, err := read(resp)
		assert.NoError(t, err)
		assert.Equal(t, http.StatusCreated, resp.StatusCode)
		assert.Equal(t, op, got.Metadata.Op)
	})
	stop()
	s.audit(t, ops)
	assert.Len(t, s.keys, ops, "one key each")
	assert.Positive(t, s.replays)
}

// stripe-go makes a key per call, and tries again after half a second and more.
func TestStripe(t *testing.T) {
	t.Parallel()
	// Every other connection has a fault, so that tries are few: each costs half a second.
	plan := faultproxy.Seeded(5, faultproxy.Odds{Fault: 1, MaxDelay: 20 * time.Millisecond})
	s, stop := serve(t, func(n int) faultproxy.Plan {
		if n%2 == 1 {
			return faultproxy.Plan{}
		}
		return plan(n)
	})
	base := &http.Transport{DisableKeepAlives: true}
	client := stripe.NewClient("sk_test_interop", stripe.WithBackends(stripe.NewBackendsWithConfig(&stripe.BackendConfig{
		URL: stripe.String(s.url), MaxNetworkRetries: stripe.Int64(20), EnableTelemetry: stripe.Bool(false),
		HTTPClient:    &http.Client{Transport: base},
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	})))
	const ops = 60
	each(ops, 20, func(n int) {
		op := fmt.Sprint("op-", n)
		params := &stripe.PaymentIntentCreateParams{Amount: stripe.Int64(int64(100 + n)), Currency: stripe.String("eur")}
		params.AddMetadata("op", op)
		got, err := client.V1PaymentIntents.Create(context.Background(), params)
		if !assert.NoError(t, err) {
			return
		}
		assert.Equal(t, op, got.Metadata["op"])
		assert.EqualValues(t, 100+n, got.Amount)
	})
	stop()
	s.audit(t, ops)
	assert.Len(t, s.keys, ops, "one key for all tries of a call")
	assert.Greater(t, s.requests, ops, "it tried again")
	assert.Positive(t, s.replays)
}
