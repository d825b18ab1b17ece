package idemhttp

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/idemkv/idem"
)

// Options configures the middleware. The zero value is good; zero fields mean the
// default named at each.
type Options struct {
	// Methods are the methods whose requests are looked at; all others pass through
	// untouched. Default POST and PATCH. GET, HEAD, OPTIONS, TRACE and CONNECT cannot
	// be among them.
	Methods []string
	// Header is the field that brings the key. Default Idempotency-Key. Webhooks send
	// X-GitHub-Delivery, webhook-id and the like.
	Header string
	// Key finds the key of a request in place of Header: in its body, query or form. A
	// webhook has the id of its event in JSON, a page's form a hidden field. body is the
	// whole body; it may be read until the function returns, and not be changed or kept.
	// r.Body and r.FormValue may be used too: the handler gets a body of its own.
	//
	// "" is no key: what RequireKey says happens. A Problem that Key returns is answered,
	// any other error, and a key longer than MaxKey, is TypeKeyInvalid. The body is read
	// first, so MaxBody bounds requests without a key too. Header and StrictKey cannot be
	// set as well.
	Key func(r *http.Request, body []byte) (string, error)
	// RequireKey: a request without a key gets TypeKeyMissing. Default: it passes
	// through, without any protection.
	RequireKey bool
	// StrictKey: the key must be a string in double quotes, as the draft says.
	// Default: text without quotes is a key too, which is what most clients send.
	StrictKey bool
	// Fingerprint digests what tells one request from another under the same key.
	// body is the whole body; it may be read until the function returns, and not be
	// changed or kept; r.Body has nothing left. A Problem that it returns is answered,
	// any other error is TypeBodyUnreadable. Default RequestFingerprint; see also
	// JSONFingerprint.
	Fingerprint func(r *http.Request, body []byte) (idem.Fingerprint, error)
	// MaxBody bounds the body of a request with a key, in bytes: it is held in memory.
	// Default 1 MiB.
	MaxBody int64
	// MaxResponse bounds the body of an answer that is stored, in bytes: it is held in
	// memory until it is recorded. A longer one is sent as it is written, and a retry
	// gets TypeNotRetained. Default, and most: the store's MaxResult, which bounds body
	// and header together.
	MaxResponse int
	// KeepHeader tells which fields of an answer are stored, by canonical name.
	// Fields of one connection, those that Connection names, Content-Length and Date
	// are never stored and not asked for. Default DefaultKeepHeader: all but
	// Set-Cookie.
	KeepHeader func(name string) bool
	// Outcome tells what an answer with this status and header means for the operation,
	// where the handler has not said (Operation.Retryable, Final, Unknown). It must not
	// change the header. What it returns besides the four outcomes counts as Unknown.
	// Default DefaultOutcome.
	//
	// It is not asked where nobody wrote an answer, or where the handler wrote an error,
	// 400 or above, when its context had ended: the error may tell of nothing but that.
	// These are Unknown.
	Outcome func(status int, header http.Header) Outcome
	// RetryUnknown: an attempt of which nobody knows how it ended is run again by the
	// next request: after a status that Outcome calls Unknown, a panic, a crash of the
	// process, or a lease that lapsed. Right where the handler can be repeated: its
	// effects commit together, or services further down check
	// Operation.DownstreamKey. Default: it is held, and not run again until somebody
	// has settled it.
	RetryUnknown bool
	// Wait is how long a request waits for the first one with its key, to be answered
	// as that one is: with a few seconds, a double click is shown one answer and no
	// conflict. When it is over, on the store's clock, and by default at once, it gets
	// TypeInFlight.
	Wait time.Duration
	// Lease is how long an attempt holds its claim without a sign of life. Default:
	// the store's.
	Lease time.Duration
	// MaxRun bounds one run of the handler, on the store's clock. At its end the
	// handler's context is cancelled with ErrMaxRun as its cause, and the lease is no
	// longer extended. The key is not released while the handler runs: when the lease
	// ends it is held, or with RetryUnknown free for the next request. What the handler
	// answers after that is recorded if the claim is still its own. Default: without
	// bound, so a handler that hangs keeps its key for ever.
	MaxRun time.Duration
	// MaxAttempts is how often the handler is begun for one operation before requests
	// get TypeExhausted. Answers that are NotNow are no attempts. Default: the store's,
	// which is without limit by default.
	MaxAttempts int
	// Retention is how long an answer replays. Default: the store's; idem.Forever is
	// allowed.
	Retention time.Duration
	// ReplayedHeader is the field, of value "true", that marks a replay. Default
	// Idempotent-Replayed.
	ReplayedHeader string
	// CancelWithClient: the handler's context is cancelled when the client goes away,
	// as it is without the middleware. Default: it is not; it keeps the deadline that
	// middleware further out has set, and no other cancellation. A handler that stops
	// half-way for a client that is about to ask again leaves nothing to answer it
	// with. Handlers that stream until the client goes away need it.
	CancelWithClient bool
	// WriteProblem answers w with p, which the middleware answers by itself. Default
	// WriteProblem.
	WriteProblem func(w http.ResponseWriter, r *http.Request, p Problem)
	// OnError is told of what fails on the side of the server: the store, a record, a
	// recording. err is a Problem. It is called on the request's goroutine, before the
	// answer, each time that such a problem is answered: for a key that is held, at every
	// repetition. A panic of it is caught and ignored. Default nil: nobody is told but the
	// client, and the store's Observer of what concerns the store.
	OnError func(r *http.Request, err error)
	// OnResult is told once of each request with a key what came of it, be it run,
	// replayed or refused: for metrics and logs. It is called on the request's goroutine,
	// when the outcome has been recorded and before the answer is sent, or the last of it
	// where the handler flushed. A panic of it is caught and ignored. Default nil.
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

// refuse panics: a middleware that is put together wrongly must not start to serve.
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
