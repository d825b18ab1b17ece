package idem

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/idemkv/idem/engine"
)

// State is the stored state of a record. A lapsed lease and an expired record are
// computed on reading and are no states of their own. Its method Final reports whether
// it is Completed or Failed.
type State = engine.State

// The stored states.
const (
	// InFlight: claimed; the attempt may be running.
	InFlight State = engine.InFlight
	// Released: the last attempt failed in a way that may be retried.
	Released State = engine.Released
	// Held: the outcome is unknown and must be settled by the claim's token.
	Held State = engine.Held
	// Completed: done; the result replays.
	Completed State = engine.Completed
	// Failed: failed for good; the reason replays.
	Failed State = engine.Failed
)

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
	// Fence is of the latest claim. In JSON it is a string: it is beyond what a float64
	// holds.
	Fence uint64 `json:",string"`
	// Attempt counts the claims granted for this operation, from 1; claims that were
	// undone (Unclaim) do not count.
	Attempt int
	// Checkpoint is what the latest attempt saved part-way, nil if nothing or if
	// the record is final. It is shared: read it or append to it, do not change it.
	Checkpoint []byte
	// Result is the result of Completed, the reason of Failed and Released, the note of
	// Held. A claim after a release keeps the reason until the record is final. It is
	// shared: read it or append to it, do not change it.
	Result []byte
	// ResultDropped: final, but the result or reason was over Options.MaxResult or
	// could not be encoded, and was not kept.
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
	return fmt.Sprintf("record(%s, fence %d, attempt %d)", r.State, r.Fence, r.Attempt)
}

// GoString is String: %#v does not disclose the key or payloads either.
func (r Record) GoString() string { return r.String() }

// LogValue logs the state and sizes, never the key or payloads.
func (r Record) LogValue() slog.Value {
	return slog.GroupValue(slog.String("state", r.State.String()),
		slog.Uint64("fence", r.Fence), slog.Int("attempt", r.Attempt),
		slog.Int("result_bytes", len(r.Result)), slog.Int("checkpoint_bytes", len(r.Checkpoint)))
}

// record shows e to people, with times on the wall clock; of no entry, only the key. It
// is the only way from an Entry to a Record. It returns the 224 bytes by value, which costs a copy: written
// through a pointer, the seven pointers in them would pass the collector's write
// barrier, and while a collection of a large heap is under way that made look-ups'
// p99 eight times as long.
func record(key string, e *engine.Entry, toWall int64) (r Record) {
	r.Key = key
	if e == nil {
		return r
	}
	r.State, r.Fingerprint, r.Fence, r.Attempt = e.State, e.Fingerprint, e.Fence, int(e.Attempt)
	// Callers share the bytes, but not the room behind them: append copies.
	r.Checkpoint, r.Result = slices.Clip(e.Checkpoint), slices.Clip(e.Result)
	r.ResultDropped, r.HoldUnknown = e.ResultDropped, e.HoldUnknown
	r.ClaimedAt, r.LeaseUntil = wallTime(e.ClaimedAt, toWall), wallTime(e.LeaseUntil, toWall)
	r.FinishedAt, r.ExpiresAt = wallTime(e.FinishedAt, toWall), wallTime(e.ExpiresAt, toWall)
	return r
}
