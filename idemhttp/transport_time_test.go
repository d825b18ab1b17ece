package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

// Waits are random, below a bound that doubles up to MaxBackoff; the observer is told.
func TestTransportBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const first, most, tries, rounds = 10 * time.Millisecond, 60 * time.Millisecond, 6, 400
		var sums [tries - 1]time.Duration
		for range rounds {
			s := answers(fails(errReset), status(503, ""))
			var told []idemhttp.Try
			tr := &idemhttp.Transport{Base: s, MaxTries: tries, MinBackoff: first, MaxBackoff: most, Observer: func(try idemhttp.Try) { told = append(told, try) }}
			resp := exchange(t, tr, post(t, nil))
			readAll(t, resp)
			require.Equal(t, 503, resp.StatusCode, "out of tries, the last answer is returned")
			for i, wait := range s.waits() {
				sums[i] += wait
				bound := min(first<<i, most)
				require.Less(t, wait, bound)
				require.Equal(t, idemhttp.Try{Key: s.keys("Idempotency-Key")[0], Number: i + 1, Status: told[i].Status, Err: told[i].Err, Again: true, Wait: wait}, told[i])
			}
			require.Equal(t, errReset, told[0].Err)
			require.Zero(t, told[0].Status)
			require.Equal(t, idemhttp.Try{Key: told[0].Key, Number: tries, Status: 503}, told[tries-1])
		}
		for i, sum := range sums { // full jitter: half the bound on average; retry_test.go has the spread
			bound := float64(min(first<<i, most))
			assert.InDelta(t, bound/2, float64(sum)/rounds, bound/8, "wait %d", i+1)
		}
	})
}

// Retry-After in seconds, as a date of the server's clock or of ours, not
// waited for when there is no time.
func TestTransportRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		const jitter = 100 * time.Millisecond
		jitters := map[time.Duration]bool{}
		for _, c := range []struct {
			asked any // the field, or a function that makes it and Date
			tr    idemhttp.Transport
			wait  time.Duration
		}{
			{"3", idemhttp.Transport{}, 3 * time.Second},
			{"0", idemhttp.Transport{}, 0},
			{" 2 ", idemhttp.Transport{}, 2 * time.Second},
			{"30", idemhttp.Transport{}, 30 * time.Second},
			{"40", idemhttp.Transport{MaxRetryAfter: 45 * time.Second}, 40 * time.Second},
			{"1.5", idemhttp.Transport{}, 2 * time.Second},
			{"2.0", idemhttp.Transport{}, 2 * time.Second},
			{"1, 4, soon", idemhttp.Transport{}, 4 * time.Second},
			{func() []string { return []string{"Retry-After", "1", "Retry-After", "3"} }, idemhttp.Transport{}, 3 * time.Second},
			{func() []string {
				return []string{"Retry-After", "soon", "Retry-After", date(5 * time.Second), "Retry-After", "2"}
			}, idemhttp.Transport{}, 5 * time.Second},
			{"-5", idemhttp.Transport{}, 0},
			{".5", idemhttp.Transport{}, 0},
			{"soon", idemhttp.Transport{}, 0},
			{func() []string { return []string{"Retry-After", date(7 * time.Second)} }, idemhttp.Transport{}, 7 * time.Second},
			{func() []string { return []string{"Retry-After", date(-7 * time.Second)} }, idemhttp.Transport{}, 0},
			{func() []string {
				return []string{"Retry-After", date(time.Hour + 4*time.Second), "Date", date(time.Hour)}
			}, idemhttp.Transport{}, 4 * time.Second},
		} {
			header := []string{"Retry-After", fmt.Sprint(c.asked)}
			if made, ok := c.asked.(func() []string); ok {
				header = made()
			}
			s := answers(status(503, "", header...), status(200, ""))
			tr := c.tr
			tr.Base = s
			readAll(t, exchange(t, &tr, post(t, nil)))
			require.Len(t, s.sent, 2, header)
			assert.GreaterOrEqual(t, s.waits()[0], c.wait, header)
			assert.Less(t, s.waits()[0], c.wait+jitter, header)
			jitters[s.waits()[0]-c.wait] = true
			time.Sleep(time.Second - time.Duration(time.Now().Nanosecond())) // dates have whole seconds
		}

		assert.Greater(t, len(jitters), 2, "not all at the same moment who were told the same")

		s := answers(status(503, "full", "Retry-After", "20"))
		start := time.Now()
		resp := exchange(t, &idemhttp.Transport{Base: s, Timeout: 15 * time.Second}, post(t, nil))
		assert.Equal(t, "full", readAll(t, resp))
		assert.Len(t, s.sent, 1)
		assert.Zero(t, time.Since(start), "there was no point in waiting")
	})
}

// hang answers when the try is cancelled, with the error that a Base makes of it.
func hang(own error) reply {
	return func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		if own != nil {
			return nil, own
		}
		return nil, context.Cause(r.Context())
	}
}

// Time over all tries, and of each.
func TestTransportTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, own := range []error{nil, errors.New("what this Base says when it is cancelled")} {
			s := answers(hang(own))
			start := time.Now()
			_, err := (&idemhttp.Transport{Base: s}).RoundTrip(post(t, nil))
			assert.Equal(t, time.Minute, time.Since(start))
			assert.Len(t, s.sent, 1)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			failed := failure(t, err)
			assert.True(t, failed.Timeout())
			assert.ErrorContains(t, err, "Transport.Timeout")

			s = answers(hang(own), hang(own), status(200, "at last"))
			start = time.Now()
			resp := exchange(t, &idemhttp.Transport{Base: s, TryTimeout: 5 * time.Second}, post(t, nil))
			assert.Equal(t, "at last", readAll(t, resp))
			assert.Len(t, s.sent, 3)
			assert.GreaterOrEqual(t, time.Since(start), 10*time.Second)
			assert.Less(t, time.Since(start), 11*time.Second)

			s = answers(hang(own))
			start = time.Now()
			_, err = (&idemhttp.Transport{Base: s, TryTimeout: 4 * time.Second, Timeout: 10 * time.Second}).RoundTrip(post(t, nil))
			assert.Equal(t, 10*time.Second, time.Since(start), "the last try has what is left")
			assert.Len(t, s.sent, 3)
			require.ErrorIs(t, err, context.DeadlineExceeded)

			s = answers(hang(own))
			_, err = (&idemhttp.Transport{Base: s, TryTimeout: 4 * time.Second, Timeout: -1, MaxTries: 3}).RoundTrip(post(t, nil))
			assert.Len(t, s.sent, 3)
			assert.ErrorContains(t, err, "Transport.TryTimeout")
		}

		// http.Client knows a timeout when it sees one.
		s := answers(hang(nil))
		_, err := (&http.Client{Transport: &idemhttp.Transport{Base: s}}).Do(post(t, nil))
		var timeout interface{ Timeout() bool }
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())

		// An answer whose header came in time has all the time it takes.
		slow := func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe()
			go func() {
				time.Sleep(time.Hour)
				if r.Context().Err() != nil {
					_ = pw.CloseWithError(r.Context().Err())
					return
				}
				_, _ = pw.Write([]byte("slow"))
				_ = pw.Close()
			}()
			return &http.Response{StatusCode: 200, Body: pr}, nil
		}
		s = answers(slow)
		resp := exchange(t, &idemhttp.Transport{Base: s, TryTimeout: time.Second, Timeout: 2 * time.Second}, post(t, nil))
		require.NoError(t, s.sent[0].Context().Err())
		assert.Equal(t, "slow", readAll(t, resp))
		assert.Error(t, s.sent[0].Context().Err(), "closing the body frees the context")
	})
}

// A 409 whose problem never comes does not hold the call for longer than its time,
// nor for longer than its context.
func TestTransportTimeoutsOfTheProblem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stalls := func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe() // as a connection: nothing comes until the try is over
			context.AfterFunc(r.Context(), func() { _ = pw.CloseWithError(r.Context().Err()) })
			return &http.Response{StatusCode: 409, Header: http.Header{"Content-Type": {problemJSON}}, Body: pr, ContentLength: -1}, nil
		}
		for _, method := range []string{"POST", "GET"} {
			s := answers(stalls)
			r := post(t, nil)
			r.Method = method
			start := time.Now()
			_, err := (&idemhttp.Transport{Base: s, Timeout: 10 * time.Second}).RoundTrip(r)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "Transport.Timeout")
			assert.Equal(t, 10*time.Second, time.Since(start))
			require.Len(t, s.sent, 1)
			assert.Equal(t, 1, s.given[0].closed)

			s = answers(stalls, status(200, "at last"))
			start = time.Now()
			resp := exchange(t, &idemhttp.Transport{Base: s, TryTimeout: 3 * time.Second}, r)
			assert.Equal(t, "at last", readAll(t, resp))
			assert.Equal(t, 3*time.Second, time.Since(start).Truncate(time.Second))
			require.Len(t, s.sent, 2)
			assert.Equal(t, 1, s.given[0].closed)

			s = answers(stalls)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			start = time.Now()
			resp = exchange(t, &idemhttp.Transport{Base: s, Timeout: -1}, r.WithContext(ctx))
			assert.Equal(t, 409, resp.StatusCode)
			assert.Equal(t, 5*time.Second, time.Since(start))
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, context.DeadlineExceeded, "it did not end here")
			require.NoError(t, resp.Body.Close())
			cancel()
		}
	})
}

// The context ends it at any moment, with its error and its cause.
func TestTransportContext(t *testing.T) {
	t.Parallel()
	stop := errors.New("the user has left")
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]reply{
			"in a try": hang(nil), "in a try that hides it": hang(errReset),
			"in a wait after an error": fails(errReset), "in a wait after an answer": status(503, "", "Retry-After", "30"),
			"while an answer is dropped": func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 503, Header: http.Header{}, Body: endless{r.Context()}}, nil
			},
		} {
			for _, cause := range []error{nil, stop} {
				s := answers(answer)
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() {
					time.Sleep(70 * time.Millisecond)
					cancel(cause)
				}()
				start := time.Now()
				_, err := (&idemhttp.Transport{Base: s, MinBackoff: time.Hour, MaxBackoff: time.Hour, Timeout: -1}).RoundTrip(post(t, nil).WithContext(ctx))
				require.ErrorIs(t, err, context.Canceled, name)
				if cause != nil {
					assert.ErrorIs(t, err, cause, name)
				}
				assert.Equal(t, 70*time.Millisecond, time.Since(start), name)
				assert.Len(t, s.sent, 1, name)
				for _, b := range s.given {
					assert.Equal(t, 1, b.closed, name)
				}
			}
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := answers(status(200, ""))
		body := &tracked{ReadCloser: io.NopCloser(strings.NewReader("x"))}
		r := post(t, nil).WithContext(ctx)
		r.Body = body
		_, err := (&idemhttp.Transport{Base: s}).RoundTrip(r)
		require.ErrorIs(t, err, context.Canceled)
		assert.Empty(t, s.sent)
		assert.Equal(t, 1, body.closed)
		assert.Zero(t, body.read)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = (&idemhttp.Transport{Base: answers(hang(nil))}).RoundTrip(post(t, nil).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		failed := failure(t, err)
		assert.True(t, failed.Timeout())
	})
}

// endless is a body of which a little comes now and then.
type endless struct{ ctx context.Context }

func (b endless) Read(p []byte) (int, error) {
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(300 * time.Millisecond):
		return copy(p, "…"), nil
	}
}

func (b endless) Close() error { return nil }
