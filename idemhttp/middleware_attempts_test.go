package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
)

// What counts towards MaxAttempts.

// busy answers as first does until ready is set, and then with the attempt's number.
type busy struct {
	first http.HandlerFunc
	ready bool
}

func (b *busy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !b.ready {
		b.first(w, r)
		return
	}
	fmt.Fprint(w, "attempt ", idemhttp.FromContext(r.Context()).Attempt())
}

// A request that is turned away has not been attempted, however often that happens, and
// whoever says so: the status, the service's own policy, the answer itself, or another
// middleware further in.
func TestTurnedAwayIsNoAttempt(t *testing.T) {
	t.Parallel()
	inFlight := memoryStore(t, idem.Options{})
	_, err := inFlight.Claim(t.Context(), idem.Request{Key: idemhttp.StoreKey("shop", "k"), Lease: idem.Forever})
	require.NoError(t, err)
	inner := once(inFlight, idemhttp.Options{Fingerprint: func(*http.Request, []byte) (idem.Fingerprint, error) { return idem.Fingerprint{}, nil }}, echo)
	own := func(status int, header http.Header) idemhttp.Outcome {
		if status == 422 {
			return idemhttp.NotNow
		}
		return idemhttp.DefaultOutcome(status, header)
	}
	for name, c := range map[string]struct {
		o     idemhttp.Options
		first http.HandlerFunc
	}{
		"429":                 {idemhttp.Options{}, does(code(429))},
		"503 and Retry-After": {idemhttp.Options{}, does(set("Retry-After", "1"), code(503))},
		"401":                 {idemhttp.Options{RetryUnknown: true}, does(code(401))},
		"own policy":          {idemhttp.Options{Outcome: own}, does(code(422))},
		"409 and Retry-After": {idemhttp.Options{}, does(set("Retry-After", "1"), code(409))},
		"further in":          {idemhttp.Options{}, inner.ServeHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &busy{first: c.first}
			c.o.MaxAttempts = 1
			s := newSite(t, nil, c.o, b.ServeHTTP)
			for n := range 4 {
				s.post("k")
				require.EqualValues(t, n+1, s.runs.Load())
				s.wantNoRecord("k")
			}
			b.ready = true
			require.Equal(t, "attempt 1", s.post("k").body)
			require.Equal(t, "attempt 1", s.post("k").body)
		})
	}
}

// An attempt that had begun counts: by the handler's word, after an unknown outcome that
// may be run again, a panic, or an answer of a middleware further in that has run its
// handler. What it came to is on the record.
func TestBegunIsAnAttempt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o      idemhttp.Options
		first  http.HandlerFunc
		reason string
	}{
		"retryable": {idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			idemhttp.FromContext(r.Context()).Retryable()
			w.WriteHeader(429)
		}, "the handler answered with status 429"},
		"500":    {idemhttp.Options{RetryUnknown: true}, does(code(500)), "the handler answered with status 500"},
		"panics": {idemhttp.Options{RetryUnknown: true}, does(quit), "the handler panicked"},
		"further in": {idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			b := storetest.NewRich()
			store, err := idem.New(b, idem.Options{})
			assert.NoError(t, err)
			defer store.Close()
			once(store, idemhttp.Options{}, func(http.ResponseWriter, *http.Request) { b.Breaking.Store(true) }).ServeHTTP(w, r)
		}, "the handler answered with status 503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.o.MaxAttempts = 2
			s := newSite(t, memoryStore(t, idem.Options{MaxAttempts: 1}), c.o, c.first)
			for n := range 2 {
				s.post("k")
				rec := s.wantRecord("k", idem.Released)
				require.Equal(t, n+1, rec.Attempt)
				require.Equal(t, c.reason, string(rec.Result))
			}
			wantProblem(t, s.post("k"), 500, idemhttp.TypeExhausted)
			require.EqualValues(t, 2, s.runs.Load())
		})
	}
}

// A request that is turned away after an attempt had begun leaves that one counted, and
// its key with its request.
func TestTurnedAwayAfterAnAttempt(t *testing.T) {
	t.Parallel()
	b := &busy{first: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Turn") == "away" {
			w.WriteHeader(429)
			return
		}
		w.WriteHeader(500)
	}}
	s := newSite(t, nil, idemhttp.Options{RetryUnknown: true, MaxAttempts: 2}, b.ServeHTTP)
	require.Equal(t, 500, s.post("k").status)
	for range 3 {
		require.Equal(t, 429, s.post("k", "Turn", "away").status)
		require.Equal(t, 1, s.wantRecord("k", idem.Released).Attempt)
	}
	wantProblem(t, s.do("POST", "/payments", "k", "another body"), 422, idemhttp.TypeMismatch)
	b.ready = true
	require.Equal(t, "attempt 2", s.post("k").body)
}

// A client that leaves, or a deadline that ends, while the claim is being committed: the
// handler does not begin, and the claim is undone.
func TestContextEndsInTheClaim(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o     idemhttp.Options
		cause error
		told  int
	}{
		"client left":         {idemhttp.Options{}, context.Canceled, 0},
		"client left, cancel": {idemhttp.Options{CancelWithClient: true, MaxAttempts: 1}, context.Canceled, 0},
		"deadline":            {idemhttp.Options{RetryUnknown: true}, context.DeadlineExceeded, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := storetest.NewRich()
			store := storeOn(t, b, idem.Options{SweepInterval: -1})
			var told []error
			c.o.OnError = func(_ *http.Request, err error) { told = append(told, err) }
			h := once(store, c.o, func(http.ResponseWriter, *http.Request) { t.Error("it was run") })
			ctx := &endable{Context: t.Context(), done: make(chan struct{})}
			b.OnApplied = func() { b.OnApplied = nil; ctx.err = c.cause; close(ctx.done) }
			wantProblem(t, serve(h, keyed("k").WithContext(ctx)), 503, idemhttp.TypeUnavailable)
			_, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
			require.Equal(t, idem.ErrNotFound, err)
			require.Len(t, told, c.told)
			if c.told > 0 {
				require.ErrorIs(t, errors.Join(told...), c.cause)
			}
		})
	}
}

// endable is a context that ends when a test says so, for the reason it says.
type endable struct {
	context.Context
	done chan struct{}
	err  error
}

func (c *endable) Done() <-chan struct{} { return c.done }

func (c *endable) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// A grant that took longer to become durable than half its lease is extended at once.
func TestLateGrantIsExtendedAtOnce(t *testing.T) {
	t.Parallel()
	b := storetest.NewRich()
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	extended := make(chan struct{}, 1)
	store := storeOn(t, b, idem.Options{Clock: clock, SweepInterval: -1, Observer: func(_ context.Context, e idem.Event) {
		if e.Kind == idem.LeaseExtended {
			extended <- struct{}{}
		}
	}})
	b.OnApplied = func() { b.OnApplied = nil; clock.Advance(20 * time.Second) }
	h := once(store, idemhttp.Options{}, func(_ http.ResponseWriter, r *http.Request) {
		clock.BlockUntil(1)
		clock.Advance(1)
		<-extended
		rec, err := store.Get(r.Context(), idemhttp.StoreKey("shop", "k"))
		assert.NoError(t, err)
		now, _ := clock.Now()
		assert.Equal(t, 30*time.Second, rec.LeaseUntil.Sub(now))
	})
	serve(h, keyed("k"))
}
