package idemhttp

import (
	"context"
	"errors"
)

// Causes of a handler's context.
var (
	// ErrMaxRun is returned by context.Cause of a handler's context when the handler
	// has run for Options.MaxRun.
	ErrMaxRun = errors.New("idem: the handler ran longer than Options.MaxRun")
)

// handlerContext returns the context that the handler of x runs under, while the lease
// of its claim is extended. Call stop once, when the handler has returned.
//
// At MaxRun the handler is told to stop, and the lease is left to lapse. Releasing the claim
// at once would let a second handler run next to the first.
func (m *middleware) handlerContext(outside context.Context, x *run) (ctx context.Context, stop func()) {
	ctx, release := m.detach(outside)
	x.values = operationContext{Context: ctx, op: &x.op}
	ctx, endHeartbeat := m.store.Heartbeat(&x.values, x.claim)
	x.op.run = ctx
	if m.o.MaxRun == 0 && x.op.outer == nil && release == nil {
		return ctx, endHeartbeat
	}
	ctx, cancel := context.WithCancelCause(ctx)
	x.op.run = ctx

	unfollow := func() bool { return true }
	if outer := x.op.outer; outer != nil { // it may run out too, or lose its claim
		unfollow = context.AfterFunc(outer.run, func() { cancel(context.Cause(outer.run)) })
	}
	disarm := func() bool { return true }
	over := make(chan struct{})
	if m.o.MaxRun > 0 {
		disarm = m.store.Options().Clock.AfterFunc(m.o.MaxRun, func() {
			defer close(over)
			cancel(ErrMaxRun)
			endHeartbeat()
		})
	}
	return ctx, func() {
		if !disarm() {
			<-over
		}
		unfollow()
		endHeartbeat()
		cancel(nil)
		if release != nil {
			release()
		}
	}
}

// detach returns a context that does not end when the client goes away. It keeps a deadline
// that middleware further out has set, which is not the client's. If there is one, release
// must be called.
func (m *middleware) detach(outside context.Context) (ctx context.Context, release context.CancelFunc) {
	if m.o.CancelWithClient {
		return outside, nil
	}
	ctx = context.WithoutCancel(outside)
	if deadline, ok := outside.Deadline(); ok {
		return context.WithDeadline(ctx, deadline)
	}
	return ctx, nil
}
