package idemhttp_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

const stripeInUse = `{"error":{"code":"idempotency_key_in_use","message":"There is currently another in-progress request","type":"invalid_request_error"}}`

// Services that say whether to try again are obeyed, either way.
func TestTransportObeysShouldRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"Stripe-Should-Retry", "X-Should-Retry"} {
			for _, c := range []struct {
				code   int
				header []string
				body   string
				again  bool
			}{
				{500, []string{name, "true"}, "", true},
				{400, []string{name, "true"}, "", true},
				{409, []string{name, "true"}, "", true},
				{500, []string{name, "true", "Idempotent-Replayed", "true"}, "", true},
				{500, []string{name, "false"}, "", false},
				{503, []string{name, "false"}, "", false},
				{429, []string{name, "false", "Retry-After", "1"}, "", false},
				{409, []string{name, "false", "Retry-After", "1"}, "", false},
				{409, []string{name, "false", "Content-Type", "application/json"}, stripeInUse, false},
				{200, []string{name, "true"}, "", false}, // done is done
				{302, []string{name, "true"}, "", false},
				{503, []string{name, "perhaps"}, "", true},
				{500, []string{name, ""}, "", false},
			} {
				s := &script{answers: []func(*http.Request) (*http.Response, error){status(c.code, c.body, c.header...), status(201, "charged")}}
				resp, err := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil))
				require.NoError(t, err)
				body := readAll(t, resp)
				if c.again {
					require.Len(t, s.sent, 2, "%+v", c)
					assert.Equal(t, "charged", body)
				} else {
					require.Len(t, s.sent, 1, "%+v", c)
					assert.Equal(t, c.body, body)
				}
			}
		}
	})
}

// Stripe's 409 is asked about again, as its own libraries do; that of others is a
// conflict.
func TestTransportStripeConflict(t *testing.T) {
	t.Parallel()
	json := []string{"Content-Type", "application/json"}
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			header []string
			body   string
			again  bool
		}{
			{json, stripeInUse, true},
			{[]string{"Content-Type", "application/json; charset=utf-8"}, stripeInUse, true},
			{json, `{"error":{"type":"idempotency_error"}}`, true},
			{json, `{"error":{"type":"invalid_request_error","code":"lock_timeout"}}`, true},
			{[]string{"Stripe-Version", "2025-01-27.acacia"}, "whatever it says", true},
			{json, `{"error":{"type":"invalid_request_error","code":"resource_already_exists"}}`, false},
			{json, `{"error":"conflict"}`, false},
			{json, `["conflict"]`, false},
			{[]string{"Content-Type", "text/html"}, stripeInUse, false},
		} {
			s := &script{answers: []func(*http.Request) (*http.Response, error){status(409, c.body, c.header...), status(201, "charged")}}
			resp, err := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil))
			require.NoError(t, err)
			body := readAll(t, resp)
			if c.again {
				require.Len(t, s.sent, 2, "%+v", c)
			} else {
				require.Len(t, s.sent, 1, "%+v", c)
				assert.Equal(t, c.body, body, "whole, whoever looked into it")
			}
		}
	})
}

// inFlightAnswers are the 409s that say that the first request is being worked on.
var inFlightAnswers = map[string]func(*http.Request) (*http.Response, error){
	"Retry-After":             status(409, "", "Retry-After", "1"),
	"problem, with a charset": status(409, `{"type":"`+idemhttp.TypeInFlight+`"}`, "Content-Type", problemJSON+"; charset=utf-8"),
	"Retry-After 0":           status(409, "", "Retry-After", "0"),
	"problem":                 status(409, `{"type":"`+idemhttp.TypeInFlight+`","error":"wait"}`, "Content-Type", problemJSON),
	"Stripe":                  status(409, stripeInUse, "Content-Type", "application/json"),
	"Stripe, with its header": status(409, stripeInUse, "Content-Type", "application/json",
		"Stripe-Should-Retry", "true"),
}

// A first request that takes long does not use up the tries: only the time does.
func TestTransportInFlightDoesNotUseUpTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, inFlight := range inFlightAnswers {
			start := time.Now()
			s := &script{answers: []func(*http.Request) (*http.Response, error){fails(errReset), func(r *http.Request) (*http.Response, error) {
				if time.Since(start) < 40*time.Second {
					return inFlight(r)
				}
				return status(201, "charged")(r)
			}}}
			resp, err := (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(post(t, nil))
			require.NoError(t, err, name)
			assert.Equal(t, "charged", readAll(t, resp), name)
			assert.Greater(t, len(s.sent), 3, name)
			assert.Less(t, len(s.sent), 60, "%s: the server is not swamped", name)

			// What else goes wrong counts as ever.
			s = &script{answers: []func(*http.Request) (*http.Response, error){
				inFlight, fails(errReset), inFlight, status(503, ""), inFlight, inFlight, fails(errReset), status(201, "too late"),
			}}
			_, err = (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(post(t, nil))
			require.ErrorIs(t, err, errReset, name)
			assert.Len(t, s.sent, 7, name)

			// So does a caller's own rule.
			s = &script{answers: []func(*http.Request) (*http.Response, error){inFlight}}
			resp, err = (&idemhttp.Transport{Base: s, Retry: func(*http.Response, error) bool { return false }}).RoundTrip(post(t, nil))
			require.NoError(t, err, name)
			readAll(t, resp)
			assert.Len(t, s.sent, 1, name)
			s = &script{answers: []func(*http.Request) (*http.Response, error){inFlight}}
			resp, err = (&idemhttp.Transport{Base: s, MaxTries: 1}).RoundTrip(post(t, nil))
			require.NoError(t, err, name)
			readAll(t, resp)
			assert.Len(t, s.sent, 1, "%s: 1 never tries again", name)
		}
	})
}

// An operation that is in flight for ever is not waited for, for ever.
func TestTransportInFlightIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, inFlight := range inFlightAnswers {
			for bound, do := range map[string]func(idemhttp.Transport, *http.Request) (*http.Response, error){
				"Timeout": func(tr idemhttp.Transport, r *http.Request) (*http.Response, error) {
					tr.Timeout = 20 * time.Second
					return tr.RoundTrip(r)
				},
				"context": func(tr idemhttp.Transport, r *http.Request) (*http.Response, error) {
					tr.Timeout = -1
					ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
					t.Cleanup(cancel)
					return tr.RoundTrip(r.WithContext(ctx))
				},
			} {
				s := &script{answers: []func(*http.Request) (*http.Response, error){inFlight}}
				start := time.Now()
				resp, err := do(idemhttp.Transport{Base: s, MaxTries: 2}, post(t, nil))
				require.NoError(t, err, "%s, %s", name, bound)
				assert.Equal(t, 409, resp.StatusCode)
				readAll(t, resp)
				assert.LessOrEqual(t, time.Since(start), 20*time.Second, "%s, %s", name, bound)
				assert.Greater(t, len(s.sent), 2, "%s, %s", name, bound)
			}

			// Where no time is set, the tries are what ends it.
			for _, timeout := range []time.Duration{-1, 1<<63 - 1} {
				s := &script{answers: []func(*http.Request) (*http.Response, error){inFlight}}
				resp, err := (&idemhttp.Transport{Base: s, MaxTries: 5, Timeout: timeout}).RoundTrip(post(t, nil))
				require.NoError(t, err, name)
				assert.Equal(t, 409, resp.StatusCode)
				readAll(t, resp)
				assert.Len(t, s.sent, 5, name)
			}
		}
	})
}

// DefaultRetry can be asked about an answer whose body is gone.
func TestDefaultRetryWithoutBody(t *testing.T) {
	t.Parallel()
	for _, media := range []string{problemJSON, "application/json"} {
		resp := &http.Response{StatusCode: 409, Header: http.Header{"Content-Type": {media}}}
		assert.False(t, idemhttp.DefaultRetry(resp, nil))
	}
}
