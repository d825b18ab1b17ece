package idem

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/idemkv/idem/engine"
)

// State is the stored state of a record. Lapsed and expired are not states: they are
// computed on each read. The method Final reports whether a state is Completed or
// Failed.
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

// Record is what the store knows about an operation. Times are wall-clock times as the
// clock reads now. If the clock steps, they step with it, while leases and retention
// run on. A zero time means "not yet" or, for ExpiresAt, "never".
type Record struct {
	// Key names the operation.
	Key string
	// State is the stored state.
	State State
	// Fingerprint is the request's; zero if none was given.
	Fingerprint Fingerprint
	// Fence is the latest claim's. In JSON it is a string, because a float64 cannot hold
	// it.
	Fence uint64 `json:",string"`
	// Attempt counts the claims granted for this operation, from 1. Undone claims
	// (Unclaim) do not count.
	Attempt int
	// Checkpoint is what the latest attempt saved part-way; nil if it saved nothing or
	// the record is final. It is shared: reading and appending are safe, changing its
	// bytes is not.
	Checkpoint []byte
	// Result is the result of Completed, the reason of Failed and Released, or the note
	// of Held. A claim after a release keeps the reason until the record is final. It is
	// shared: reading and appending are safe, changing its bytes is not.
	Result []byte
	// ResultDropped: the record is final, but its result or reason was over
	// Options.MaxResult or could not be encoded, and was not kept.
	ResultDropped bool
	// HoldUnknown is the latest claim's Request.HoldUnknown.
	HoldUnknown bool
	// Lapsed: the record is InFlight and its lease no longer holds, because it ran out or
	// by Options.LapseOnOpen. This was so when the record was read.
	Lapsed bool
	// ClaimedAt is when the latest claim was granted.
	ClaimedAt time.Time
	// LeaseUntil is when the latest claim's lease lapses, or would have lapsed.
	LeaseUntil time.Time
	// FinishedAt is when the record became Completed or Failed.
	FinishedAt time.Time
	// ExpiresAt is when the record expires; zero: never.
	ExpiresAt time.Time
}

// Token returns the token of the record's latest claim. An operator who knows the
// outcome can settle the operation with it.
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

// record converts e for users, as it is at now, with wall-clock times; without an entry
// it has the key alone. It is the only way from an Entry to a Record. It returns 224 bytes by value on
// purpose. Written through a pointer, their seven pointers would pass the garbage
// collector's write barrier, and during a collection of a large heap that made the p99 of
// look-ups eight times as long.
func (s *Store) record(key string, e *engine.Entry, now engine.Instant, toWall int64) (r Record) {
	r.Key = key
	if e == nil {
		return r
	}
	r.State, r.Fingerprint, r.Fence, r.Attempt = e.State, e.Fingerprint, e.Fence, int(e.Attempt)
	// Callers share the bytes but not the spare capacity, so append copies.
	r.Checkpoint, r.Result = slices.Clip(e.Checkpoint), slices.Clip(e.Result)
	r.ResultDropped, r.HoldUnknown = e.ResultDropped, e.HoldUnknown
	r.Lapsed = e.State == InFlight && lapsed(e, now, s.leasesFrom)
	r.ClaimedAt, r.LeaseUntil = wallTime(e.ClaimedAt, toWall), wallTime(e.LeaseUntil, toWall)
	r.FinishedAt, r.ExpiresAt = wallTime(e.FinishedAt, toWall), wallTime(e.ExpiresAt, toWall)
	return r
}
