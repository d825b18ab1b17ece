package consume

import (
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem"
)

// Verdict is what became of one delivery and what to tell the broker. The zero
// Verdict is Retry: a message is never acknowledged by accident.
type Verdict struct {
	// Decision is what to tell the broker.
	Decision Decision
	// Reason is why, in one word: count it, and alert on what is Dead.
	Reason Reason
	// Err is why in full: the handler's error, or the store's. It is nil after
	// Processed (but see there), Duplicate, and Unprotected that went well.
	Err error
	// After is how long to wait before the message is delivered again: after InFlight, and
	// for those Behind such a message, the time until the lease of the other attempt ends,
	// should that die. Zero: nothing is known; use what the broker or your own backoff says.
	After time.Duration
	// Attempt counts the runs of the operation that were begun, this one or the one
	// in the way included, from 1; zero if there is none, or nothing was looked up.
	Attempt int
}

// String says decision, reason and error.
func (v Verdict) String() string {
	s := fmt.Sprintf("%v: %v", v.Decision, v.Reason)
	if v.Err != nil {
		s += ": " + string(idem.Claim{}.Ending(v.Err).Result) // as a record has it, if the text panics
	}
	return s
}

// Decision is what to tell the broker.
type Decision uint8

const (
	// Retry: do not acknowledge; have it delivered again, later.
	Retry Decision = iota
	// Ack: acknowledge. The message is processed.
	Ack
	// Dead: put it aside, into a dead-letter queue, and tell somebody. Delivering it
	// again by itself changes nothing.
	Dead
)

// String returns the decision in lower case.
func (d Decision) String() string { return name(decisions[:], int(d)) }

var decisions = [...]string{"retry", "ack", "dead"}

// Reason is why a delivery got its Decision.
type Reason uint8

const (
	_ Reason = iota

	// Processed, Ack: the handler ran and it is recorded. Err is set if the handler
	// completed the operation by itself (Operation.Token) and returned an error then.
	Processed
	// Duplicate, Ack: an earlier delivery was processed. The handler was not run.
	Duplicate

	// Failed, Retry: the handler returned an error after which the message may be run
	// again, or released its claim by itself. The attempt counts.
	Failed
	// InFlight, Retry: another attempt is running elsewhere, and did not end within
	// Options.Wait.
	InFlight
	// Behind, Retry: a message before it in the batch has to come first; see
	// Options.Order. The handler was not run, nothing was claimed, and no attempt is
	// counted. After is that of the message that has to come first.
	Behind
	// Unavailable, Retry: the store gave no answer (it is closed, broken or full, or
	// the record is corrupt), or ctx ended first, or the message's turn in the batch
	// did not come: its claim was lost, a handler before it ran into MaxRun, or how one
	// before it ended could not be recorded because the store was closed or broke. The
	// handler was not run, and no attempt is counted.
	Unavailable
	// Unrecorded, Retry: the handler ran and what came of it could not be recorded,
	// because the claim was lost or the store broke. Another attempt may run it
	// again; Err says how the handler ended, too.
	Unrecorded

	// Permanent, Dead: the handler returned an idem.Permanent error, now or for an
	// earlier delivery, or failed the operation by itself. It is recorded.
	Permanent
	// Exhausted, Dead: MaxAttempts, the consumer's or the store's, are used up, and
	// none ended well: a message that kills its consumer, for one. Err wraps
	// idem.ErrExhausted and says how the last attempt failed, if it said so.
	Exhausted
	// Mismatch, Dead: the ID is that of an earlier message with another fingerprint.
	// The handler was not run: one of the two is not what its ID says.
	Mismatch
	// Held, Dead: it is not known whether the message was processed, and it must not
	// be guessed: the handler returned an idem.Unknown error or, with
	// Options.HoldUnknown, any without a mark; or it held the operation by itself; or
	// its process died. Whoever finds out settles the record (Consumer.Key). After that
	// a redelivery is Duplicate, or runs.
	Held
	// NoID, Dead: the message has no ID, and the policy is to reject it.
	NoID
	// Invalid, Dead: the key would be too long, or Options.Fingerprint refused it.
	Invalid

	// Unprotected: a message without an ID was run as RunUnprotected says. The
	// Decision is what it would be with an ID; nothing was recorded.
	Unprotected
)

// String returns the reason in lower case, words joined by "_": fit for a label of a
// metric.
func (r Reason) String() string { return name(reasons[:], int(r)) }

var reasons = [...]string{
	"none", "processed", "duplicate", "failed", "in_flight", "behind", "unavailable", "unrecorded", "permanent",
	"exhausted", "mismatch", "held", "no_id", "invalid", "unprotected",
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

var (
	// ErrMaxRun is returned by context.Cause of a handler's context when the handler
	// has run for Options.MaxRun.
	ErrMaxRun = errors.New("idem: the handler ran longer than Options.MaxRun")

	// ErrBehind is returned, in a Verdict, for a message that is Behind.
	ErrBehind = errors.New("idem: a message before it in the batch has to come first")

	// ErrNoID is returned, in a Verdict and by Key, when a message has no ID.
	ErrNoID = errors.New("idem: message has no ID")
)
