package consume

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/idemkv/idem"
)

// Operation is what a handler can know about the operation it runs; FromContext finds it.
// Its methods may be called from many goroutines at once, until the handler returns. On a
// nil Operation, which an unprotected message has, they do nothing and return zero values.
type Operation struct {
	store *idem.Store
	claim idem.Claim

	mu         sync.Mutex
	checkpoint []byte
}

type operationKey struct{}

// FromContext returns the operation of a handler, given the handler's context or one
// derived from it; nil if there is none.
func FromContext(ctx context.Context) *Operation {
	op, _ := ctx.Value(operationKey{}).(*Operation)
	return op
}

// Attempt returns the number of this run of the handler for this message, from 1.
func (op *Operation) Attempt() int {
	if op == nil {
		return 0
	}
	return op.claim.Record.Attempt
}

// Token returns the claim's token. Use it to complete the operation in the commit of the
// handler's own writes (bolt.Complete, pebble.Complete), or to hold it.
func (op *Operation) Token() idem.Token {
	if op == nil {
		return idem.Token{}
	}
	return op.claim.Token
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
	if err := op.store.Checkpoint(ctx, op.claim.Token, point); err != nil {
		return err
	}
	op.checkpoint = slices.Clip(bytes.Clone(point))
	return nil
}

// DownstreamKey returns the idempotency key to send to another service for one step of
// the operation. It is the same on every attempt, and different for every step, message
// and consumer.
func (op *Operation) DownstreamKey(step string) string {
	if op == nil {
		return ""
	}
	return idem.DownstreamKey(op.claim.Token.Key, step)
}

// String names the operation by the key's hash, without disclosing the key.
func (op *Operation) String() string {
	if op == nil {
		return "operation(none)"
	}
	return fmt.Sprintf("operation(key hash %s, attempt %d)", op.store.KeyHash(op.claim.Token.Key), op.Attempt())
}

// GoString is String: %#v does not disclose the key either.
func (op *Operation) GoString() string { return op.String() }

// LogValue logs the key's hash and the attempt, never the key.
func (op *Operation) LogValue() slog.Value {
	if op == nil {
		return slog.Value{}
	}
	return slog.GroupValue(slog.String("key_hash", op.store.KeyHash(op.claim.Token.Key)), slog.Int("attempt", op.Attempt()))
}
