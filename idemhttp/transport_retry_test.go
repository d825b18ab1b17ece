package idemhttp_test

import (
	"context"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// inFlightAnswers are the 409s that say that the first request is being worked on.
var inFlightAnswers = map[string]reply{
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
			s := answers(fails(errReset), func(r *http.Request) (*http.Response, error) {
				if time.Since(start) < 40*time.Second {
					return inFlight(r)
				}
				return status(201, "charged")(r)
			})
			resp := exchange(t, &idemhttp.Transport{Base: s, MaxTries: 3}, post(t, nil))
			assert.Equal(t, "charged", readAll(t, resp), name)
			assert.Greater(t, len(s.sent), 3, name)
			assert.Less(t, len(s.sent), 60, "%s: the server is not swamped", name)

			// What else goes wrong counts as ever.
			s = answers(
				inFlight, fails(errReset), inFlight, status(503, ""), inFlight, inFlight, fails(errReset), status(201, "too late"),
			)
			_, err := (&idemhttp.Transport{Base: s, MaxTries: 3}).RoundTrip(post(t, nil))
			require.ErrorIs(t, err, errReset, name)
			assert.Len(t, s.sent, 7, name)

			// So does a caller's own rule.
			s = answers(inFlight)
			resp = exchange(t, &idemhttp.Transport{Base: s, Retry: func(*http.Response, error) bool { return false }}, post(t, nil))
			readAll(t, resp)
			assert.Len(t, s.sent, 1, name)
			s = answers(inFlight)
			readAll(t, exchange(t, &idemhttp.Transport{Base: s, MaxTries: 1}, post(t, nil)))
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
				s := answers(inFlight)
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
				s := answers(inFlight)
				resp := exchange(t, &idemhttp.Transport{Base: s, MaxTries: 5, Timeout: timeout}, post(t, nil))
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

// A wait that the deadline would cut short is not begun: the caller gets the answer
// there is, at once, in place of "deadline exceeded" later.
func TestTransportReturnsAnswerThatDeadlineCannotWaitFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := status(503, "busy", "Retry-After", "20")
		bounds := map[string]func(*idemhttp.Transport, *http.Request) (*http.Response, error){
			"context": func(tr *idemhttp.Transport, r *http.Request) (*http.Response, error) {
				ctx, cancel := context.WithTimeout(r.Context(), 15*time.Second)
				t.Cleanup(cancel)
				return tr.RoundTrip(r.WithContext(ctx))
			},
			"http.Client": func(tr *idemhttp.Transport, r *http.Request) (*http.Response, error) {
				return (&http.Client{Transport: tr, Timeout: 15 * time.Second}).Do(r)
			},
		}
		for name, do := range bounds {
			for _, timeout := range []time.Duration{0, -1, time.Hour} {
				s := answers(busy)
				var told []idemhttp.Try
				start := time.Now()
				resp, err := do(&idemhttp.Transport{Base: s, Timeout: timeout, Observer: func(try idemhttp.Try) { told = append(told, try) }}, post(t, nil))
				require.NoError(t, err, name)
				assert.Equal(t, 503, resp.StatusCode, name)
				assert.Equal(t, "busy", readAll(t, resp), name)
				assert.Zero(t, time.Since(start), name)
				require.Len(t, s.sent, 1, name)
				assert.False(t, told[0].Again, name)
				assert.Zero(t, told[0].Wait, name)

				// One that it can is waited for.
				s = answers(status(503, "", "Retry-After", "7"), status(201, "charged"))
				resp, err = do(&idemhttp.Transport{Base: s, Timeout: timeout}, post(t, nil))
				require.NoError(t, err, name)
				assert.Equal(t, "charged", readAll(t, resp), name)
				assert.Len(t, s.sent, 2, name)
			}

			// Nor is a backoff begun. All but one in 10^8 of them would be too long.
			s := answers(fails(errReset))
			start := time.Now()
			_, err := do(&idemhttp.Transport{Base: s, Timeout: -1, MinBackoff: 1e6 * time.Hour, MaxBackoff: 1e6 * time.Hour}, post(t, nil))
			require.ErrorIs(t, err, errReset, name)
			require.NotErrorIs(t, err, context.DeadlineExceeded, name)
			assert.Zero(t, time.Since(start), name)
		}
	})
}

// The Transport does not come back before the time that the server asked for: it
// waits that long or not at all.
func TestTransportNeverComesBeforeRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			asked string
			most  time.Duration
			tries int
		}{
			{"30", 0, 2},
			{"31", 0, 1},
			{"3", 2 * time.Second, 1},
			{"2", 2 * time.Second, 2},
			{"99999999999999999999", 0, 1},
			{"Fri, 31 Dec 9999 23:59:59 GMT", 0, 1},
			{"1", -1, 1},
			{"0", -1, 2},
		} {
			s := answers(status(429, "slow down", "Retry-After", c.asked), status(201, "charged"))
			start := time.Now()
			resp := exchange(t, &idemhttp.Transport{Base: s, MaxRetryAfter: c.most}, post(t, nil))
			require.Len(t, s.sent, c.tries, "%+v", c)
			if c.tries == 2 {
				assert.Equal(t, "charged", readAll(t, resp))
				continue
			}
			assert.Equal(t, 429, resp.StatusCode)
			assert.Equal(t, c.asked, resp.Header.Get("Retry-After"), "for the caller to come back by")
			assert.Equal(t, "slow down", readAll(t, resp))
			assert.Zero(t, time.Since(start), "%+v", c)
		}
	})
}

// An answer that has arrived is not thrown away because the context ended just then.
func TestTransportReturnsAnswerWhenContextEndsWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := answers(func(r *http.Request) (*http.Response, error) {
			cancel()
			return status(503, "busy")(r)
		})
		resp := exchange(t, &idemhttp.Transport{Base: s}, post(t, nil).WithContext(ctx))
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "busy", readAll(t, resp))
		assert.Len(t, s.sent, 1)
	})
}

// Request.Cancel, which programs from before contexts use, ends tries and waits as the
// context does.
func TestTransportRequestCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]reply{
			"in a wait": status(503, "", "Retry-After", "20"),
			"in a try": func(r *http.Request) (*http.Response, error) {
				<-r.Cancel //nolint:staticcheck // deprecated, and net/http still obeys it
				return nil, errReset
			},
		} {
			s := answers(answer)
			r := post(t, nil)
			cancel := make(chan struct{})
			r.Cancel = cancel //nolint:staticcheck // what is tested
			time.AfterFunc(3*time.Second, func() { close(cancel) })
			start := time.Now()
			_, err := (&idemhttp.Transport{Base: s}).RoundTrip(r)
			require.ErrorIs(t, err, context.Canceled, name)
			assert.Equal(t, 3*time.Second, time.Since(start), name)
			assert.Len(t, s.sent, 1, name)
		}
	})
}

// The largest values of all limits mean none: bodies are sent whole, and time does not
// run out at once.
func TestTransportWithoutLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second) // its clock is then past zero
		s := answers(
			fails(errReset),
			func(r *http.Request) (*http.Response, error) {
				time.Sleep(time.Hour)
				return status(200, "done")(r)
			},
		)
		transport := &idemhttp.Transport{
			Base: s, Timeout: idem.Forever, TryTimeout: idem.Forever, MaxRetryAfter: idem.Forever,
			MaxBody: math.MaxInt64, MaxAnswer: math.MaxInt64,
		}
		r := post(t, nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12.50")), -1
		assert.Equal(t, "done", readAll(t, exchange(t, transport, r)))
		assert.Equal(t, []string{"12.50", "12.50"}, s.bodies)

		// Nor does what a server asks for become nothing because it is so much.
		ctx, stop := context.WithCancel(t.Context())
		s = answers(
			status(503, "", "Date", "Thu, 01 Jan 1970 00:00:00 GMT", "Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"),
		)
		transport.Base, transport.Timeout = s, -1
		transport.Observer = func(try idemhttp.Try) {
			assert.Equal(t, time.Duration(math.MaxInt64), try.Wait)
			stop()
		}
		_, err := transport.RoundTrip(post(t, nil).WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		assert.Len(t, s.sent, 1)

		// An answer that announces more than there can be is a failed try.
		s = answers(
			func(r *http.Request) (*http.Response, error) {
				resp, err := status(200, "half")(r)
				resp.ContentLength = math.MaxInt64
				return resp, err
			},
			status(200, "whole"),
		)
		resp := exchange(t, &idemhttp.Transport{Base: s, MaxAnswer: math.MaxInt64}, post(t, nil))
		assert.Equal(t, "whole", readAll(t, resp))
	})
}
