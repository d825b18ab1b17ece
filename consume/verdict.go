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
	// Reason is why, in one word. Count verdicts by it, and alert on those that are Dead.
	Reason Reason
	// Err is why in full: the handler's error, or the store's. It is nil after
	// Processed (but see there), after Duplicate, and after an Unprotected run that went
	// well.
	Err error
	// After is how long to wait before the message is delivered again. With InFlight, and
	// with Behind such a message, it is the time until the other attempt's lease ends,
	// in case that attempt died. Zero means that nothing is known: use the broker's
	// backoff or your own.
	After time.Duration
	// Attempt is how many runs of the operation have begun, counting this one or the one
	// in the way; zero if there was none, or nothing was looked up.
	Attempt int
}

// String returns decision, reason and error.
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
	// Retry: do not acknowledge the message; have it delivered again later.
	Retry Decision = iota
	// Ack: acknowledge the message. It is processed.
	Ack
	// Dead: put the message aside, in a dead-letter queue, and tell someone. Delivering it
	// again changes nothing by itself.
	Dead
)

// String returns the decision in lower case.
func (d Decision) String() string { return name(decisions[:], int(d)) }

var decisions = [...]string{"retry", "ack", "dead"}

// Reason is why a delivery got its Decision.
type Reason uint8

const (
	_ Reason = iota

	// Processed, Ack: the handler ran and that is recorded. Err is set if the handler
	// completed the operation itself (Operation.Token) and then returned an error.
	Processed
	// Duplicate, Ack: an earlier delivery was processed. The handler did not run.
	Duplicate

	// Failed, Retry: the handler returned an error after which the message may run
	// again, or released its claim itself. The attempt counts.
	Failed
	// InFlight, Retry: another attempt is running elsewhere, and did not end within
	// Options.Wait.
	InFlight
	// Behind, Retry: an earlier message in the batch has to come first; see
	// Options.Order. The handler did not run, nothing was claimed, and no attempt is
	// counted. After is that of the earlier message.
	Behind
	// Unavailable, Retry: the store gave no answer (it is closed, broken or full, or the
	// record is corrupt), ctx ended first, or the message's turn in the batch did not
	// come. The latter happens if its claim was lost, if an earlier handler ran into
	// MaxRun, or if the store was closed or broke when an earlier message was recorded.
	// The handler did not run, and no attempt is counted.
	Unavailable
	// Unrecorded, Retry: the handler ran, but how it ended could not be recorded,
	// because the claim was lost or the store broke. Another attempt may run the
	// message again. Err also says how the handler ended.
	Unrecorded

	// Permanent, Dead: the handler returned an idem.Permanent error, now or for an
	// earlier delivery, or failed the operation itself. It is recorded.
	Permanent
	// Exhausted, Dead: MaxAttempts, the consumer's or the store's, are used up, and none
	// ended well. One cause is a message that kills its consumer. Err wraps
	// idem.ErrExhausted and says how the last attempt failed, if that is known.
	Exhausted
	// Mismatch, Dead: the ID belongs to an earlier message with another fingerprint. The
	// handler did not run: one of the two messages has the wrong ID.
	Mismatch
	// TooLate, Dead: by Options.IssuedAt the message is so old that its record may have
	// been forgotten. The handler was not run: the message may have been processed.
	TooLate
	// Held, Dead: nobody knows whether the message was processed, and the store must not
	// guess. The handler returned an idem.Unknown error or held the operation itself. Or,
	// with Options.HoldUnknown, it returned an error without a mark, panicked, or its
	// process died. Someone must find out and settle the record (Consumer.Key). After
	// that a redelivery is a Duplicate, or runs.
	Held
	// NoID, Dead: the message has no ID, and the policy is to reject it.
	NoID
	// Invalid, Dead: the key would be too long, or Options.Fingerprint returned an error.
	Invalid

	// Unprotected: a message without an ID was run, as RunUnprotected says. The Decision
	// is what it would be with an ID; nothing was recorded.
	Unprotected
)

// String returns the reason in lower case, with words joined by "_", fit for a metric
// label.
func (r Reason) String() string { return name(reasons[:], int(r)) }

var reasons = [...]string{
	"none", "processed", "duplicate", "failed", "in_flight", "behind", "unavailable", "unrecorded", "permanent",
	"exhausted", "mismatch", "too_late", "held", "no_id", "invalid", "unprotected",
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
