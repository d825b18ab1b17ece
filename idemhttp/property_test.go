package idemhttp_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// moves is a random handler: what it does with its ResponseWriter, step by step.
type moves []step

type step struct {
	do    string
	name  string
	value string
	n     int
}

// play reports whether a source failed it after the answer had begun.
func (s moves) play(w http.ResponseWriter) (cut bool) {
	begun := false
	for _, st := range s {
		switch st.do {
		case "set":
			w.Header().Set(st.name, st.value)
		case "add":
			w.Header().Add(st.name, st.value)
		case "del":
			w.Header().Del(st.name)
		case "status":
			w.WriteHeader(st.n)
		case "write":
			_, _ = w.Write([]byte(st.value))
		case "string":
			_, _ = io.WriteString(w, st.value)
		case "copy":
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader(st.value)})
		case "cut":
			_, err := io.Copy(w, struct{ io.Reader }{io.MultiReader(strings.NewReader(st.value), iotest.ErrReader(errCut))})
			cut = cut || err == errCut && (begun || st.value != "")
		case "flush":
			flush(w)
		}
		switch st.do {
		case "write", "string", "flush":
			begun = true
		case "status":
			begun = begun || st.n >= 200
		case "copy", "cut":
			begun = begun || st.value != ""
		}
	}
	return cut
}

var errCut = errors.New("the source is gone")

func drawMoves(t *rapid.T) moves {
	text := rapid.OneOf(
		rapid.SampledFrom([]string{"", "x", "<!DOCTYPE html>", "\x1f\x8b\x08", "<p>", "{}", "\x00\xff"}),
		rapid.Custom(func(t *rapid.T) string { return repeat("<p>text ", rapid.IntRange(1, 3000).Draw(t, "size")) }),
	)
	name := rapid.SampledFrom([]string{"X-A", "X-B", "Vary", "X-Outer", "Content-Type", "Etag", "Server", "Set-Cookie", "Content-Encoding", "Cache-Control"})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		switch do := rapid.SampledFrom([]string{
			"set", "set", "add", "del", "status", "write", "write", "string", "copy", "cut", "flush", "length", "trailer", "early",
		}).Draw(t, "do"); do {
		case "set", "add", "del":
			return step{do: do, name: name.Draw(t, "name"), value: rapid.SampledFrom([]string{"", "a", "text/plain", "b, c"}).Draw(t, "value")}
		case "length":
			return step{do: "set", name: "Content-Length", value: fmt.Sprint(rapid.SampledFrom([]int{0, 1, 3, 15, 3000, -1}).Draw(t, "length"))}
		case "trailer":
			return step{do: "set", name: http.TrailerPrefix + "X-Sum", value: "1"}
		case "status":
			return step{do: do, n: rapid.SampledFrom([]int{200, 201, 202, 204, 206, 299, 302, 304, 400, 404, 409, 410, 422}).Draw(t, "status")}
		case "early":
			return step{do: "status", n: 103}
		default:
			return step{do: do, value: text.Draw(t, "text")}
		}
	}), 0, 12).Draw(t, "moves")
}

// Whatever a handler does, a client sees what it sees without the middleware, and
// every retry sees that again, or is told that it is not there: which it is only if it
// was too long, cut off, or had trailers.
func TestReplayEqualsFirstAnswer(t *testing.T) {
	t.Parallel()
	const limit = 4000
	var current atomic.Pointer[moves]
	var runs atomic.Int32
	var cut atomic.Bool
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs.Add(1)
		cut.Store(current.Load().play(w))
	})
	outer := around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("X-Outer", "outer")
		w.Header().Set("Vary", "Origin")
		next.ServeHTTP(w, r)
	})
	// By way of ReadFrom, net/http writes past the Content-Length and into the next
	// answer of the connection, which is not what is wanted.
	bare := httptest.NewUnstartedServer(outer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(withoutReadFrom{w}, r)
	})))
	bare.Config.ErrorLog = discard
	bare.Start()
	t.Cleanup(bare.Close)
	store := memoryStore(t, idem.Options{})
	s := newSite(t, store, idemhttp.Options{MaxResponse: limit, KeepHeader: func(string) bool { return true }}, handler.ServeHTTP, outer)
	without := &site{t: t, url: bare.URL, http: bare.Client()}
	without.http.CheckRedirect = s.http.CheckRedirect
	for _, c := range []*http.Client{s.http, without.http} {
		// An answer that is cut off closes its connection, at a moment of its own.
		c.Transport.(*http.Transport).DisableKeepAlives = true
	}

	n := 0
	rapid.Check(t, func(t *rapid.T) {
		sc := drawMoves(t)
		if text := fmt.Sprint(sc); strings.Contains(text, http.TrailerPrefix) && strings.Contains(text, "Content-Length") {
			t.Skip("trailers are not sent with a Content-Length")
		}
		current.Store(&sc)
		n++
		key := fmt.Sprint("case-", n)
		want := without.post("")
		runs.Store(0)
		first, retry := s.post(key), s.post(key)
		require.EqualValues(t, 1, runs.Load())

		require.Equal(t, want.err == nil, first.err == nil, "%v, %v", want.err, first.err)
		if want.err == nil { // of what is cut off nothing else is promised
			require.Equal(t, want.status, first.status)
			require.Equal(t, comparable(want.header), comparable(first.header))
			require.Equal(t, want.body, first.body)
		}

		trailer := strings.Contains(fmt.Sprint(sc), http.TrailerPrefix)
		if cannot := first.err != nil || len(first.body) > limit || cut.Load(); cannot || trailer && !retry.replayed() {
			wantProblem(t, retry, 500, idemhttp.TypeNotRetained)
			return
		}
		require.True(t, retry.replayed(), retry.body)
		require.NoError(t, retry.err)
		require.Equal(t, first.status, retry.status)
		require.Equal(t, comparable(first.header), comparable(retry.header))
		require.Equal(t, first.body, retry.body)
	})
}

type withoutReadFrom struct{ http.ResponseWriter }

func (w withoutReadFrom) Unwrap() http.ResponseWriter { return w.ResponseWriter }
