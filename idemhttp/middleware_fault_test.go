package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// Clients that leave, and stores that fail.

// That the client has gone does not hide what a handler has recorded in its own commit:
// it is the answer, and nothing failed.
func TestGoneAfterOwnCommit(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		store := memoryStore(t, idem.Options{})
		ctx, leave := context.WithCancel(t.Context())
		var told []error
		h := once(store, idemhttp.Options{
			OnError: func(_ *http.Request, err error) { told = append(told, err) },
		}, func(_ http.ResponseWriter, r *http.Request) {
			bytes, err := idemhttp.Answer{Status: 201, Body: []byte("paid")}.MarshalBinary()
			assert.NoError(t, err)
			assert.NoError(t, store.Complete(r.Context(), idemhttp.FromContext(r.Context()).Token(), bytes))
			leave()
			if panics {
				panic(http.ErrAbortHandler)
			}
		})
		w := httptest.NewRecorder()
		serve := func() { h.ServeHTTP(w, keyed("k").WithContext(ctx)) }
		if panics {
			require.PanicsWithValue(t, http.ErrAbortHandler, serve)
		} else {
			serve()
			require.Equal(t, 201, w.Code)
			require.Equal(t, "paid", w.Body.String())
		}
		require.Empty(t, told)
	}
}

// Inside of the middleware http.TimeoutHandler answers while its handler goes on. The
// docs say never to. Its bare 503 is an unknown outcome, so nothing runs next to it.
func TestTimeoutHandlerInside(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	inner := http.TimeoutHandler(g, time.Millisecond, "too slow")
	s := newSite(t, nil, idemhttp.Options{}, inner.ServeHTTP)
	require.Equal(t, 503, s.post("k").status)
	<-g.entered
	s.wantUnknown("k") // while the handler still runs
	require.Empty(t, g.entered)
	close(g.leave)
}

func TestStoreDown(t *testing.T) {
	t.Parallel()
	broken := func(t *testing.T) *idem.Store {
		b := storetest.NewRich()
		store := storeOn(t, b, idem.Options{})
		b.Breaking.Store(true)
		return store
	}
	for name, c := range map[string]struct {
		store  func(t *testing.T) *idem.Store
		status int
		kind   string
		cause  error
	}{
		"broken at the claim": {broken, 503, idemhttp.TypeUnavailable, idem.ErrBroken},
		"broken before": {func(t *testing.T) *idem.Store {
			store := broken(t)
			_, err := store.Claim(t.Context(), idem.Request{Key: "k"})
			require.ErrorIs(t, err, idem.ErrBroken)
			return store
		}, 503, idemhttp.TypeUnavailable, idem.ErrBroken},
		"closed": {func(t *testing.T) *idem.Store {
			store := memoryStore(t, idem.Options{})
			require.NoError(t, store.Close())
			return store
		}, 503, idemhttp.TypeUnavailable, idem.ErrClosed},
		"full": {func(t *testing.T) *idem.Store {
			store := storeOn(t, memory.New(memory.Options{MaxRecords: 1}), idem.Options{})
			_, err := store.Claim(t.Context(), idem.Request{Key: "other"})
			require.NoError(t, err)
			return store
		}, 503, idemhttp.TypeFull, idem.ErrFull},
		"corrupt record": {func(t *testing.T) *idem.Store {
			b := storetest.NewRich()
			corrupt := fmt.Errorf("%w: a bit", idem.ErrCorrupt)
			b.Unreadable.Store(&corrupt)
			return storeOn(t, b, idem.Options{})
		}, 500, idemhttp.TypeUnreadable, idem.ErrCorrupt},
		"newer record": {func(t *testing.T) *idem.Store {
			b := storetest.NewRich()
			newer := fmt.Errorf("%w: 9", idem.ErrVersion)
			b.Unreadable.Store(&newer)
			return storeOn(t, b, idem.Options{})
		}, 500, idemhttp.TypeUnreadable, idem.ErrVersion},
		"exhausted": {func(t *testing.T) *idem.Store {
			store := memoryStore(t, idem.Options{MaxAttempts: 1})
			claim, err := store.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("shop", "secret-key")})
			require.NoError(t, err)
			require.NoError(t, store.Release(t.Context(), claim.Token, nil))
			return store
		}, 500, idemhttp.TypeExhausted, idem.ErrExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.store(t), idemhttp.Options{Wait: time.Hour}, echo)
			for n := range 2 {
				a := s.post("secret-key")
				wantProblem(t, a, c.status, c.kind)
				require.Equal(t, c.status == 503, a.header.Get("Retry-After") != "")
				require.NotContains(t, a.body, "secret-key")
				require.NotContains(t, a.body, "disk")
				require.Len(t, s.heard(), n+1)
				require.ErrorIs(t, s.heard()[n], c.cause)
				var told idemhttp.Problem
				require.ErrorAs(t, s.heard()[n], &told)
				require.Equal(t, s.store.KeyHash(idemhttp.StoreKey("shop", "secret-key")), told.KeyHash, "for the log")
				require.Contains(t, told.Error(), told.KeyHash)
				require.NotContains(t, a.body, told.KeyHash, "and not for the client")
				require.NotContains(t, told.Error(), "secret-key")
			}
			require.Zero(t, s.runs.Load())
		})
	}
}

// The handler has run and its outcome is not recorded: no client may take it for done.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		cut    bool // the header was out: only the connection can tell
	}{
		"whole answer":       {does(code(201), put("paid")), false},
		"nothing":            {does(), false},
		"an error":           {does(code(500)), false},
		"turned away":        {does(code(503)), false},
		"flushed":            {does(put("paid"), flush), true},
		"flushed header":     {does(flush), true},
		"over the limit":     {does(put(repeat("paid", 20_000))), true},
		"own length":         {does(set("Content-Length", "4"), put("pa"), flush, put("id"), flush), true},
		"own length, large":  {does(set("Content-Length", "20000"), put(repeat("paid", 20_000)), flush), true},
		"own length, copied": {does(set("Content-Length", "20000"), pipe(text(repeat("paid", 20_000)))), true},
		"flushed whole":      {does(set("Content-Length", "4"), put("paid"), flush), false},
		"flushed 204":        {does(code(204), flush), false},
		"trailers":           {does(set("Trailer", "X"), put("paid")), true},
	} {
		for _, how := range []string{"broken", "closed", "forgotten"} {
			if name == "turned away" && how == "forgotten" {
				continue // there was nothing to record
			}
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				b := storetest.NewRich()
				store := storeOn(t, b, idem.Options{})
				s := newSite(t, store, idemhttp.Options{MaxResponse: 10_000}, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Location", "/payments/1")
					w.Header().Set("Set-Cookie", "a=b")
					w.Header().Set("Content-Type", "application/json")
					c.answer(w, r)
					switch how {
					case "broken":
						b.Breaking.Store(true)
					case "closed":
						assert.NoError(t, store.Close())
					case "forgotten":
						assert.NoError(t, store.Forget(r.Context(), idem.Token{Key: idemhttp.FromContext(r.Context()).Token().Key}))
					}
				})
				a := s.post("k")
				if c.cut {
					require.Error(t, a.err, a.body)
				} else {
					wantProblem(t, a, 503, idemhttp.TypeNotRecorded)
					require.NotEmpty(t, a.header.Get("Retry-After"))
					require.NotContains(t, a.header, "Location")
					require.NotContains(t, a.header, "Set-Cookie")
				}
				require.Len(t, s.heard(), 1)
				require.ErrorIs(t, s.heard()[0], map[string]error{"broken": idem.ErrBroken, "closed": idem.ErrClosed, "forgotten": idem.ErrFenced}[how])
			})
		}
	}
}

// Behind a hijacked connection nobody can be told but the server.
func TestNotRecordedHijacked(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if assert.NoError(t, err) {
			assert.NoError(t, store.Close())
			conn.Close()
		}
	}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		assert.NotPanics(t, func() { next.ServeHTTP(w, r) })
	}))
	require.Error(t, s.post("k").err)
	for len(s.heard()) == 0 { // the client hears of the end first
		runtime.Gosched()
	}
	require.Len(t, s.heard(), 1)
}

// A panic that cannot be recorded still goes on, and the server is told.
func TestPanicNotRecorded(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	s := newSite(t, store, idemhttp.Options{}, func(http.ResponseWriter, *http.Request) {
		assert.NoError(t, store.Close())
		panic("and that")
	})
	require.Error(t, s.post("k").err)
	require.ErrorIs(t, errors.Join(s.heard()...), idem.ErrClosed)
}

// Shutdown turns new requests away and lets those under way be recorded.
func TestShutdown(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		g := newGate(t)
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			if idemhttp.FromContext(r.Context()).Key() == "k" {
				g.ServeHTTP(w, r)
			}
		})
		first := make(chan answer)
		go func() { first <- s.post("k") }()
		<-g.entered
		down := make(chan error)
		go func() { down <- store.Shutdown(context.Background()) }()
		for {
			a := s.post("other")
			if a.status == 503 {
				wantProblem(t, a, 503, idemhttp.TypeUnavailable)
				require.NotEmpty(t, a.header.Get("Retry-After"))
				break
			}
			require.Equal(t, 200, a.status, "not begun yet")
		}
		close(g.leave)
		require.Equal(t, "done", (<-first).body)
		require.NoError(t, <-down)
	})
}

// leaving sends a request whose client leaves when leave is called.
func (s *site) leaving(key string) (leave func(), gone <-chan error) {
	s.t.Helper()
	ctx, leave := context.WithCancel(s.t.Context())
	r := must(http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/payments", strings.NewReader("12.50")))
	r.Header.Set("Idempotency-Key", key)
	done := make(chan error, 1)
	go func() { done <- s.send(r).err }()
	return leave, done
}

// A handler goes on when its client leaves, and does not notice. The retry gets the answer.
func TestClientGone(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		for _, stream := range []bool{false, true} {
			g := newGate(t)
			var written error
			s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
				if stream {
					fmt.Fprint(w, "part 1, ")
					flush(w)
				}
				g.entered <- r
				g.wait()
				written = r.Context().Err()
				for range 100 { // enough to notice that nobody is there, if it were for that
					if _, err := fmt.Fprint(w, repeat("part 2 ", 1000)); err != nil {
						written = err
					}
					if stream {
						flush(w)
					}
				}
			})
			key := fmt.Sprint("stream-", stream)
			leave, gone := s.leaving(key)
			inner := <-g.entered
			server := inner.Context().Value(http.ServerContextKey).(*http.Server)
			leave()
			require.ErrorIs(t, <-gone, context.Canceled)
			require.NotNil(t, server, "what the context holds is still there")
			require.NoError(t, inner.Context().Err())
			close(g.leave)
			s.settled(key)
			replay := s.post(key)
			require.NoError(t, written)
			require.True(t, replay.replayed())
			require.Equal(t, 200, replay.status)
			require.True(t, strings.HasSuffix(replay.body, repeat("part 2 ", 1000)))
			if stream {
				require.Len(t, replay.body, len("part 1, ")+100_000)
			}
			require.EqualValues(t, 1, s.runs.Load())
		}
	})
}

// With CancelWithClient a handler is stopped when its client leaves, and its word counts.
// Half an answer is shown to no retry; the end of a stream without an end may be meant.
func TestStoppedByTheClient(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]idem.State{
		"half": idem.Completed, "stream": idem.Completed, "stream, retryable": idem.Released,
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			s := newSite(t, nil, idemhttp.Options{CancelWithClient: true}, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "half of")
				if key != "half" {
					flush(w)
				}
				g.entered <- r
				<-r.Context().Done()
				if key == "stream, retryable" {
					idemhttp.FromContext(r.Context()).Retryable()
				}
			})
			leave, gone := s.leaving("k")
			<-g.entered
			leave()
			<-gone
			s.settled("k")
			s.wantRecord("k", want)
			if want == idem.Completed {
				s.wantNotRetained("k", 200)
			}
		})
	}
}
