package idemhttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// Middlewares inside of one another, in one process and over a proxy.

// A request that a handler makes in-process is not its answer: that it was refused
// says nothing of the operation, which is done and must not be run again (E10).
func TestE10RefusedSubRequest(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	inner := idemhttp.New(store, scopeOf, idemhttp.Options{})(http.HandlerFunc(echo))
	s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		sub := httptest.NewRequest(http.MethodPost, "/mails", strings.NewReader("paid")).WithContext(r.Context())
		sub.Header.Set("Idempotency-Key", "not, a key")
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, sub)
		assert.Equal(t, 400, recorder.Code)
		fmt.Fprint(w, "charged")
	})
	first, replay := s.replayOf("k")
	require.Equal(t, "charged", first.body)
	require.Equal(t, "charged", replay.body)
	require.EqualValues(t, 1, s.runs.Load())
	s.wantRecord("k", idem.Completed)
}

// passWriter is a ResponseWriter between two middlewares.
type passWriter struct{ http.ResponseWriter }

func (w passWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A refusal by a middleware further in, that is the answer, is none of the operation,
// also where a ResponseWriter lies between (E3, E10).
func TestE10RefusedFurtherIn(t *testing.T) {
	t.Parallel()
	inner := idemhttp.New(memoryStore(t, idem.Options{}), scopeOf, idemhttp.Options{Header: "Inner-Key"})(http.HandlerFunc(echo))
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(passWriter{w}, r) })
	for range 2 {
		wantProblem(t, s.post("k", "Inner-Key", "not, a key"), 400, idemhttp.TypeKeyInvalid)
	}
	require.EqualValues(t, 2, s.runs.Load())
	s.wantRecord("k", idem.Released)
	require.Equal(t, "12.50 <nil>", s.post("k", "Inner-Key", "a-key").body)
}
