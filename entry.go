package idem

import (
	"math"
	"time"
)

// Instant is a moment in store time: nanoseconds on the store's own timeline,
// which starts at the wall clock's Unix time when the store is created and from
// then on follows elapsed time (see Meta). Zero means "not set".
type Instant int64

// Never is the Instant that is never reached.
const Never = Instant(math.MaxInt64)

// add returns t+d, saturating at Never. d is not negative.
func (t Instant) add(d time.Duration) Instant {
	if d == Forever || t > Never-Instant(d) {
		return Never
	}
	return t + Instant(d)
}

// Entry is a record as an engine keeps it. An Entry is immutable once it has been
// handed over: engines, cache and callers share it. Engines store every field and
// interpret none but Due.
type Entry struct {
	// State is never zero in a stored entry.
	State State
	// HoldUnknown and ResultDropped are as in Record.
	HoldUnknown   bool
	ResultDropped bool
	// Bound: Released by Unclaim, so that the fingerprint stays in force until the
	// next grant.
	Bound bool
	// Attempt is as in Record.
	Attempt uint32
	// Fence is the latest claim's.
	Fence uint64
	// Opening is the number of the store opening (Meta.Opening) in which the lease
	// was granted or last extended.
	Opening uint64
	// Fingerprint is as in Record.
	Fingerprint Fingerprint
	// ClaimedAt, LeaseUntil and FinishedAt are as in Record, in store time.
	ClaimedAt, LeaseUntil, FinishedAt Instant
	// ExpiresAt is when the record is gone; Never if it does not expire.
	ExpiresAt Instant
	// Due is where the record stands in the expiry index: "do not look at this key
	// before". It is never after ExpiresAt, and zero if and only if ExpiresAt is
	// Never: then the record is not in the index.
	Due Instant
	// Lease and Retention are the durations of the latest claim.
	Lease, Retention time.Duration
	// Checkpoint and Result are as in Record; nil and empty are told apart.
	Checkpoint, Result []byte
}

// live reports whether e exists at now.
func (e *Entry) live(now Instant) bool { return e != nil && now < e.ExpiresAt }

// lapsed reports whether e's lease no longer holds: its time is over, or it was
// given before the opening from which on leases count.
func (e *Entry) lapsed(now Instant, leasesFrom uint64) bool {
	return now >= e.LeaseUntil || e.Opening < leasesFrom
}

// setExpiry sets ExpiresAt and keeps Due in step: moved only if it must be
// earlier, because moving an index entry costs a write and being early costs the
// sweeper one look. soonest is the earliest time at which the record, as it is
// or as it may yet become, can expire.
func (e *Entry) setExpiry(at, soonest Instant) {
	e.ExpiresAt = at
	switch {
	case at == Never:
		e.Due = 0
	case e.Due == 0 || soonest < e.Due:
		e.Due = soonest
	}
}
