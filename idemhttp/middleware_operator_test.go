package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// Operators that settle an operation while its handler runs.

// all retries then hear one thing, and nothing that was to be final is run again.
func TestSettledWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	paid := must(idemhttp.Answer{Status: 201, Body: []byte("by hand")}.MarshalBinary())
	ends := map[string]func(http.ResponseWriter, *http.Request){
		"200":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "by the handler") },
		"429":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"500":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"panic":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
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
