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
				s := &script{answers: []func(*http.Request) (*http.Response, error){busy}}
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
				s = &script{answers: []func(*http.Request) (*http.Response, error){status(503, "", "Retry-After", "7"), status(201, "charged")}}
				resp, err = do(&idemhttp.Transport{Base: s, Timeout: timeout}, post(t, nil))
				require.NoError(t, err, name)
				assert.Equal(t, "charged", readAll(t, resp), name)
				assert.Len(t, s.sent, 2, name)
			}

			// Nor is a backoff begun. All but one in 10^8 of them would be too long.
			s := &script{answers: []func(*http.Request) (*http.Response, error){fails(errReset)}}
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
			s := &script{answers: []func(*http.Request) (*http.Response, error){status(429, "slow down", "Retry-After", c.asked), status(201, "charged")}}
			start := time.Now()
			resp, err := (&idemhttp.Transport{Base: s, MaxRetryAfter: c.most}).RoundTrip(post(t, nil))
			require.NoError(t, err)
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
		s := &script{answers: []func(*http.Request) (*http.Response, error){func(r *http.Request) (*http.Response, error) {
			cancel()
			return status(503, "busy")(r)
		}}}
		resp, err := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil).WithContext(ctx))
		require.NoError(t, err)
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
		for name, answer := range map[string]func(*http.Request) (*http.Response, error){
			"in a wait": status(503, "", "Retry-After", "20"),
			"in a try": func(r *http.Request) (*http.Response, error) {
				<-r.Cancel //nolint:staticcheck // deprecated, and net/http still obeys it
				return nil, errReset
			},
		} {
			s := &script{answers: []func(*http.Request) (*http.Response, error){answer}}
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
