package idem

import (
	"bytes"
	"time"

	"github.com/idemkv/idem/engine"
)

// action describes what is asked of one key, as data. It holds everything that the
// answer depends on besides the record and the time.
type action struct {
	kind        actionKind
	fence       uint64         // the token's; for a claim, the fence to grant
	fingerprint Fingerprint    // of the request
	lease       time.Duration  // of the request; for extend, 0 is the claim's own
	retention   time.Duration  // of the request
	holdUnknown bool           // of the request
	maxAttempts uint32         // 0: unlimited
	issuedAt    int64          // of the request: wall clock, Unix nanoseconds; 0: unknown
	wall        int64          // the wall clock now; for claims
	lostUntil   int64          // records of operations issued up to then may have been lost
	epoch       uint64         // of the store that asks
	leasesFrom  uint64         // leases of earlier openings have lapsed
	bytes       []byte         // result, reason, note or checkpoint; owned by the action
	dropped     bool           // complete, fail: the result or reason is not kept
	unlessHeld  bool           // complete, fail, release: a record that is held stays so
	due         engine.Instant // sweep: the index entry that was found
	entry       *engine.Entry  // import: the record, without its Due; nil: none
}

type actionKind uint8

const (
	actClaim actionKind = iota + 1
	actComplete
	actFail
	actRelease
	actUnclaim
	actHold
	actExtend
	actCheckpoint
	actForget
	actSweep
	actImport // the record of another store
	actSave   // nothing: the commit saves what the store knows
)

// transition is the state machine. It returns what becomes of the record cur (nil:
// none) when a is asked of it at now, and the answer. next == cur means that nothing
// changes, and next == nil that the record is gone. It has no other input and no side
// effect, and does not modify cur. Every rule about who may do what is in this file.
func transition(cur *engine.Entry, a *action, now engine.Instant) (next *engine.Entry, answer error) {
	switch a.kind {
	case actClaim:
		if refusal := refuseClaim(cur, a, now); refusal != nil {
			return cur, refusal
		}
		return grant(cur, a, now), nil
	case actForget:
		return forget(cur, a, now)
	case actSweep:
		return sweep(cur, a, now), nil
	case actImport:
		return arrive(a, now), nil
	case actSave:
		return cur, nil
	case actUnclaim:
		if !live(cur, now) {
			return cur, nil // it is gone already
		}
	}

	if !live(cur, now) || cur.Fence != a.fence {
		return cur, ErrFenced
	}
	open := cur.State == InFlight || cur.State == Held && !a.unlessHeld
	switch a.kind {
	case actComplete, actFail:
		if open {
			return finish(cur, a, now)
		}
		if repeats(cur, a) {
			return cur, tooLarge(a)
		}
	case actRelease:
		if open {
			return release(cur, a, now), nil
		}
		if cur.State == Released {
			return cur, nil
		}
	case actUnclaim:
		if cur.State == InFlight {
			return unclaim(cur, now), nil
		}
		if cur.State == Released {
			return cur, nil
		}
	case actHold:
		if cur.State == InFlight {
			return hold(cur, a), nil
		}
		if cur.State == Held {
			return cur, nil
		}
	case actExtend:
		if cur.State == InFlight {
			return extend(cur, a, now), nil
		}
	case actCheckpoint:
		if cur.State == InFlight {
			e := *cur
			e.Checkpoint = a.bytes
			return &e, nil
		}
	}
	return cur, refusalOf(cur.State)
}

// refusalOf returns the answer to a token operation whose token is current but which
// the record's state does not allow.
func refusalOf(s State) error {
	switch s {
	case Held:
		return ErrHeld
	case Completed:
		return ErrCompleted
	case Failed:
		return ErrFailed
	}
	return ErrFenced
}

// refuseEffect decides a completion whose result is yet to be computed. nil means that
// it may be computed, because the record can still be completed.
func refuseEffect(cur *engine.Entry, a *action, now engine.Instant) error {
	switch {
	case !live(cur, now) || cur.Fence != a.fence:
		return ErrFenced
	case cur.State == InFlight || cur.State == Held:
		return nil
	}
	return refusalOf(cur.State)
}

// refuseClaim is the part of transition that answers a claim without granting it. nil
// means that the claim would be granted. It allocates nothing, which keeps replays free
// of allocations. The order of the checks is part of the rules: a mismatch comes before
// anything that would disclose the record.
func refuseClaim(cur *engine.Entry, a *action, now engine.Instant) error {
	if !live(cur, now) {
		return tooLate(a)
	}
	if newOperation(cur, a) {
		return nil
	}
	if !agree(cur.Fingerprint, a.fingerprint) {
		return ErrMismatch
	}
	switch cur.State {
	case Completed:
		return ErrCompleted
	case Failed:
		return ErrFailed
	case Held:
		return ErrHeld
	case InFlight:
		if !lapsed(cur, now, a.leasesFrom) {
			return ErrInFlight
		}
		if cur.HoldUnknown {
			return ErrHeld
		}
	}
	if a.maxAttempts > 0 && cur.Attempt >= a.maxAttempts {
		return ErrExhausted
	}
	return nil
}

// newOperation reports whether a's request differs from cur's and may still have the
// key. A released operation that saved nothing does not bind the key. If its last claim
// was undone it does, because an earlier attempt may have left effects.
func newOperation(cur *engine.Entry, a *action) bool {
	return cur.State == Released && cur.Checkpoint == nil && !cur.Bound && !agree(cur.Fingerprint, a.fingerprint)
}

// tooLate answers a claim that finds no record. It is ErrTooLate if there may have been
// one: the request is older than its retention, or than what the store has lost.
func tooLate(a *action) error {
	if a.issuedAt == 0 {
		return nil
	}
	issued := min(a.issuedAt, a.wall)
	if issued <= a.lostUntil || engine.Instant(issued).Add(a.retention) <= engine.Instant(a.wall) {
		return ErrTooLate
	}
	return nil
}

// grant returns the record of a granted claim.
func grant(cur *engine.Entry, a *action, now engine.Instant) *engine.Entry {
	e := &engine.Entry{
		State:       InFlight,
		HoldUnknown: a.holdUnknown,
		Attempt:     1,
		Fence:       a.fence,
		Epoch:       a.epoch,
		Fingerprint: a.fingerprint,
		ClaimedAt:   now,
		LeaseUntil:  now.Add(a.lease),
		Lease:       a.lease,
		Retention:   a.retention,
	}
	if cur != nil {
		e.Due = cur.Due // an expired record's index entry serves the new one too
	}
	if live(cur, now) && !newOperation(cur, a) {
		e.Attempt = cur.Attempt + 1
		e.Checkpoint, e.Result = cur.Checkpoint, cur.Result // the reason of the last release
		if a.fingerprint.IsZero() {
			e.Fingerprint = cur.Fingerprint
		}
	}
	setInFlightExpiry(e, now)
	return e
}

// setInFlightExpiry makes a record in flight expire at lease end + retention, unless a
// lapsed lease would leave it held.
func setInFlightExpiry(e *engine.Entry, now engine.Instant) {
	if e.HoldUnknown {
		setExpiry(e, engine.Never, engine.Never)
		return
	}
	setExpiry(e, e.LeaseUntil.Add(e.Retention), now.Add(e.Retention))
}

func finish(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
	e := *cur
	e.State = Completed
	if a.kind == actFail {
		e.State = Failed
	}
	e.Result, e.ResultDropped, e.Checkpoint = a.bytes, a.dropped, nil
	e.FinishedAt = now
	at := now.Add(e.Retention)
	setExpiry(&e, at, at)
	return &e, tooLarge(a)
}

// repeats reports whether a asks for what the final record cur already says.
func repeats(cur *engine.Entry, a *action) bool {
	same := cur.ResultDropped == a.dropped && bytes.Equal(cur.Result, a.bytes)
	return same && (a.kind == actComplete && cur.State == Completed || a.kind == actFail && cur.State == Failed)
}

// tooLarge is the answer of a completion or failure that was recorded without its
// result or reason. The caller must know that it will not replay.
func tooLarge(a *action) error {
	if a.dropped {
		return ErrTooLarge
	}
	return nil
}

func release(cur *engine.Entry, a *action, now engine.Instant) *engine.Entry {
	e := *cur
	e.State, e.Result = Released, a.bytes
	at := now.Add(e.Retention)
	setExpiry(&e, at, at)
	return &e
}

// unclaim undoes a claim whose work has not begun. A first attempt that saved nothing
// leaves nothing. Otherwise an earlier attempt may have left effects, so the
// fingerprint stays in force.
func unclaim(cur *engine.Entry, now engine.Instant) *engine.Entry {
	if cur.Attempt <= 1 && cur.Checkpoint == nil {
		return nil
	}
	e := *cur
	e.State, e.Bound = Released, true
	e.Attempt--
	at := now.Add(e.Retention)
	setExpiry(&e, at, at)
	return &e
}

// forget removes the record with a's fence, or any record if a has none.
func forget(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
	if a.fence == 0 || cur != nil && cur.Fence == a.fence {
		return nil, nil
	}
	if live(cur, now) {
		return cur, ErrFenced
	}
	return cur, nil
}

// effectFailure returns what the error of a same-commit function does to the record.
// What the function wrote is undone in any case. A permanent error fails the operation,
// and one that leaves the outcome unknown holds it. Any other leaves the record as it
// was (0), except that the attempt counts if the request limits attempts.
func effectFailure(a *action, m mark) actionKind {
	switch {
	case m == permanent:
		return actFail
	case m == unknown:
		return actHold
	case a.kind == actClaim && a.maxAttempts > 0:
		return actRelease
	}
	return 0
}

func hold(cur *engine.Entry, a *action) *engine.Entry {
	e := *cur
	e.State, e.Result = Held, a.bytes
	setExpiry(&e, engine.Never, engine.Never)
	return &e
}

func extend(cur *engine.Entry, a *action, now engine.Instant) *engine.Entry {
	e := *cur
	lease := a.lease
	if lease == 0 {
		lease = e.Lease
	}
	e.LeaseUntil = max(e.LeaseUntil, now.Add(lease))
	e.Epoch = a.epoch
	setInFlightExpiry(&e, now)
	return &e
}

// arrive returns the record that an import brings.
func arrive(a *action, now engine.Instant) *engine.Entry {
	if a.entry == nil {
		return nil
	}
	e := *a.entry
	soonest := e.ExpiresAt
	if e.State == InFlight {
		soonest = min(soonest, now.Add(e.Retention))
	}
	setExpiry(&e, e.ExpiresAt, soonest)
	return &e
}

// sweep removes an expired record. For a live one it moves the expiry index entry to
// the new time, if the entry found is still the record's own.
func sweep(cur *engine.Entry, a *action, now engine.Instant) *engine.Entry {
	if cur == nil || !live(cur, now) {
		return nil
	}
	if cur.Due != a.due || cur.Due > now {
		return cur
	}
	e := *cur
	e.Due = e.ExpiresAt
	return &e
}
