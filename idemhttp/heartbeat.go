package idemhttp

import (
	"context"
	"sync"
	"time"

	"github.com/idemkv/idem"
)

// heartbeat extends a lease while a handler runs. Unlike idem.Store.Heartbeat it is a
// timer of the store's clock, and no goroutine until the first beat: most handlers end
// before that.
type heartbeat struct {
	store *idem.Store
	clock idem.Clock
	token idem.Token
	every time.Duration
	lost  context.CancelCauseFunc

	ctx    context.Context // of the extensions: ends with stop
	cancel context.CancelFunc

	mu     sync.Mutex
	disarm func() bool
	ended  chan struct{} // closed by a beat that is the last
}

// startHeartbeat extends the lease of t every so often until stop is called. If the
// claim is lost it calls lost with why.
func (m *middleware) startHeartbeat(t idem.Token, lost context.CancelCauseFunc) *heartbeat {
	h := &heartbeat{store: m.store, clock: m.store.Options().Clock, token: t, every: m.o.Heartbeat, lost: lost, ended: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disarm = h.clock.AfterFunc(h.every, h.beat)
	return h
}

func (h *heartbeat) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch err := h.store.Extend(h.ctx, h.token, 0); err {
	case nil, idem.ErrHeld: // by the handler: it can still be lost
		h.disarm = h.clock.AfterFunc(h.every, h.beat)
		return
	case idem.ErrCompleted, idem.ErrFailed: // with this very token: nobody else can have the claim
	default: // also once it is stopped
		h.lost(err)
	}
	close(h.ended)
}

// stop ends the heartbeat and waits for a beat under way. It is called once.
func (h *heartbeat) stop() {
	h.cancel()
	h.mu.Lock()
	disarmed := h.disarm()
	h.mu.Unlock()
	if !disarmed { // a beat has begun, or was the last
		<-h.ended
	}
}
