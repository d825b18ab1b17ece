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
	// Key names the operation: 1 to MaxKey bytes, any bytes.
	Key string
	// Fingerprint tells a retry from a different request under the same key.
	// Zero: not compared.
	Fingerprint Fingerprint
	// Lease is how long the attempt may stay in flight before another may take it
	// over. Zero: Options.Lease.
	Lease time.Duration
	// Retention is how long the final record replays, counted from completion.
	// Zero: Options.Retention; Forever is allowed.
	Retention time.Duration
	// HoldUnknown: an attempt that ends without saying how (lapsed lease, panic in
	// Do) is held until its token settles it, and not retried.
	HoldUnknown bool
}

// Claim is the answer to a Request.
type Claim struct {
	// Token completes, extends, … the claim. Zero when Claim returned an error.
	Token Token
	// Record is the record as claimed or, on a refusal, the record in the way.
	// After ErrMismatch it holds the key alone.
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

// String names the request without disclosing its key.
func (r Request) String() string { return fmt.Sprintf("request(key %s)", KeyHash(r.Key)) }

// GoString is String: %#v does not disclose the key either.
func (r Request) GoString() string { return r.String() }

// LogValue logs the key's hash and the durations, never the key or the fingerprint.
func (r Request) LogValue() slog.Value {
	return slog.GroupValue(slog.String("key_hash", KeyHash(r.Key)),
		slog.Duration("lease", r.Lease), slog.Duration("retention", r.Retention),
		slog.Bool("hold_unknown", r.HoldUnknown))
}

func (r *Request) check() error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	if r.Lease < 0 || r.Retention < 0 {
		return invalid("key %s has lease %v and retention %v; neither may be negative", KeyHash(r.Key), r.Lease, r.Retention)
	}
	return nil
}
