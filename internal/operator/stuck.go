package operator

import (
	"time"

	"github.com/idemkv/idem"
)

// Reason names why an operation waits for someone.
type Reason string

// The reasons.
const (
	// ReasonHeld: the outcome is unknown, and somebody said so.
	ReasonHeld Reason = "held"
	// ReasonUnknown: the lease of a claim with HoldUnknown lapsed. Claims get ErrHeld.
	ReasonUnknown Reason = "unknown"
	// ReasonLapsed: the lease lapsed, and the next claim takes over. None has come.
	ReasonLapsed Reason = "lapsed"
	// ReasonReleased: the last attempt may be retried, and nobody has retried it.
	ReasonReleased Reason = "released"
	// ReasonExhausted: the attempts are used up. Claims get ErrExhausted.
	ReasonExhausted Reason = "exhausted"
)

// Reasons lists the reasons, the most urgent first.
func Reasons() []Reason {
	return []Reason{ReasonHeld, ReasonUnknown, ReasonExhausted, ReasonLapsed, ReasonReleased}
}

// Stuck says why an operation waits for someone, since when, and what would settle it.
type Stuck struct {
	// Reason is why.
	Reason Reason `json:"reason"`
	// Since is the end of the lease if that is the reason, else the time of the latest
	// claim: the store does not keep when a claim was held or released.
	Since time.Time `json:"since,omitzero"`
	// AgeSeconds is how long ago Since is.
	AgeSeconds int64 `json:"age_seconds"`
	// Why says what happened, in a sentence.
	Why string `json:"why"`
	// Settles says what would settle it, in a sentence.
	Settles string `json:"settles"`
}

// Age is how long ago Since is.
func (s Stuck) Age() time.Duration { return time.Duration(s.AgeSeconds) * time.Second }

var whys = map[Reason]Stuck{
	ReasonHeld: {
		Why:     "The outcome of the last attempt is unknown. Retries are refused.",
		Settles: "Find out whether the work was done. If so complete it with its result; if not release it, or fail it for good.",
	},
	ReasonUnknown: {
		Why:     "The attempt ended without reporting a result, and must not be repeated blindly. Retries are refused.",
		Settles: "Find out whether the work was done. If so complete it with its result; if not release it, or fail it for good.",
	},
	ReasonLapsed: {
		Why:     "The lease ended without a result. Nobody has taken over.",
		Settles: "The next request with the key takes over. If none will come, complete, fail or forget it.",
	},
	ReasonReleased: {
		Why:     "The last attempt ended in a way that may be retried. Nobody has retried it.",
		Settles: "The next request with the key runs it again. If none will come, it expires; forget it to free the key at once.",
	},
	ReasonExhausted: {
		Why:     "All attempts are used up, and none finished. Retries are refused.",
		Settles: "Mend the cause, then forget the record to let it run again from the first attempt. If its lease lapsed, it can also be completed or failed.",
	},
}

// StuckBy reports whether rec waits for someone, and why. maxAttempts is the bound on
// attempts; zero is none. now is the wall clock of the store, for the age.
func StuckBy(rec idem.Record, maxAttempts int, now time.Time) (Stuck, bool) {
	reason := reasonOf(rec, maxAttempts)
	if reason == "" {
		return Stuck{}, false
	}
	s := whys[reason]
	s.Reason, s.Since = reason, rec.ClaimedAt
	if rec.State == idem.InFlight && !rec.LeaseUntil.After(now) { // LapseOnOpen may have ended it early
		s.Since = rec.LeaseUntil
	}
	s.AgeSeconds = int64(max(0, now.Sub(s.Since)) / time.Second)
	return s, true
}

func reasonOf(rec idem.Record, maxAttempts int) Reason {
	exhausted := maxAttempts > 0 && rec.Attempt >= maxAttempts
	switch {
	case rec.State == idem.Held:
		return ReasonHeld
	case rec.State == idem.Released && exhausted:
		return ReasonExhausted
	case rec.State == idem.Released:
		return ReasonReleased
	case !rec.Lapsed:
		return ""
	case rec.HoldUnknown:
		return ReasonUnknown
	case exhausted:
		return ReasonExhausted
	}
	return ReasonLapsed
}
