package idemhttp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/idemkv/idem"
)

// Operation is what the handler of a request with a key can learn and say about it;
// FromContext finds it. Its methods may be called from many goroutines at once, until
// the handler returns. On a nil Operation, which a request without a key has, they do
// nothing and return zero values.
type Operation struct {
	store   *idem.Store
	key     string
	token   idem.Token
	attempt int
	answer  *capture
	run     context.Context // the handler's
	outer   *Operation      // of a middleware further out; nil if there is none

	mu         sync.Mutex
	checkpoint []byte
	said       Outcome
	returned   error
	adapted    bool // Returned was called
}

type operationKey struct{}

// FromContext returns the operation of a request, given the request's context or one
// derived from it. It is nil if the request has no key, or did not come through the
// middleware.
func FromContext(ctx context.Context) *Operation {
	op, _ := ctx.Value(operationKey{}).(*Operation)
	return op
}

// Key returns the key as the client sent it, without quotes. It is the client's
// secret: log Store.KeyHash of op.Token().Key instead, as the store does.
func (op *Operation) Key() string {
	if op == nil {
		return ""
	}
	return op.key
}

// Attempt returns the number of this run of the handler for this operation, from 1. It is
// more than 1 if an earlier attempt was released or, with Options.RetryUnknown, ended
// without saying how.
func (op *Operation) Attempt() int {
	if op == nil {
		return 0
	}
	return op.attempt
}

// Token returns the claim's token. Use it to complete the operation in the commit of the
// handler's own writes (bolt.Complete, pebble.Complete), with the bytes of an Answer. The
// middleware then sends that answer, whatever the handler writes, so the first client gets
// what retries get. If the handler holds the operation with the token, a 2xx of its own is
// not sent, and the client gets TypeOutcomeUnknown. Unknown, in contrast, holds it and
// sends whatever the handler writes.
func (op *Operation) Token() idem.Token {
	if op == nil {
		return idem.Token{}
	}
	return op.token
}

// Checkpoint returns what this attempt or an earlier one saved last; nil if nothing.
// The bytes are shared: you may read them and append to them, but not change them.
func (op *Operation) Checkpoint() []byte {
	if op == nil {
		return nil
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.checkpoint
}

// SaveCheckpoint saves how far the operation has come, for later attempts. The store
// copies point. The errors are those of idem.Store.Checkpoint; idem.ErrFenced is returned
// when the claim is lost: stop then.
func (op *Operation) SaveCheckpoint(ctx context.Context, point []byte) error {
	if op == nil {
		return nil
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	if err := op.store.Checkpoint(ctx, op.token, point); err != nil {
		return err
	}
	op.checkpoint = slices.Clip(bytes.Clone(point))
	return nil
}

// Retryable says that nothing was done that a retry could repeat: whatever the
// status, the answer is not stored, and the next request with the key runs the
// handler again. The attempt counts towards Options.MaxAttempts. Of Retryable, Final and
// Unknown the last one called counts, even if the handler then panics.
func (op *Operation) Retryable() { op.say(Released) }

// Final says that the operation is done, for better or worse: whatever the status,
// the answer is stored and replays.
func (op *Operation) Final() { op.say(Stored) }

// Unknown says that nobody knows whether the operation was done, because a service that
// the handler calls did not answer, for example. Whatever the status, and even with
// Options.RetryUnknown, the operation is held until someone settles it.
func (op *Operation) Unknown() { op.say(Unknown) }

// Returned says which error the handler returned, nil for none. Adaptors for frameworks
// whose handlers return errors call it, and then write the answer that the framework
// makes of the error to the middleware's ResponseWriter.
//
// A mark on err counts like a call: idem.Permanent like Final, idem.Retryable like
// Retryable, and idem.Unknown like Unknown. Without a mark the status decides. If nobody
// wrote an answer, there is no status. The client then gets a Problem, and the outcome is
// Unknown; after a Permanent error the operation is recorded as failed. Returned(nil) says
// that a handler that wrote nothing means the empty 200 that net/http sends.
func (op *Operation) Returned(err error) {
	if op == nil {
		return
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	op.returned, op.adapted = err, true
	switch {
	case idem.IsPermanent(err):
		op.said = Stored
	case idem.IsRetryable(err):
		op.said = Released
	case idem.IsUnknown(err):
		op.said = Unknown
	}
}

// DownstreamKey returns the idempotency key to send to another service for one step of
// the operation. It is the same on every attempt, and different for every step, client
// key and scope. It is idem.DownstreamKey of the StoreKey.
func (op *Operation) DownstreamKey(step string) string {
	if op == nil {
		return ""
	}
	return idem.DownstreamKey(op.token.Key, step)
}

// String names the operation by the key's hash, without disclosing the key.
func (op *Operation) String() string {
	if op == nil {
		return "operation(none)"
	}
	return fmt.Sprintf("operation(key hash %s, attempt %d)", op.store.KeyHash(op.token.Key), op.attempt)
}

// GoString is String: %#v does not disclose the key either.
func (op *Operation) GoString() string { return op.String() }

// LogValue logs the key's hash and the attempt, never the key.
func (op *Operation) LogValue() slog.Value {
	if op == nil {
		return slog.Value{}
	}
	return slog.GroupValue(slog.String("key_hash", op.store.KeyHash(op.token.Key)), slog.Int("attempt", op.attempt))
}

func (op *Operation) say(o Outcome) {
	if op == nil {
		return
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	op.said = o
}

// refused says, on behalf of a nested middleware whose refusal is the answer, that the next
// request may run. It counts as an attempt if the nested handler had run. What the handler
// itself has said, or answered before, counts for more.
func (op *Operation) refused(ran bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.said == 0 && op.answer.status == 0 {
		op.said = NotNow
		if ran {
			op.said = Released
		}
	}
}

// heard returns what the handler said, zero if nothing, the error that it returned, and
// whether there is an adaptor that would tell of one.
func (op *Operation) heard() (said Outcome, returned error, adapted bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.said, op.returned, op.adapted
}
