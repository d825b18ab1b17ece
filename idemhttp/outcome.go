package idemhttp

import (
	"fmt"
	"net/http"
)

// Outcome is what becomes of an operation whose handler has answered.
type Outcome uint8

const (
	// Stored: the operation is done. Its answer is stored and replayed to every
	// retry for the retention.
	Stored Outcome = iota + 1
	// Released: nothing happened that a retry could repeat. The answer is not
	// stored, and the next request with the key runs the handler again. By the status
	// it means "not now", and no attempt is counted (idem.Store.Unclaim). By the
	// handler's word, Operation.Retryable, the attempt counts (idem.Store.Release).
	Released
	// Unknown: whether it happened is not known. The operation is held
	// (idem.Store.Hold): retries get TypeOutcomeUnknown, and nothing runs again,
	// until somebody who knows settles it. With Options.RetryUnknown it is released.
	Unknown

	// notNow is Released by the status.
	notNow
)

var outcomeNames = [...]string{"none", "stored", "released", "unknown"}

// String returns the outcome's name in lower case, "none" for zero.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// DefaultOutcome is the default of Options.Outcome. Released are the statuses which
// say that the request was turned away and may come again: 401, 403, 408, 425, 429
// and 503. All other statuses below 500 are Stored, and all others from 500 on are
// Unknown: who answers 500 or 504 seldom knows how far it came.
func DefaultOutcome(status int) Outcome {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout,
		http.StatusTooEarly, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return Released
	}
	if status >= 500 {
		return Unknown
	}
	return Stored
}
