package idem

import (
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Forever is the retention of a record that never expires.
const Forever = time.Duration(math.MaxInt64)

// Request asks for the right to run one attempt of an operation.
type Request struct {
	// Key names the operation. It is 1 to MaxKey bytes of any kind.
	Key string
	// Fingerprint tells a retry from a different request under the same key.
	// Zero: not compared.
	Fingerprint Fingerprint
	// Lease is how long the attempt may stay in flight before another may take over.
	// Zero means Options.Lease; otherwise at least 1 ms.
	Lease time.Duration
	// Retention is how long the final record replays, counted from completion.
	// Zero: Options.Retention; Forever is allowed.
	Retention time.Duration
	// HoldUnknown: if an attempt ends without reporting a result (lapsed lease, panic in
	// Do), the operation is held until the attempt's token settles it, and is not
	// retried.
	HoldUnknown bool
	// MaxAttempts is how many claims the operation is granted before it answers
	// ErrExhausted. Undone claims (Unclaim) do not count. Zero: Options.MaxAttempts.
	MaxAttempts int
	// IssuedAt is when the client made the key, minus the possible error of its clock.
	// If a claim finds no record and the request is older than its Retention, or than
	// what the store has lost, it gets ErrTooLate: there may have been a record. Use one
	// Retention for all operations of a kind. Zero: unknown.
	IssuedAt time.Time
}

// Claim is the answer to a Request.
type Claim struct {
	// Token is passed to Complete, Extend and so on. Zero when Claim returned an error.
	Token Token
	// Record is the record as claimed or, on a refusal, the record in the way. After
	// ErrMismatch it holds only the key.
	Record Record
}

// ClaimResult is one answer of ClaimMany.
type ClaimResult struct {
	Claim
	// Err is what Claim would have returned for the request.
	Err error
}

// Completion is one completed operation for CompleteMany.
type Completion struct {
	// Token is the claim's.
	Token Token
	// Result replays to every later claim of the key. The store copies it.
	Result []byte
}

// LogValue logs the token and the record as they log themselves.
func (c Claim) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("token", c.Token), slog.Any("record", c.Record))
}

// LogValue logs the claim and its error.
func (c ClaimResult) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("claim", c.Claim), slog.Any("err", c.Err))
}

// String names the completion without disclosing its key or result.
func (c Completion) String() string {
	return fmt.Sprintf("completion(%v, %d bytes)", c.Token, len(c.Result))
}

// GoString is String: %#v does not disclose the key or result either.
func (c Completion) GoString() string { return c.String() }

// LogValue logs the token and the result's size.
func (c Completion) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("token", c.Token), slog.Int("result_bytes", len(c.Result)))
}

// String describes the request without disclosing its key.
func (r Request) String() string {
	return fmt.Sprintf("request(key of %d bytes, lease %v, retention %v)", len(r.Key), r.Lease, r.Retention)
}

// GoString is String: %#v does not disclose the key either.
func (r Request) GoString() string { return r.String() }

// LogValue logs the key's size and the durations, never the key or the fingerprint.
func (r Request) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("key_bytes", len(r.Key)),
		slog.Duration("lease", r.Lease), slog.Duration("retention", r.Retention),
		slog.Bool("hold_unknown", r.HoldUnknown))
}

func (r *Request) check() error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	switch {
	case r.Lease != 0 && r.Lease < minLease:
		return invalid("Request.Lease is %v; it must be at least %v", r.Lease, minLease)
	case r.Retention < 0:
		return invalid("Request.Retention is %v; it cannot be negative", r.Retention)
	case r.MaxAttempts < 0 || int64(r.MaxAttempts) > math.MaxUint32:
		return invalid("Request.MaxAttempts is %d; 0 is Options.MaxAttempts, at most %d", r.MaxAttempts, uint32(math.MaxUint32))
	}
	return nil
}
