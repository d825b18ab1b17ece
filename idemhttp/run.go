package idemhttp

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/idemkv/idem"
)

// run is one run of a handler. What it needs is one allocation.
type run struct {
	m       *middleware
	w       http.ResponseWriter
	r       *http.Request
	claim   idem.Claim
	op      Operation
	capture capture
	values  operationContext
	body    bytes.Reader
	outside outside
	result  *[]byte // of middleware.answers; nil if none is needed
}

// run runs the handler under the claim, records how it ended, and then answers.
func (m *middleware) run(w http.ResponseWriter, r *http.Request, next http.Handler, key string, claim idem.Claim, body *requestBody) {
	x := &run{m: m, w: w, r: r, claim: claim, capture: *newCapture(w, m.o.MaxResponse), outside: lookOutside(w)}
	op, rec := &x.op, &claim.Record
	op.store, op.key, op.token, op.attempt, op.checkpoint = m.store, key, claim.Token, rec.Attempt, rec.Checkpoint
	op.answer, op.outer = &x.capture, FromContext(r.Context())
	ctx, stop := m.handlerContext(r.Context(), x)
	x.capture.run = ctx
	inner := r.WithContext(ctx)
	inner.Body = http.NoBody
	if b := body.bytes(); len(b) > 0 {
		x.body.Reset(b)
		inner.Body = io.NopCloser(&x.body) // net/http's client knows that it is in memory
	}

	judged := false
	defer func() {
		if judged {
			return
		}
		// The handler panicked or called Goexit, and goes on doing so after this.
		carry(r, inner)
		stop()
		x.settlePanic()
		x.capture.discard()
	}()
	next.ServeHTTP(&x.capture, inner)
	carry(r, inner)
	v := x.judge(ctx)
	stop()
	judged = true
	err := m.settle(r.Context(), op.token, &v)
	if x.result != nil && cap(*x.result) <= keepBuffer {
		m.answers.Put(x.result) // the store has its own copy
	}
	x.finish(&v, err)
}

// carry copies back to r what the handler changed on inner: the server removes the files
// of forms, and middleware further out may ask for the pattern.
func carry(r, inner *http.Request) {
	r.MultipartForm, r.Pattern = inner.MultipartForm, inner.Pattern
}

// operationContext is the context in which FromContext finds op.
type operationContext struct {
	context.Context
	op *Operation
}

func (c *operationContext) Value(key any) any {
	if key == (operationKey{}) {
		return c.op
	}
	return c.Context.Value(key)
}

// outside is what a ResponseWriter further out tells of what was written to it. Those of
// frameworks and of logging middleware do, net/http's does not.
type outside struct {
	written bool
	status  int
}

func lookOutside(w http.ResponseWriter) (o outside) {
	wraps(w, func(w http.ResponseWriter) bool {
		if t, ok := w.(interface{ Written() bool }); ok {
			o.written = o.written || t.Written()
		}
		if t, ok := w.(interface{ Status() int }); ok {
			o.status = max(o.status, t.Status())
		}
		return false
	})
	return o
}

// changed reports whether an answer was given on a ResponseWriter further out since o,
// and whether it was sent. gin keeps a status until it sends it; those that cannot tell
// have sent it.
func (o outside) changed(w http.ResponseWriter) (changed, sent bool) {
	now := lookOutside(w)
	if now.written != o.written {
		return true, true
	}
	if now.status == o.status || now.status < 200 { // informational ones are no answer
		return false, false
	}
	return true, !supports[interface{ Written() bool }](w)
}

// answersLater reports whether w, or one that it wraps, is of a framework whose handlers
// return errors that become answers when the middleware has returned. echo's has these
// hooks.
func answersLater(w http.ResponseWriter) bool {
	return supports[interface {
		Before(func())
		After(func())
	}](w)
}
