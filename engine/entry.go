package engine

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"
)

// Instant is a moment in store time: nanoseconds on the store's own timeline. The
// timeline starts at the wall clock's Unix time when the store is created and then
// follows elapsed time (see Meta). Zero means "not set".
type Instant int64

// Never is the Instant that is never reached.
const Never = Instant(math.MaxInt64)

// Add returns t+d, or Never if that is later than any Instant. d is not negative.
func (t Instant) Add(d time.Duration) Instant {
	if t > Never-Instant(d) {
		return Never
	}
	return t + Instant(d)
}

// Entry is a record as an engine keeps it. An Entry is immutable once it has been
// handed over, because engines, cache and callers share it. Engines store every field
// and interpret only Due.
type Entry struct {
	// State is never zero in a stored entry.
	State State
	// HoldUnknown and ResultDropped are as in idem.Record.
	HoldUnknown   bool
	ResultDropped bool
	// Bound: the record was released by Unclaim, and its fingerprint stays in force
	// until the next grant.
	Bound bool
	// Attempt is as in idem.Record.
	Attempt uint32
	// Fence is the latest claim's.
	Fence uint64
	// Epoch is the number of the store opening (Meta.Epoch) that granted or last
	// extended the lease.
	Epoch uint64
	// Fingerprint is as in idem.Record.
	Fingerprint Fingerprint
	// ClaimedAt, LeaseUntil and FinishedAt are as in idem.Record, in store time.
	ClaimedAt, LeaseUntil, FinishedAt Instant
	// ExpiresAt is when the record expires; Never if it does not.
	ExpiresAt Instant
	// Due is the record's place in the expiry index: do not look at this key before
	// then. It is never after ExpiresAt. It is zero if and only if ExpiresAt is Never;
	// the record is then not in the index.
	Due Instant
	// Lease and Retention are the durations of the latest claim.
	Lease, Retention time.Duration
	// Checkpoint and Result are as in idem.Record; nil and empty are different.
	Checkpoint, Result []byte
}

// Fingerprint is idem.Fingerprint: a 32-byte digest of what was asked. It tells a retry
// from a different request under the same key. The zero Fingerprint agrees with any.
type Fingerprint [32]byte

// IsZero reports whether f is the zero Fingerprint, which is not compared.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// String returns f as 64 hexadecimal digits; "" for the zero Fingerprint.
func (f Fingerprint) String() string {
	if f.IsZero() {
		return ""
	}
	return hex.EncodeToString(f[:])
}

// MarshalText returns String's form.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes, and the digits of the zero Fingerprint.
// ErrInvalid is returned for anything else; f is then unchanged.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*f = Fingerprint{}
		return nil
	}
	var parsed Fingerprint
	if len(text) == 2*len(parsed) {
		if _, err := hex.Decode(parsed[:], text); err == nil {
			*f = parsed
			return nil
		}
	}
	return fmt.Errorf("%w: a fingerprint is %d hexadecimal digits, or nothing", ErrInvalid, 2*len(parsed))
}
