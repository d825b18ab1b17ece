package idemhttp_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/idemhttp"
)

// What Observers and callers are given can be logged: the key does not show. Who has it
// is shown the answer of the operation.
func TestTransportLogsNoKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){status(503, ""), fails(errReset)}}
		var tries []idemhttp.Try
		r := post(t, nil)
		r.Header.Set("Idempotency-Key", `"secret"`)
		_, err := (&idemhttp.Transport{Base: s, MaxTries: 2, Observer: func(try idemhttp.Try) { tries = append(tries, try) }}).RoundTrip(r)
		var failed *idemhttp.TransportError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, `"secret"`, failed.Key)
		require.Len(t, tries, 2)
		require.Equal(t, `"secret"`, tries[0].Key)

		var out bytes.Buffer
		for _, v := range []any{tries[0], &tries[0], tries[1], tries, err, errors.Join(err)} {
			fmt.Fprintf(&out, "%v %+v %#v %s %q\n", v, v, v, v, v)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("tried", "try", tries[0], "last", &tries[1], "err", err)
		}
		assert.NotContains(t, out.String(), "secret")
		assert.NotContains(t, out.String(), fmt.Sprintf("%x", "secret"))

		assert.Equal(t, "try 1: status 503, again after "+tries[0].Wait.String(), fmt.Sprint(tries[0]))
		assert.Equal(t, "try 2: connection reset by a test", fmt.Sprint(tries[1]))
		assert.Contains(t, out.String(), `"try":{"number":1,"status":503,"again":true,"wait":`)
		assert.Contains(t, out.String(), `"last":{"number":2,"error":"connection reset by a test"}`)
		assert.Equal(t, `"secret"`, failed.Key)
	})
}

// An Observer that panics changes nothing: the request is tried again, and answered.
func TestTransportObserverPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){status(503, ""), status(201, "charged")}}
		tries := 0
		resp, err := (&idemhttp.Transport{Base: s, Observer: func(idemhttp.Try) { tries++; panic("the log is gone") }}).RoundTrip(post(t, nil))
		require.NoError(t, err)
		require.Equal(t, "charged", readAll(t, resp))
		require.Equal(t, 2, tries)
	})
}
