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

// The largest values of all limits mean none: bodies are sent whole, and time does not
// run out at once.
func TestTransportWithoutLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second) // so that its clock is past zero
		s := &script{answers: []func(*http.Request) (*http.Response, error){
			fails(errReset),
			func(r *http.Request) (*http.Response, error) {
				time.Sleep(time.Hour)
				return status(200, "done")(r)
			},
		}}
		transport := &idemhttp.Transport{
			Base: s, Timeout: idem.Forever, TryTimeout: idem.Forever, MaxRetryAfter: idem.Forever,
			MaxBody: math.MaxInt64, MaxAnswer: math.MaxInt64,
		}
		r := post(t, nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12.50")), -1
		resp, err := transport.RoundTrip(r)
		require.NoError(t, err)
		assert.Equal(t, "done", readAll(t, resp))
		assert.Equal(t, []string{"12.50", "12.50"}, s.bodies)

		// Nor does what a server asks for become nothing because it is so much.
		ctx, stop := context.WithCancel(t.Context())
		s = &script{answers: []func(*http.Request) (*http.Response, error){
			status(503, "", "Date", "Thu, 01 Jan 1970 00:00:00 GMT", "Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"),
		}}
		transport.Base, transport.Timeout = s, -1
		transport.Observer = func(try idemhttp.Try) {
			assert.Equal(t, time.Duration(math.MaxInt64), try.Wait)
			stop()
		}
		_, err = transport.RoundTrip(post(t, nil).WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		assert.Len(t, s.sent, 1)

		// An answer that announces more than there can be is a failed try.
		s = &script{answers: []func(*http.Request) (*http.Response, error){
			func(r *http.Request) (*http.Response, error) {
				resp, err := status(200, "half")(r)
				resp.ContentLength = math.MaxInt64
				return resp, err
			},
			status(200, "whole"),
		}}
		resp, err = (&idemhttp.Transport{Base: s, MaxAnswer: math.MaxInt64}).RoundTrip(post(t, nil))
		require.NoError(t, err)
		assert.Equal(t, "whole", readAll(t, resp))
	})
}

// A body that is sent once is not read into memory before.
func TestTransportOneTryKeepsNoBody(t *testing.T) {
	t.Parallel()
	s := &script{answers: []func(*http.Request) (*http.Response, error){fails(errReset)}}
	r := post(t, nil)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12.50")), -1
	_, err := (&idemhttp.Transport{Base: s, MaxTries: 1}).RoundTrip(r)
	require.ErrorIs(t, err, errReset)
	assert.Equal(t, []string{"12.50"}, s.bodies)
	assert.EqualValues(t, -1, s.sent[0].ContentLength, "nobody has counted it")
}
