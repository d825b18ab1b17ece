package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// What a handler has settled or held with its own token stays, whatever it does then.

// A handler that has held its operation by itself is not overruled. What it writes is
// sent, but for a success: retries hear that the outcome is unknown, and so does the first
// client.
func TestHeldByItself(t *testing.T) {
	t.Parallel()
	write := func(status int) http.HandlerFunc {
		return does(code(status))
	}
	say := func(word func(*idemhttp.Operation), status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			word(idemhttp.FromContext(r.Context()))
			w.WriteHeader(status)
		}
	}
	for name, c := range map[string]struct {
		then   http.HandlerFunc
		status int // 0: a problem
	}{
		"success":           {write(201), 0},
		"nothing":           {does(), 0},
		"turned away":       {write(429), 429},
		"error":             {write(502), 502},
		"final error":       {write(409), 409},
		"redirect":          {write(303), 303},
		"said unknown":      {say((*idemhttp.Operation).Unknown, 202), 202},
		"said final":        {say((*idemhttp.Operation).Final, 200), 0},
		"an error returned": {returning(func(http.ResponseWriter, *http.Request) error { return idem.Retryable(errors.New("x")) }, false), 0},
	} {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", run again: ", retry), func(t *testing.T) {
				t.Parallel()
				store := memoryStore(t, idem.Options{})
				s := newSite(t, store, idemhttp.Options{RetryUnknown: retry}, func(w http.ResponseWriter, r *http.Request) {
					assert.NoError(t, store.Hold(r.Context(), idemhttp.FromContext(r.Context()).Token(), []byte("ask the bank")))
					w.Header().Set("X-Written", "1")
					c.then(w, r)
				})
				a := s.post("k")
				if c.status == 0 {
					wantProblem(t, a, 500, idemhttp.TypeOutcomeUnknown)
					require.NotContains(t, a.header, "X-Written")
					require.Len(t, s.heard(), 1)
				} else {
					require.Equal(t, c.status, a.status)
					require.Empty(t, s.heard())
				}
				require.Equal(t, "ask the bank", string(s.wantRecord("k", idem.Held).Result))
				s.wantUnknown("k")
			})
		}
	}
}

// A success that was flushed before it turns out that the operation is held is cut off.
func TestHeldByItselfAndFlushed(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "charging, ")
		flush(w)
		assert.NoError(t, store.Hold(r.Context(), idemhttp.FromContext(r.Context()).Token(), nil))
		fmt.Fprint(w, "charged")
	})
	require.Error(t, s.post("k").err)
	require.Len(t, s.heard(), 1)
	s.wantUnknown("k")
}

// What the handler has recorded with its token is what the first client hears, if there
// is something to hear, and OnError is told of what cannot be replayed the first time.
func TestSettledByItself(t *testing.T) {
	t.Parallel()
	type settle func(s *idem.Store, r *http.Request, t idem.Token) error
	complete := func(result []byte) settle {
		return func(s *idem.Store, r *http.Request, t idem.Token) error { return s.Complete(r.Context(), t, result) }
	}
	fail := func(reason []byte) settle {
		return func(s *idem.Store, r *http.Request, t idem.Token) error { return s.Fail(r.Context(), t, reason) }
	}
	refusal := must(idemhttp.Answer{Status: 402, Body: []byte("no money")}.MarshalBinary())
	newer := must(idemhttp.Answer{Status: 201}.MarshalBinary())
	newer[1]++
	silent := func(http.ResponseWriter) {}
	writes := func(w http.ResponseWriter) { w.WriteHeader(201); fmt.Fprint(w, "written") }
	streams := func(w http.ResponseWriter) { writes(w); flush(w) }
	panics := func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }
	for name, c := range map[string]struct {
		settle settle
		then   func(http.ResponseWriter)
		first  string // body, or type of problem; "cut": the connection is
		retry  string
		told   int // by the first
	}{
		"no answer":                {complete([]byte("text")), writes, idemhttp.TypeUnreadable, idemhttp.TypeUnreadable, 1},
		"no answer, silent":        {complete([]byte("text")), silent, idemhttp.TypeUnreadable, idemhttp.TypeUnreadable, 1},
		"no answer, streams":       {complete([]byte("text")), streams, "cut", idemhttp.TypeUnreadable, 1},
		"no answer, panics":        {complete([]byte("text")), panics, "cut", idemhttp.TypeUnreadable, 1},
		"newer":                    {complete(newer), writes, idemhttp.TypeUnreadable, idemhttp.TypeUnreadable, 1},
		"nothing":                  {complete(nil), writes, "written", idemhttp.TypeNotRetained, 0},
		"nothing, panics":          {complete(nil), panics, "cut", idemhttp.TypeNotRetained, 0},
		"failed":                   {fail([]byte("fraud")), writes, idemhttp.TypeFailed, idemhttp.TypeFailed, 1},
		"failed with an answer":    {fail(refusal), writes, "no money", "no money", 0},
		"an answer":                {complete(refusal), writes, "no money", "no money", 0},
		"an answer, after a flush": {complete(refusal), streams, "written", "no money", 0},
		"an answer, panics":        {complete(refusal), panics, "cut", "no money", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memoryStore(t, idem.Options{})
			s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Written", "1")
				assert.NoError(t, c.settle(store, r, idemhttp.FromContext(r.Context()).Token()))
				c.then(w)
			})
			want := func(a answer, want string) {
				t.Helper()
				switch want {
				case "cut":
					require.Error(t, a.err)
				case "written", "no money":
					require.NoError(t, a.err)
					require.Equal(t, want, a.body)
					require.Equal(t, want == "written", a.header.Get("X-Written") != "")
				default:
					wantProblem(t, a, 500, want)
					require.NotContains(t, a.header, "X-Written")
					require.NotContains(t, a.body, "fraud")
				}
			}
			want(s.post("k"), c.first)
			s.settled("k")
			require.Len(t, s.heard(), c.told)
			want(s.post("k"), c.retry)
			require.EqualValues(t, 1, s.runs.Load())
			if c.retry == idemhttp.TypeUnreadable {
				require.Len(t, s.heard(), 2)
				require.ErrorIs(t, s.heard()[1], map[bool]error{true: idem.ErrVersion, false: idem.ErrCorrupt}[name == "newer"])
			}
		})
	}
}

// Operators that settle an operation while its handler runs.

// What an operator has settled stays, however the handler ends. The first client and
// all retries then hear one thing, and nothing that was to be final is run again.
func TestSettledWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	paid := must(idemhttp.Answer{Status: 201, Body: []byte("by hand")}.MarshalBinary())
	ends := map[string]func(http.ResponseWriter, *http.Request){
		"200":     does(put("by the handler")),
		"429":     does(code(429)),
		"500":     does(code(500)),
		"nothing": does(),
		"panic":   does(quit),
	}
	for name, c := range map[string]struct {
		settle func(context.Context, *idem.Store, idem.Token) error
		after  func(t *testing.T, s *site, end string, first answer)
	}{
		"complete": {
			func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Complete(ctx, t, paid) },
			func(t *testing.T, s *site, end string, first answer) {
				if end != "panic" {
					require.Equal(t, "by hand", first.body)
				}
				a := s.post("k")
				require.Equal(t, "by hand", a.body)
				require.True(t, a.replayed())
			},
		},
		"fail": {
			func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Fail(ctx, t, []byte("fraud")) },
			func(t *testing.T, s *site, end string, first answer) {
				if end != "panic" {
					wantProblem(t, first, 500, idemhttp.TypeFailed)
				}
				wantProblem(t, s.post("k"), 500, idemhttp.TypeFailed)
			},
		},
		"hold": {
			func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Hold(ctx, t, []byte("wait")) },
			func(t *testing.T, s *site, end string, first answer) {
				require.NotEqual(t, 2, first.status/100)
				s.wantUnknown("k")
				require.Equal(t, "wait", string(s.wantRecord("k", idem.Held).Result))
			},
		},
		"release": {
			func(ctx context.Context, s *idem.Store, t idem.Token) error {
				return s.Release(ctx, t, []byte("again"))
			},
			func(t *testing.T, s *site, end string, first answer) {
				if end == "200" || end == "nothing" {
					wantProblem(t, first, 503, idemhttp.TypeNotRecorded)
				}
				require.Equal(t, "again", string(s.wantRecord("k", idem.Released).Result))
			},
		},
		"forget": {
			func(ctx context.Context, s *idem.Store, t idem.Token) error {
				return s.Forget(ctx, idem.Token{Key: t.Key})
			},
			func(t *testing.T, s *site, end string, first answer) {
				if end == "200" || end == "nothing" {
					wantProblem(t, first, 503, idemhttp.TypeNotRecorded)
				}
				s.wantNoRecord("k")
			},
		},
	} {
		for end, f := range ends {
			t.Run(name+", "+end, func(t *testing.T) {
				t.Parallel()
				g := newGate(t)
				s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
					g.entered <- r
					g.wait()
					f(w, r)
				})
				answers := make(chan answer)
				go func() { answers <- s.post("k") }()
				<-g.entered
				key := idemhttp.StoreKey("shop", "k")
				none := idem.Token{Key: key}
				for _, err := range []error{
					s.store.Complete(t.Context(), none, paid), s.store.Fail(t.Context(), none, nil),
					s.store.Hold(t.Context(), none, nil), s.store.Release(t.Context(), none, nil),
				} {
					require.ErrorIs(t, err, idem.ErrInvalid, "a token without a fence is of no claim")
				}
				require.NoError(t, c.settle(t.Context(), s.store, s.wantRecord("k", idem.InFlight).Token()))
				close(g.leave)
				first := <-answers
				require.Equal(t, end == "panic", first.err != nil)
				c.after(t, s, end, first)
				require.EqualValues(t, 1, s.runs.Load())
			})
		}
	}
}
