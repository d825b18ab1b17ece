package idem

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// Event tells an Options.Observer one thing the store did. Fields that do not apply are
// zero.
//
// The observer runs on the goroutine of the call, once the answer is durable, and with no
// lock held. Its panics are caught. CommitDone, StoreBroken and the background sweep's
// events are sent from a goroutine of their own; the store waits for the observer to
// return, unless it is closed or shut down first. An observer may call the store, and may
// close it or shut it down.
//
// The observer's context has the values of the caller's, for traces and tenants, but not
// its cancellation. For CommitDone, StoreBroken and the background sweep it is
// context.Background().
//
// Two counters follow from the events: duplicate_request_count is how many events have a
// Kind.Duplicate() of true, and idempotency_cache_hits is how many are of kind CacheHit.
type Event struct {
	// Kind says what happened.
	Kind EventKind
	// KeyHash stands for the key; see Store.KeyHash. Events carry no keys or payloads.
	KeyHash string
	// Fence and Attempt are the claim's: the granted one, or the one in the way.
	Fence   uint64
	Attempt int
	// Count is how many records a sweep removed, or how many operations shared a commit.
	Count int
	// Corrupt is how many records a sweep skipped because it could not read them.
	Corrupt int
	// Duration is how long a commit took. For a call that settles a claim it is the time
	// since the claim was granted. For a sweep it is not how long the sweep took but its
	// lag: of the records it removed, the longest time that any had been expired.
	Duration time.Duration
	// Err is the cause of StoreBroken and of a failed sweep.
	Err error
	// Stack is where the engine panicked, if a panic broke the store.
	Stack string
}

// EventKind says what an Event tells.
type EventKind uint8

// The kinds of Event.
const (
	// ClaimGranted: a first attempt, or one after a release, was granted.
	ClaimGranted EventKind = iota + 1
	// ClaimTakeover: a claim was granted over a lapsed lease.
	ClaimTakeover
	// ClaimReplayed: a claim met a completed record (ErrCompleted).
	ClaimReplayed
	// ClaimInFlight: a claim met a lease that holds (ErrInFlight).
	ClaimInFlight
	// ClaimMismatch: a claim met another request under its key (ErrMismatch).
	ClaimMismatch
	// ClaimFailed: a claim met a failed record (ErrFailed).
	ClaimFailed
	// ClaimHeld: a claim met an unknown outcome (ErrHeld).
	ClaimHeld
	// ClaimExhausted: a claim met an operation without attempts left (ErrExhausted).
	ClaimExhausted
	// ClaimFull: a claim did not fit (ErrFull).
	ClaimFull
	// ClaimTooLate: a claim came when its record may have been forgotten (ErrTooLate).
	ClaimTooLate
	// OperationCompleted, OperationFailed, OperationReleased and OperationHeld: an
	// attempt ended so, by a call with its token or in a same-commit function.
	OperationCompleted
	OperationFailed
	OperationReleased
	OperationHeld
	// OperationUnclaimed: a claim was undone before its work began.
	OperationUnclaimed
	// LeaseExtended and CheckpointSaved: a running attempt extended its lease or saved a
	// checkpoint.
	LeaseExtended
	CheckpointSaved
	// TokenRefused: a token was stale (ErrFenced).
	TokenRefused
	// RecordForgotten: an operator removed a record.
	RecordForgotten
	// CacheHit and CacheMiss: a look-up found or did not find a record in the cache of
	// final records. The memory engine has no cache and sends neither.
	CacheHit
	CacheMiss
	// SweepDone: a sweep removed or skipped records.
	SweepDone
	// SweepFailed: a sweep ended with an error.
	SweepFailed
	// CommitDone: a commit became durable.
	CommitDone
	// StoreBroken: the store answers ErrBroken from now on. The first call that notices
	// sends it. An idle store sends it when it is next used, or closed.
	StoreBroken
)

var eventNames = [...]string{
	"none", "claim_granted", "claim_takeover", "claim_replayed", "claim_in_flight", "claim_mismatch",
	"claim_failed", "claim_held", "claim_exhausted", "claim_full", "claim_too_late", "operation_completed", "operation_failed",
	"operation_released", "operation_held", "operation_unclaimed", "lease_extended", "checkpoint_saved", "token_refused",
	"record_forgotten", "cache_hit", "cache_miss", "sweep_done", "sweep_failed", "commit_done", "store_broken",
}

// String returns the kind's name in snake case, fit for a metric label.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "unknown"
}

// MarshalText returns String's name. ErrInvalid is returned when k is no kind; zero is
// "none".
func (k EventKind) MarshalText() ([]byte, error) {
	if int(k) >= len(eventNames) {
		return nil, invalid("%d is not a kind of event", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText writes. ErrInvalid is returned for anything else;
// k is then unchanged.
func (k *EventKind) UnmarshalText(text []byte) error {
	i := slices.Index(eventNames[:], string(text))
	if i < 0 {
		return invalid("%.40q is not a kind of event", text)
	}
	*k = EventKind(i)
	return nil
}

// LogValue logs the fields that are set. The key's hash stands for the key.
func (e Event) LogValue() slog.Value {
	attrs := append(make([]slog.Attr, 0, 9), slog.String("kind", e.Kind.String()))
	add := func(set bool, a slog.Attr) {
		if set {
			attrs = append(attrs, a)
		}
	}
	add(e.KeyHash != "", slog.String("key_hash", e.KeyHash))
	add(e.Fence != 0, slog.Uint64("fence", e.Fence))
	add(e.Attempt != 0, slog.Int("attempt", e.Attempt))
	add(e.Count != 0, slog.Int("count", e.Count))
	add(e.Corrupt != 0, slog.Int("corrupt", e.Corrupt))
	add(e.Duration != 0, slog.Duration("duration", e.Duration))
	add(e.Err != nil, slog.Any("err", e.Err))
	add(e.Stack != "", slog.String("stack", e.Stack))
	return slog.GroupValue(attrs...)
}

// Duplicate reports whether the event is a claim refused because the same operation was
// asked for before. A mismatch is not a duplicate: it is another operation under the same
// key.
func (k EventKind) Duplicate() bool {
	return k >= ClaimReplayed && k <= ClaimExhausted && k != ClaimMismatch
}

// observe calls the observer. Hold no lock when calling it.
func (s *Store) observe(ctx context.Context, e Event) {
	defer func() { _ = recover() }()
	s.opts.Observer(context.WithoutCancel(ctx), e)
}

// observeLater is observe for goroutines that Close waits for. The observer may itself call
// Close, so observeLater stops waiting for it once the store is closing.
func (s *Store) observeLater(e Event) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.observe(context.Background(), e)
	}()
	select {
	case <-told:
	case <-s.leaving.c:
	}
}

// observed reports whether there is an observer. Without one, callers build no events.
func (s *Store) observed() bool { return s.opts.Observer != nil }

// observeRefused tells the observer about a claim that was not granted.
func (s *Store) observeRefused(ctx context.Context, r *Record, refusal error) {
	if !s.observed() {
		return
	}
	if kind := claimEvent(refusal); kind != 0 {
		s.observe(ctx, Event{Kind: kind, KeyHash: s.KeyHash(r.Key), Fence: r.Fence, Attempt: r.Attempt})
	}
}

// claimEvent maps the answer of a claim to its event.
func claimEvent(err error) EventKind {
	switch err {
	case ErrCompleted:
		return ClaimReplayed
	case ErrFailed:
		return ClaimFailed
	case ErrInFlight:
		return ClaimInFlight
	case ErrHeld:
		return ClaimHeld
	case ErrMismatch:
		return ClaimMismatch
	case ErrExhausted:
		return ClaimExhausted
	case ErrTooLate:
		return ClaimTooLate
	}
	if errors.Is(err, ErrFull) {
		return ClaimFull
	}
	return 0
}
