package idemhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/idemkv/idem"
)

// Healthz returns a handler that answers 503 "broken" once store answers ErrBroken, and
// 200 "ok" otherwise. It is what a Kubernetes livenessProbe asks: only a restart mends a
// broken store. A full store, and one that is shut down, are alive: a restart frees no
// room, and would cut short the requests that a shutdown waits for. A restart that does
// not help either, such as one on a damaged disk, shows as a crash loop.
//
// It does no work and touches no disk. Like Readyz, it discloses one word, takes GET and
// HEAD, and needs no authentication.
func Healthz(store *idem.Store) http.Handler {
	// A context that has ended keeps Health from asking the engine.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return probe(func(*http.Request) string {
		if errors.Is(store.Health(ended), idem.ErrBroken) {
			return "broken"
		}
		return probeOK
	})
}

// Readyz returns a handler that answers 200 "ok" if store would grant a claim of a new
// key now (Store.Health), and else 503 with a word that says why not: "closed" when the
// store is closed or shuts down, "broken", "full", "timeout" when its disk does not
// answer within a second, or "unavailable". It is what a Kubernetes readinessProbe asks:
// requests go to other instances until it answers 200.
//
// A full store still replays what it has. Where there is no other instance, "full" turns
// those retries away as well. Point the readinessProbe at Healthz instead if they matter
// more, and let an alert watch Readyz.
//
// Probes that overlap share one look at the store, so a flood of them costs no more than
// one, and a disk that hangs holds up one goroutine.
func Readyz(store *idem.Store) http.Handler {
	var l looks
	return probe(func(r *http.Request) string {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		return readyWord(l.health(ctx, store))
	})
}

const (
	readyTimeout = time.Second
	probeOK      = "ok"
)

func readyWord(err error) string {
	switch {
	case err == nil:
		return probeOK
	case errors.Is(err, idem.ErrClosed):
		return "closed"
	case errors.Is(err, idem.ErrBroken):
		return "broken"
	case errors.Is(err, idem.ErrFull):
		return "full"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	}
	return "unavailable"
}

// looks lets probes that overlap share one look at the store.
type looks struct {
	mu  sync.Mutex
	now *look // under way
}

type look struct {
	done chan struct{}
	err  error
}

// health returns what Store.Health does, or ctx's error if that ends first. The call
// itself may be stuck in the operating system, where no context reaches it. It ends with
// the store at the latest, or with the disk's answer.
func (l *looks) health(ctx context.Context, store *idem.Store) error {
	l.mu.Lock()
	shared := l.now
	if shared == nil {
		shared = &look{done: make(chan struct{})}
		l.now = shared
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
			defer cancel()
			shared.err = store.Health(ctx)
			l.mu.Lock()
			l.now = nil
			l.mu.Unlock()
			close(shared.done)
		}()
	}
	l.mu.Unlock()
	select {
	case <-shared.done:
		return shared.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe answers GET and HEAD with a word, 200 if it is probeOK and else 503.
func probe(ask func(r *http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		status, word := http.StatusMethodNotAllowed, "method"
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			status, word = http.StatusOK, ask(r)
			if word != probeOK {
				status = http.StatusServiceUnavailable
			}
		} else {
			h.Set("Allow", "GET, HEAD")
		}
		h.Set("Content-Length", strconv.Itoa(len(word)+1))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, word+"\n") // a prober that is gone asks again
		}
	})
}
