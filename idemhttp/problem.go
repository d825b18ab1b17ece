package idemhttp

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

const problemMedia = "application/problem+json"

const docs = "https://github.com/idemkv/idem/blob/main/docs/HTTP.md#"

// The types of the problems that the middleware answers with (RFC 9457). They are
// stable, and lead to what each means. None of these answers is ever stored. The handler
// was not run for the request that is answered so, but for TypeNotRecorded and
// TypeNotDone, and where it
// wrote no answer or had settled its operation: TypeOutcomeUnknown, TypeFailed and
// TypeUnreadable.
const (
	// TypeKeyMissing (400): there is no key, and Options.RequireKey wants one.
	TypeKeyMissing = docs + "key-missing"
	// TypeKeyInvalid (400): the header is there twice, malformed, empty or too long, or
	// Options.Key returned an error.
	// Reasons: repeated, empty, quotes, parameters, unquoted, characters, length.
	TypeKeyInvalid = docs + "key-invalid"
	// TypeScopeMissing (403): the scope function returned "".
	TypeScopeMissing = docs + "scope-missing"
	// TypeBodyTooLarge (413): the body is over Options.MaxBody.
	TypeBodyTooLarge = docs + "body-too-large"
	// TypeBodyUnreadable (400, 408): reading or fingerprinting the body failed. Reasons:
	// timeout (the 408), cut, read, fingerprint.
	TypeBodyUnreadable = docs + "body-unreadable"
	// TypeNotJSON (400, 415): JSONFingerprint met a body that is not JSON. Reasons:
	// json (the 400, whose detail says where), media-type (the 415).
	TypeNotJSON = docs + "not-json"
	// TypeInFlight (409, with Retry-After): the first request with the key is being
	// worked on.
	TypeInFlight = docs + "in-flight"
	// TypeMismatch (422): the key is in use by a different request.
	TypeMismatch = docs + "mismatch"
	// TypeOutcomeUnknown (500): an attempt ended, and whether it did its work is not
	// known. It is not run again until somebody has settled it.
	TypeOutcomeUnknown = docs + "outcome-unknown"
	// TypeNotRetained (500): the operation is done, and its answer was one that
	// cannot be replayed.
	TypeNotRetained = docs + "not-retained"
	// TypeFailed (500): an operator, or the handler, has recorded that the operation
	// failed for good.
	TypeFailed = docs + "failed"
	// TypeExhausted (500): MaxAttempts are used up.
	TypeExhausted = docs + "exhausted"
	// TypeUnreadable (500): the record of the key is damaged, or newer than this
	// library.
	TypeUnreadable = docs + "unreadable"
	// TypeMisconfigured (500): the middleware stands in the wrong place.
	TypeMisconfigured = docs + "misconfigured"
	// TypeUnavailable (503, with Retry-After): what a request with a key needs is down.
	// Reasons: store (it is closed, broken or shut down, or did not answer in time),
	// scope (the scope function returned an error).
	TypeUnavailable = docs + "unavailable"
	// TypeFull (503, with Retry-After): the store has no room for another key.
	TypeFull = docs + "full"
	// TypeNotRecorded (503, with Retry-After): the handler has run, and how it ended
	// could not be recorded.
	TypeNotRecorded = docs + "not-recorded"
	// TypeNotDone (503, with Retry-After): the handler has ended without an answer, and
	// the operation may be run again: it said so, or Options.RetryUnknown does.
	TypeNotDone = docs + "not-done"
)

var titles = map[string]string{
	TypeKeyMissing:     "Idempotency key is missing",
	TypeKeyInvalid:     "Idempotency key is invalid",
	TypeScopeMissing:   "The client is not known",
	TypeBodyTooLarge:   "Request body is too large",
	TypeBodyUnreadable: "Request body cannot be read",
	TypeNotJSON:        "Request body cannot be read as JSON",
	TypeInFlight:       "A request with this key is being processed",
	TypeMismatch:       "Idempotency key is used by a different request",
	TypeOutcomeUnknown: "Outcome of this operation is unknown",
	TypeNotRetained:    "Operation is done, its response was not retained",
	TypeFailed:         "Operation has failed for good",
	TypeExhausted:      "Operation has used up its attempts",
	TypeUnreadable:     "Record of this key cannot be read",
	TypeMisconfigured:  "Server is misconfigured",
	TypeUnavailable:    "Idempotency is not available",
	TypeFull:           "Idempotency store is full",
	TypeNotRecorded:    "Outcome could not be recorded",
	TypeNotDone:        "Operation was not done",
}

// Problem is an answer that the middleware gives by itself, as RFC 9457 has it. It is
// also an error: a scope or fingerprint function that returns one has it answered. As
// JSON it is the body of the answer: a client reads it with encoding/json.
type Problem struct {
	// Type is a URI that names the kind of problem: one of the Type constants, or the
	// function's own; empty is "about:blank".
	Type string `json:"type"`
	// Title is Type in words.
	Title string `json:"title,omitempty"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail says what to do about it. It never holds a key.
	Detail string `json:"detail,omitempty"`
	// Reason tells programs apart what one Type has several cases of, in a word that
	// does not change; empty if there is nothing to tell apart.
	Reason string `json:"reason,omitempty"`
	// KeyHash stands for the key (Store.KeyHash of the StoreKey), as in what the store's
	// Observer hears; empty if none is known. It is for logs and is not sent.
	KeyHash string `json:"-"`
	// RetryAfter is sent in whole seconds, rounded up, if it is not zero. It is in the
	// header Retry-After, not in the JSON.
	RetryAfter time.Duration `json:"-"`
	// Err is the cause; nil if the request is at fault. It is for logs and is not sent.
	Err error `json:"-"`
}

// Error returns the title and the cause.
func (p Problem) Error() string {
	text := "idemhttp: " + p.Title
	if p.KeyHash != "" {
		text += ", key " + p.KeyHash
	}
	if p.Err != nil {
		text += ": " + p.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (p Problem) Unwrap() error { return p.Err }

// WriteProblem is the default of Options.WriteProblem: p as application/problem+json,
// with Cache-Control: no-store, and Retry-After if p has it.
func WriteProblem(w http.ResponseWriter, _ *http.Request, p Problem) {
	b, _ := json.Marshal(p) // strings and a number: cannot fail
	h := w.Header()
	h.Set("Content-Type", problemMedia)
	h.Set("Cache-Control", "no-store")
	if encoded(h) {
		h.Del("Content-Length")
	} else {
		h.Set("Content-Length", strconv.Itoa(len(b)))
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter-1)/time.Second)+1, 10))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(b) // a client that is gone asks again
}

// problem makes a Problem of one of our own types.
func problem(kind string, status int, detail string) Problem {
	return Problem{Type: kind, Title: titles[kind], Status: status, Detail: detail}
}

// reason gives a problem its reason.
func reason(word string, p Problem) Problem {
	p.Reason = word
	return p
}

func bodyTooLarge(limit int64) Problem {
	return problem(TypeBodyTooLarge, http.StatusRequestEntityTooLarge,
		"With an idempotency key the body may have "+strconv.FormatInt(limit, 10)+" bytes.")
}
