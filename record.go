package idem

import (
	"fmt"
	"log/slog"
	"time"
)

// State is the stored state of a record. A lapsed lease and an expired record are
// computed on reading and are no states of their own.
type State uint8

// The stored states.
const (
	// InFlight: claimed; the attempt may be running.
	InFlight State = iota + 1
	// Released: the last attempt failed in a way that may be retried.
	Released
	// Held: the outcome is unknown and must be settled by the claim's token.
	Held
	// Completed: done; the result replays.
	Completed
	// Failed: failed for good; the reason replays.
	Failed
)

var stateNames = [...]string{"none", "in_flight", "released", "held", "completed", "failed"}

// String returns the state's name in lower case, "none" for zero.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Final reports whether the state is Completed or Failed.
func (s State) Final() bool { return s == Completed || s == Failed }

// Record is what the store knows of an operation. Times are of the wall clock as
// it reads now: if the clock steps, the times shown step with it, while leases
// and retention run on. A zero time means "not yet" or, for ExpiresAt, "never".
type Record struct {
	// Key names the operation.
	Key string
	// State is the stored state.
	State State
	// Fingerprint is of the request; zero if none was given.
	Fingerprint Fingerprint
	// Fence is of the latest claim.
	Fence uint64
	// Attempt counts the claims granted for this operation, from 1.
	Attempt int
	// Checkpoint is what the latest attempt saved part-way, nil if nothing or if
	// the record is final. It is shared: read it, do not change it.
	Checkpoint []byte
	// Result is the result of Completed, the reason of Failed, the note of Held.
	// It is shared: read it, do not change it.
	Result []byte
	// ResultDropped: completed, but the result was over Options.MaxResult or could
	// not be encoded, and was not kept.
	ResultDropped bool
	// HoldUnknown is as in the Request of the latest claim.
	HoldUnknown bool
	// ClaimedAt is when the latest claim was granted.
	ClaimedAt time.Time
	// LeaseUntil is when the latest claim's lease lapses, or would have.
	LeaseUntil time.Time
	// FinishedAt is when the record became Completed or Failed.
	FinishedAt time.Time
	// ExpiresAt is when the record is gone; zero: never.
	ExpiresAt time.Time
}

// Token returns the token of the record's latest claim, so that an operator who
// knows the outcome can settle it.
func (r Record) Token() Token { return Token{Key: r.Key, Fence: r.Fence} }

// String names the record without disclosing its key or payloads.
func (r Record) String() string {
	return fmt.Sprintf("record(key %s, %s, fence %d, attempt %d)", KeyHash(r.Key), r.State, r.Fence, r.Attempt)
}

// GoString is String: %#v does not disclose the key or payloads either.
func (r Record) GoString() string { return r.String() }

// LogValue logs the key's hash, the state and sizes, never the key or payloads.
func (r Record) LogValue() slog.Value {
	return slog.GroupValue(slog.String("key_hash", KeyHash(r.Key)), slog.String("state", r.State.String()),
		slog.Uint64("fence", r.Fence), slog.Int("attempt", r.Attempt),
		slog.Int("result_bytes", len(r.Result)), slog.Int("checkpoint_bytes", len(r.Checkpoint)))
}
