package idemhttp

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/idemkv/idem"
)

// Options configures the middleware. The zero value is good: each zero field means the
// default that its comment names.
type Options struct {
	// Methods are the methods whose requests the middleware handles; all others pass
	// through untouched. Default POST and PATCH. GET, HEAD, OPTIONS, TRACE and CONNECT
	// are not allowed.
	Methods []string
	// Header is the header field that brings the key. Default Idempotency-Key. Webhooks
	// send X-GitHub-Delivery, webhook-id and the like.
	Header string
	// Key finds the key in the request's body, query or form, instead of in Header: the
	// ID of a webhook's event in JSON, or a hidden field of a form. body is the whole
	// body. The function may read it until it returns, but not change or keep it. It may
	// also use r.Body and r.FormValue: the handler gets a body of its own.
	//
	// "" means no key, and RequireKey says what happens. If Key returns a Problem, that is
	// the answer. Any other error, and a key longer than MaxKey, is TypeKeyInvalid. The
	// body is read first, so MaxBody bounds requests without a key too. With Key, Header
	// and StrictKey must not be set.
	Key func(r *http.Request, body []byte) (string, error)
	// RequireKey: a request without a key gets TypeKeyMissing. Default: it passes
	// through, without any protection.
	RequireKey bool
	// StrictKey: the key must be a string in double quotes, as in the draft. Default:
	// text without quotes is a key too, which is what most clients send.
	StrictKey bool
	// IssuedAt finds when the client made key, with what its clock may be wrong by
	// subtracted (idem.Request.IssuedAt). key is the client's own, as it was sent. Where
	// nothing is stored under the key and the request is older than an answer is kept, or
	// than what the store has lost, it gets TypeTooLate and is not run: it may have been
	// done, and the answer is gone. KeyIssuedAt and HeaderIssuedAt are such functions.
	//
	// The zero time is "unknown". A Problem that IssuedAt returns is answered, any other
	// error is TypeKeyInvalid. Default: all are unknown, and a retry that comes after its
	// answer has expired is run again.
	IssuedAt func(r *http.Request, key string) (time.Time, error)
	// Fingerprint returns a digest of what tells one request from another under the same
	// key. body is the whole body. The function may read it until it returns, but not
	// change or keep it; r.Body has nothing left. If Fingerprint returns a Problem, that
	// is the answer. Any other error is TypeBodyUnreadable. Default RequestFingerprint;
	// see also JSONFingerprint.
	Fingerprint func(r *http.Request, body []byte) (idem.Fingerprint, error)
	// MaxBody bounds the body of a request with a key, in bytes, because it is held in
	// memory. Default 1 MiB.
	MaxBody int64
	// MaxResponse bounds the body of an answer that is stored, in bytes, because it is
	// held in memory until it is recorded. A longer one is sent as it is written, and a
	// retry gets TypeNotRetained. Default and maximum: the store's MaxResult, which bounds
	// body and header together.
	MaxResponse int
	// KeepHeader reports whether a field of an answer is stored, by its canonical name.
	// It is not asked about fields of one connection, those that Connection names,
	// Content-Length and Date, which are never stored. Default DefaultKeepHeader: all but
	// Set-Cookie.
	KeepHeader func(name string) bool
	// Outcome says what an answer with this status and header means for the operation, if
	// the handler has not said so itself (Operation.Retryable, Final, Unknown). It must
	// not change the header. Any value but the four outcomes counts as Unknown. Default
	// DefaultOutcome.
	//
	// It is not called if nobody wrote an answer, or if the handler wrote an error, 400 or
	// above, after its context had ended, because that may be the only reason for the
	// error. Both are Unknown.
	Outcome func(status int, header http.Header) Outcome
	// RetryUnknown: if nobody knows how an attempt ended, the next request runs the
	// handler again. That is so after a status that Outcome calls Unknown, a panic, a
	// crash of the process, or a lease that lapsed. Set it if the handler can be repeated:
	// its effects commit with the completion, or the services that it calls check
	// Operation.DownstreamKey. Default: the operation is held until someone settles it.
	RetryUnknown bool
	// Wait is how long a request waits for an earlier one with its key that is still
	// running, to get the same answer. With a few seconds, a double click gets one answer
	// and no conflict. After that, on the store's clock, and by default at once, it gets
	// TypeInFlight.
	Wait time.Duration
	// Lease is how long a claim outlives a process that died. It is extended while the
	// handler runs. Default: the store's.
	Lease time.Duration
	// MaxRun bounds one run of the handler, on the store's clock. When it is over, the
	// handler's context is cancelled with ErrMaxRun as its cause, and the lease is no
	// longer extended. Once the lease has ended, the operation is held; with RetryUnknown
	// the next request runs the handler, even if this one is still running. What the
	// handler answers late is recorded if the claim is still its own. Default: no bound,
	// so a handler that hangs keeps its key forever.
	MaxRun time.Duration
	// MaxAttempts is how often the handler is begun for one operation before requests
	// get TypeExhausted. Answers that are NotNow do not count. Default: the store's, which
	// is unlimited by default.
	MaxAttempts int
	// Retention is how long an answer replays. Default: the store's; idem.Forever is
	// allowed.
	Retention time.Duration
	// ReplayedHeader is the header field that marks a replay, with the value "true".
	// Default Idempotent-Replayed.
	ReplayedHeader string
	// CancelWithClient: the handler's context is cancelled when the client goes away, as
	// it is without the middleware. Handlers that stream until the client goes away need
	// that. Default: the context keeps deadlines set further out, but no other
	// cancellation. The client will probably ask again, and a handler that stopped
	// half-way leaves nothing to answer it with.
	CancelWithClient bool
	// WriteProblem writes p, one of the middleware's own answers, to w. Default
	// WriteProblem.
	WriteProblem func(w http.ResponseWriter, r *http.Request, p Problem)
	// OnError is called for what fails on the server's side: the store, a record, a
	// recording. err is a Problem. The call is made on the request's goroutine, before the
	// answer, each time such a problem is answered: for a held key, at every retry. Its
	// panics are caught and ignored. Default nil: only the client is told, and the store's
	// Observer if the store is at fault.
	OnError func(r *http.Request, err error)
	// OnResult is called once for each request with a key, for metrics and logs, whether
	// the request was run, replayed or refused. The call is made on the request's
	// goroutine, when the outcome has been recorded and before the answer is sent, or
	// before the last of it if the handler flushed. Its panics are caught and ignored.
	// Default nil.
	OnResult func(r *http.Request, res Result)
}

const (
	defaultHeader         = "Idempotency-Key"
	defaultReplayedHeader = "Idempotent-Replayed"
	defaultMaxBody        = 1 << 20
)

// withDefaults fills in what is zero and panics over what is out of range.
func (o Options) withDefaults(store idem.Options) Options {
	o.Methods = slices.Clone(o.Methods)
	if len(o.Methods) == 0 {
		o.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	for _, method := range o.Methods {
		switch method {
		case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
			refuse("Options.Methods has %s, which has nothing to protect; leave it out", method)
		}
		if method == "" || span(method, isTchar) != len(method) {
			refuse("Options.Methods has %q, which is not a method", method)
		}
	}
	if o.Key != nil && (o.Header != "" || o.StrictKey) {
		refuse("Options.Key finds the key; Header and StrictKey, which say how a header brings it, must not be set")
	}
	setDefault(&o.Header, defaultHeader)
	setDefault(&o.ReplayedHeader, defaultReplayedHeader)
	o.Header = fieldName("Header", o.Header)
	o.ReplayedHeader = fieldName("ReplayedHeader", o.ReplayedHeader)
	notNegative("MaxBody", o.MaxBody)
	notNegative("MaxResponse", o.MaxResponse)
	notNegative("Wait", o.Wait)
	if o.Lease != 0 && o.Lease < time.Millisecond { // the store would refuse every claim
		refuse("Options.Lease is %v; it must be at least 1ms, or 0 for the store's", o.Lease)
	}
	notNegative("MaxRun", o.MaxRun)
	notNegative("MaxAttempts", o.MaxAttempts)
	if int64(o.MaxAttempts) > math.MaxUint32 {
		refuse("Options.MaxAttempts is %d; at most %d are counted", o.MaxAttempts, uint32(math.MaxUint32))
	}
	notNegative("Retention", o.Retention)
	setDefault(&o.MaxBody, defaultMaxBody)
	setDefault(&o.MaxResponse, store.MaxResult)
	o.MaxResponse = min(o.MaxResponse, store.MaxResult)
	if o.KeepHeader == nil {
		o.KeepHeader = DefaultKeepHeader
	}
	if o.Outcome == nil {
		o.Outcome = DefaultOutcome
	}
	if o.WriteProblem == nil {
		o.WriteProblem = WriteProblem
	}
	return o
}

// refuse panics: a middleware with wrong options must not start to serve.
func refuse(format string, args ...any) {
	panic("idemhttp.New: " + fmt.Sprintf(format, args...))
}

func fieldName(option, name string) string {
	if span(name, isTchar) != len(name) {
		refuse("Options.%s is %q, which is not the name of a header field", option, name)
	}
	return http.CanonicalHeaderKey(name)
}

func notNegative[T int | int64 | time.Duration](option string, value T) {
	if value < 0 {
		refuse("Options.%s is %v; it cannot be negative", option, value)
	}
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}
