package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	"github.com/idemkv/idem/memory"
)

// Clients that leave, and stores that fail.

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
			ctx, leave := context.WithCancel(t.Context())
			r := must(http.NewRequestWithContext(ctx, "POST", s.url+"/payments", strings.NewReader("12.50")))
			r.Header.Set("Idempotency-Key", key)
			gone := make(chan error)
			go func() { gone <- s.send(r).err }()
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

func TestCancelWithClient(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	s := newSite(t, nil, idemhttp.Options{CancelWithClient: true}, func(w http.ResponseWriter, r *http.Request) {
		g.entered <- r
		<-r.Context().Done()
		idemhttp.FromContext(r.Context()).Retryable()
		http.Error(w, "stopped", http.StatusServiceUnavailable)
	})
	ctx, leave := context.WithCancel(t.Context())
	r := must(http.NewRequestWithContext(ctx, "POST", s.url+"/payments", strings.NewReader("12.50")))
	r.Header.Set("Idempotency-Key", "k")
	go s.send(r)
	<-g.entered
	leave()
	rec, err := s.store.Wait(t.Context(), idemhttp.StoreKey("shop", "k"))
	require.NoError(t, err)
	require.Equal(t, idem.Released, rec.State)
}

// A handler that was stopped halfway through its answer has left half of one, which no
// retry is shown.
func TestHalfAnAnswerOfAHandlerThatWasStopped(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	s := newSite(t, nil, idemhttp.Options{CancelWithClient: true}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "half of")
		g.entered <- r
		<-r.Context().Done()
	})
	ctx, leave := context.WithCancel(t.Context())
	r := must(http.NewRequestWithContext(ctx, "POST", s.url+"/payments", strings.NewReader("12.50")))
	r.Header.Set("Idempotency-Key", "k")
	go s.send(r)
	<-g.entered
	leave()
	s.settled("k")
	s.wantRecord("k", idem.Completed)
	again := s.post("k")
	require.Equal(t, 500, again.status)
	require.Contains(t, again.body, idemhttp.TypeNotRetained)
	require.EqualValues(t, 1, s.runs.Load())
}

// A stream without an end ends with its client, and says what that means.
func TestOpenEndedStream(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{CancelWithClient: true}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: 1\n\n")
		flush(w)
		<-r.Context().Done()
		if idemhttp.FromContext(r.Context()).Key() == "says" {
			idemhttp.FromContext(r.Context()).Retryable()
		}
	})
	for key, want := range map[string]idem.State{"says": idem.Released, "silent": idem.Completed} {
		ctx, leave := context.WithCancel(t.Context())
		r := must(http.NewRequestWithContext(ctx, "POST", s.url+"/payments", strings.NewReader("12.50")))
		r.Header.Set("Idempotency-Key", key)
		resp, err := s.http.Do(r)
		require.NoError(t, err)
		leave()
		resp.Body.Close()
		s.settled(key)
		s.wantRecord(key, want)
	}
}

// Each repetition of a held key is told.
func TestHeldIsToldEachTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	require.Equal(t, 500, s.post("k").status)
	require.Empty(t, s.heard(), "the handler knows its own")
	s.wantUnknown("k") // asks twice
	require.Len(t, s.heard(), 2)
	require.ErrorIs(t, s.heard()[1], idem.ErrHeld)
}

// That the client has gone does not hide what a handler has recorded in its own commit:
// it is the answer, and nothing failed.
func TestGoneAfterOwnCommit(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		store := memoryStore(t, idem.Options{})
		ctx, leave := context.WithCancel(t.Context())
		var told []error
		h := idemhttp.New(store, scopeOf, idemhttp.Options{
			OnError: func(_ *http.Request, err error) { told = append(told, err) },
		})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			bytes, err := idemhttp.Answer{Status: 201, Body: []byte("paid")}.MarshalBinary()
			assert.NoError(t, err)
			assert.NoError(t, store.Complete(r.Context(), idemhttp.FromContext(r.Context()).Token(), bytes))
			leave()
			if panics {
				panic(http.ErrAbortHandler)
			}
		}))
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

// http.TimeoutHandler gives up on the handler; the handler goes on, and the retry
// gets its answer.
func TestTimeoutHandler(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	s := newSite(t, nil, idemhttp.Options{}, g.ServeHTTP, func(next http.Handler) http.Handler {
		return http.TimeoutHandler(next, time.Millisecond, "too slow")
	})
	for len(g.entered) == 0 { // a slow machine may time out before the claim
		if a := s.post("k"); a.status != 409 {
			require.Equal(t, 503, a.status)
			require.Equal(t, "too slow", a.body)
		}
	}
	close(g.leave)
	s.settled("k")
	s.wantRecord("k", idem.Completed)
	for {
		if a := s.post("k"); a.status != 503 {
			require.True(t, a.replayed())
			require.Equal(t, "done", a.body)
			return
		}
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

// A client that breaks off its body has asked for nothing.
func TestGoneInTheBody(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, echo)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\nhalf")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	resp := readResponse(t, conn)
	require.Equal(t, 400, resp.StatusCode)
	require.Zero(t, s.runs.Load())
	s.wantNothingStored()
	require.Empty(t, s.heard())
}

func TestStoreDown(t *testing.T) {
	t.Parallel()
	broken := func(t *testing.T) *idem.Store {
		b := &breakable{Backend: memory.New(memory.Options{})}
		store := storeOn(t, b, idem.Options{})
		b.commit.Store(true)
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
			b := &breakable{Backend: memory.New(memory.Options{})}
			corrupt := fmt.Errorf("%w: a bit", idem.ErrCorrupt)
			b.read.Store(&corrupt)
			return storeOn(t, b, idem.Options{})
		}, 500, idemhttp.TypeUnreadable, idem.ErrCorrupt},
		"newer record": {func(t *testing.T) *idem.Store {
			b := &breakable{Backend: memory.New(memory.Options{})}
			newer := fmt.Errorf("%w: 9", idem.ErrVersion)
			b.read.Store(&newer)
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
		answer func(w http.ResponseWriter)
		cut    bool // the header was out: only the connection can tell
	}{
		"whole answer":   {func(w http.ResponseWriter) { w.WriteHeader(201); fmt.Fprint(w, "paid") }, false},
		"nothing":        {func(http.ResponseWriter) {}, false},
		"an error":       {func(w http.ResponseWriter) { w.WriteHeader(500) }, false},
		"turned away":    {func(w http.ResponseWriter) { w.WriteHeader(503) }, false},
		"flushed":        {func(w http.ResponseWriter) { fmt.Fprint(w, "paid"); flush(w) }, true},
		"flushed header": {func(w http.ResponseWriter) { flush(w) }, true},
		"over the limit": {func(w http.ResponseWriter) { fmt.Fprint(w, repeat("paid", 20_000)) }, true},
		"own length": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "pa")
			flush(w)
			fmt.Fprint(w, "id")
			flush(w)
		}, true},
		"own length, large": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "20000")
			fmt.Fprint(w, repeat("paid", 20000))
			flush(w)
		}, true},
		"own length, copied": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "20000")
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader(repeat("paid", 20_000))})
		}, true},
		"flushed whole": {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "4"); fmt.Fprint(w, "paid"); flush(w) }, false},
		"flushed 204":   {func(w http.ResponseWriter) { w.WriteHeader(204); flush(w) }, false},
		"trailers":      {func(w http.ResponseWriter) { w.Header().Set("Trailer", "X"); fmt.Fprint(w, "paid") }, true},
	} {
		for _, how := range []string{"broken", "closed", "forgotten"} {
			if name == "turned away" && how == "forgotten" {
				continue // there was nothing to record
			}
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				b := &breakable{Backend: memory.New(memory.Options{})}
				store := storeOn(t, b, idem.Options{})
				s := newSite(t, store, idemhttp.Options{MaxResponse: 10_000}, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Location", "/payments/1")
					w.Header().Set("Set-Cookie", "a=b")
					w.Header().Set("Content-Type", "application/json")
					c.answer(w)
					switch how {
					case "broken":
						b.commit.Store(true)
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
	}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.NotPanics(t, func() { next.ServeHTTP(w, r) })
		})
	})
	require.Error(t, s.post("k").err)
	for len(s.heard()) == 0 { // the client hears of the end first
		runtime.Gosched()
	}
	require.Len(t, s.heard(), 1)
}

// A panic that cannot be recorded goes on all the same, and the server is told.
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
