package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
)

// sick is an engine in memory whose check a test decides.
type sick struct {
	*memory.Backend
	host  engine.Host
	check func(ctx context.Context) error
	asked atomic.Int32
}

func newSick() *sick { return &sick{Backend: memory.New(memory.Options{})} }

func (b *sick) Bind(h engine.Host) (engine.Binding, error) {
	b.host = h
	return b.Backend.Bind(h)
}

func (b *sick) Check(ctx context.Context) error {
	b.asked.Add(1)
	if b.check == nil {
		return nil
	}
	return b.check(ctx)
}

func (b *sick) breakDown() { b.host.Broken(fmt.Errorf("%w: %w", idem.ErrBroken, errors.New("disk"))) }

func probed(t *testing.T, h http.Handler, method string) (status int, body string, header http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil))
	return w.Code, w.Body.String(), w.Header()
}

// What each state of the store means to the two probes.
func TestProbes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make        func(b *sick, s *idem.Store)
		live, ready string
	}{
		"whole":             {func(*sick, *idem.Store) {}, "ok", "ok"},
		"full":              {func(b *sick, _ *idem.Store) { b.check = func(context.Context) error { return idem.ErrFull } }, "ok", "full"},
		"broken":            {func(b *sick, _ *idem.Store) { b.breakDown() }, "broken", "broken"},
		"closed":            {func(_ *sick, s *idem.Store) { _ = s.Close() }, "ok", "closed"},
		"broken and closed": {func(b *sick, s *idem.Store) { b.breakDown(); _ = s.Close() }, "ok", "closed"},
		"another error": {func(b *sick, _ *idem.Store) {
			b.check = func(context.Context) error { return errors.New("key secret, /var/lib") }
		}, "ok", "unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newSick()
			s := storeOn(t, b, idem.Options{SweepInterval: -1})
			c.make(b, s)
			requireWord(t, idemhttp.Healthz(s), c.live)
			assert.Zero(t, b.asked.Load(), "the liveness probe does not ask the engine")
			requireWord(t, idemhttp.Readyz(s), c.ready)
		})
	}
}

// requireWord requires word as the whole answer, to GET and, without a body, to HEAD.
func requireWord(t *testing.T, h http.Handler, word string) {
	t.Helper()
	want := http.StatusServiceUnavailable
	if word == "ok" {
		want = http.StatusOK
	}
	status, body, header := probed(t, h, http.MethodGet)
	require.Equal(t, want, status)
	require.Equal(t, word+"\n", body)
	require.Equal(t, "no-store", header.Get("Cache-Control"))
	status, body, _ = probed(t, h, http.MethodHead)
	require.Equal(t, want, status)
	require.Empty(t, body)
}

// A store that shuts down is alive and not ready: its open claims go on.
func TestProbesWhileDraining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := storeOn(t, newSick(), idem.Options{SweepInterval: -1})
		c, err := s.Claim(t.Context(), idem.Request{Key: "open"})
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(context.Background()) }()
		synctest.Wait()
		requireWord(t, idemhttp.Healthz(s), "ok")
		requireWord(t, idemhttp.Readyz(s), "closed")
		require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		require.NoError(t, <-down)
	})
}

func TestProbesRefuseOtherMethods(t *testing.T) {
	t.Parallel()
	b := newSick()
	s := storeOn(t, b, idem.Options{SweepInterval: -1})
	for _, h := range []http.Handler{idemhttp.Healthz(s), idemhttp.Readyz(s)} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "NONSENSE"} {
			status, _, header := probed(t, h, method)
			require.Equal(t, http.StatusMethodNotAllowed, status, method)
			require.Equal(t, "GET, HEAD", header.Get("Allow"))
		}
	}
	require.Zero(t, b.asked.Load())
}

// A disk that hangs in a system call, where no context reaches it, holds up one look at
// the store however many probes come. Each probe is answered in time. When the disk
// answers, so does the next probe.
func TestReadyzOnAHungDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newSick()
		hung := make(chan struct{})
		b.check = func(context.Context) error { <-hung; return nil }
		s := storeOn(t, b, idem.Options{SweepInterval: -1})
		h := idemhttp.Readyz(s)
		var probes sync.WaitGroup
		for range 50 {
			probes.Go(func() {
				status, body, _ := probed(t, h, http.MethodGet)
				assert.Equal(t, http.StatusServiceUnavailable, status)
				assert.Equal(t, "timeout\n", body)
			})
		}
		probes.Wait()
		requireWord(t, h, "timeout")
		require.EqualValues(t, 1, b.asked.Load())
		close(hung)
		synctest.Wait()
		requireWord(t, h, "ok")
	})
}

// A prober that goes away takes its look with it for nobody else.
func TestReadyzSurvivesAProberThatLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newSick()
		answer := make(chan struct{})
		b.check = func(ctx context.Context) error {
			select {
			case <-answer:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		h := idemhttp.Readyz(storeOn(t, b, idem.Options{SweepInterval: -1}))
		leaves, leave := context.WithCancel(t.Context())
		var first, second sync.WaitGroup
		first.Go(func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(leaves, http.MethodGet, "/", nil))
		})
		synctest.Wait()
		var body string
		second.Go(func() { _, body, _ = probed(t, h, http.MethodGet) })
		synctest.Wait()
		leave()
		first.Wait()
		close(answer)
		second.Wait()
		require.Equal(t, "ok\n", body)
		require.EqualValues(t, 1, b.asked.Load())
	})
}
