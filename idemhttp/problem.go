package idemhttp

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

const problemMedia = "application/problem+json"

const docs = "https://github.com/idemkv/idem/blob/main/docs/HTTP.md#"

// The types of the problems that the middleware answers with (RFC 9457). They are stable
// links to what each means. None of these answers is ever stored. With most of them, the
// handler did not run for this request. It did with TypeNotRecorded and TypeNotDone. With
// TypeOutcomeUnknown, TypeFailed and TypeUnreadable it may have run, and written no answer
// or settled its operation itself.
const (
	// TypeKeyMissing (400): there is no key, and Options.RequireKey wants one.
	TypeKeyMissing = docs + "key-missing"
	// TypeKeyInvalid (400): the header is repeated, malformed, empty or too long, or
	// Options.Key or Options.IssuedAt returned an error.
	// Reasons: repeated, empty, quotes, parameters, unquoted, characters, length,
	// issued-at.
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
	// TypeInFlight (409, with Retry-After): an earlier request with the key is still
	// running.
	TypeInFlight = docs + "in-flight"
	// TypeMismatch (422): the key is in use by a different request.
	TypeMismatch = docs + "mismatch"
	// TypeTooLate (409): by Options.IssuedAt the request is so old that its answer may have
	// been forgotten. It was not run. Asking again changes nothing.
	TypeTooLate = docs + "too-late"
	// TypeOutcomeUnknown (500): an attempt ended, and nobody knows whether it did its
	// work. The operation does not run again until someone has settled it.
	TypeOutcomeUnknown = docs + "outcome-unknown"
	// TypeNotRetained (500): the operation is done, but its answer cannot be replayed.
	TypeNotRetained = docs + "not-retained"
	// TypeFailed (500): an operator, or the handler, has recorded that the operation
	// failed for good.
	TypeFailed = docs + "failed"
	// TypeExhausted (500): MaxAttempts are used up.
	TypeExhausted = docs + "exhausted"
	// TypeUnreadable (500): the record of the key is damaged, or newer than this
	// library.
	TypeUnreadable = docs + "unreadable"
	// TypeMisconfigured (500): the middleware is in the wrong place.
	TypeMisconfigured = docs + "misconfigured"
	// TypeUnavailable (503, with Retry-After): what a request with a key needs is down.
	// Reasons: store (it is closed, broken or shut down, or did not answer in time),
	// scope (the scope function returned an error).
	TypeUnavailable = docs + "unavailable"
	// TypeFull (503, with Retry-After): the store has no room for another key.
	TypeFull = docs + "full"
	// TypeNotRecorded (503, with Retry-After): the handler has run, but how it ended
	// could not be recorded.
	TypeNotRecorded = docs + "not-recorded"
	// TypeNotDone (503, with Retry-After): the handler has ended without an answer, and
	// the operation may run again, because the handler or Options.RetryUnknown says so.
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
	TypeTooLate:        "The request is too old",
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

// Problem is one of the middleware's own answers, in the form of RFC 9457. It is also an
// error: if a scope, key or fingerprint function returns a Problem, that is the answer. As
// JSON it is the body of the answer, so a client reads it with encoding/json.
type Problem struct {
	// Type is a URI that names the kind of problem: one of the Type constants, or one of
	// your own; empty means "about:blank".
	Type string `json:"type"`
	// Title is Type in words.
	Title string `json:"title,omitempty"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail says what to do about it. It never contains a key.
	Detail string `json:"detail,omitempty"`
	// Reason tells programs which case of Type this is, in a word that never changes;
	// empty if Type has only one.
	Reason string `json:"reason,omitempty"`
	// KeyHash stands for the key (Store.KeyHash of the StoreKey), as in the events of the
	// store; empty if no key is known. It is for logs and is not sent.
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

// WriteProblem is the default of Options.WriteProblem. It writes p as
// application/problem+json, with Cache-Control: no-store, and Retry-After if p has one.
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
	_, _ = w.Write(b) // a client that has gone asks again
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
