package idemhttp

import (
	"fmt"
	"net/http"
)

// Outcome is what becomes of an operation whose handler has returned.
type Outcome uint8

const (
	// Stored: the operation is done. Its answer is stored, and replays to every retry
	// until the retention ends.
	Stored Outcome = iota + 1
	// NotNow: the request was turned away before anything was done. Nothing is stored and
	// the attempt does not count (idem.Store.Unclaim). The next request with the key runs
	// the handler.
	NotNow
	// Released: an attempt was made, and another may follow. The answer is not stored,
	// and the attempt counts (idem.Store.Release). The next request with the key runs
	// the handler again.
	Released
	// Unknown: nobody knows whether the operation was done. It is held
	// (idem.Store.Hold): retries get TypeOutcomeUnknown, and nothing runs again until
	// someone finds out and settles it. With Options.RetryUnknown, an Unknown that the
	// handler did not declare itself becomes Released.
	Unknown
)

var outcomeNames = [...]string{"none", "stored", "not_now", "released", "unknown"}

// String returns the outcome's name in snake case, fit for a metric label; "none" for
// zero.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// DefaultOutcome is the default of Options.Outcome. These answers are NotNow, because
// they say that the request was turned away and may come again:
//
//   - 401, 403, 407, 408, 412, 421, 423, 425 and 429,
//   - 503, and any other 4xx but 499, with Retry-After. That covers the problems with which
//     a middleware like this one, behind a proxy, asks for the same request again.
//
// 499 and all other statuses from 500 on are Unknown: a bare 503, a 500 or a 504 does not
// say how far the handler came. Everything else is Stored.
func DefaultOutcome(status int, header http.Header) Outcome {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusPreconditionFailed, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusTooEarly,
		http.StatusTooManyRequests:
		return NotNow
	case statusClientClosedRequest:
		return Unknown
	}
	again := header.Get("Retry-After") != ""
	switch {
	case status < 400:
		return Stored
	case again && (status < 500 || status == http.StatusServiceUnavailable):
		return NotNow
	case status < 500:
		return Stored
	}
	return Unknown
}

// statusClientClosedRequest is what nginx, and frameworks that copy it, answer when the
// client has gone.
const statusClientClosedRequest = 499
