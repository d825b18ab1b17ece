package idemhttp

import (
	"net/http"
	"time"

	"github.com/idemkv/idem"
)

// Transport is an http.RoundTripper that makes a request again until it has an
// answer, and sees to it that the server can tell: a POST or PATCH without an
// Idempotency-Key gets a new one, which all its tries carry. The zero value is
// good, and one Transport serves any number of requests at once:
//
//	client := &http.Client{Transport: &idemhttp.Transport{}}
//
// # Warning: only for servers that honour keys
//
// A key makes a request safe to repeat only where the server honours it. A server that
// ignores Idempotency-Key and answers 504, 504, 200 has charged three times. If not all
// servers behind a client honour keys, set HonoursKeys: where it says no, a POST gets no
// key and is not repeated, unless no connection could be made for it.
//
//	transport := &idemhttp.Transport{HonoursKeys: func(r *http.Request) bool {
//		return r.URL.Host == "api.stripe.com"
//	}}
//
// # Keys
//
// A key that the caller has set is kept. Set one, with FormatKey, wherever the
// operation outlives the call: a request that is made anew, after a restart or from
// a queue, is the same operation only if it carries the same key. When the tries run
// out, [TransportError] tells the key that was used. A key that is set but empty is
// an error that wraps idem.ErrInvalid, and nothing is sent. A header field that is
// there without a value (r.Header["Idempotency-Key"] = nil) is how net/http is told
// that a request is idempotent by itself: it is tried again, and sent without a key.
//
// # Tries
//
// Tried again are connections that fail, and the answers 409 of an operation in
// flight (of this package's middleware, of Stripe, or with a Retry-After), 425, 429,
// 502, 503 and 504. Nothing else is: a 422 or a 400 would be the same the next time,
// and a 500 may be. Neither is a replay (Idempotent-Replayed: true), which is what the
// server will answer from now on. A service that says itself whether to try again
// (Stripe-Should-Retry, X-Should-Retry) is obeyed: see [DefaultRetry]. Between tries it
// waits at random for up to MinBackoff, twice that the next time and so on (full
// jitter), or for what Retry-After asks.
//
// Requests whose method is idempotent by RFC 9110, section 9.2.2 (GET, HEAD,
// OPTIONS, TRACE, PUT, DELETE), get no key and are tried again by the same rules.
// Any other method is sent once, unless it is one of Methods or the caller has set a
// key. A request that may be sent only once is tried again if no connection could be
// made, which proves that nothing was sent.
//
// # Bodies
//
// A body is sent again from Request.GetBody, which http.NewRequest sets for buffers
// and strings. Without it, up to MaxBody bytes are read into memory before the first
// try. A longer body is sent once, as it is, and gets no new key: it passes as it does
// without the Transport. One that the server's middleware does not take with a key,
// because it is over Options.MaxBody there, is sent once more without.
//
// The answer to a request with a key is read into memory before it is returned, up to
// MaxAnswer bytes, so one whose connection is cut half-way is asked for again. If its
// length is not known, because it comes in chunks or net/http unpacks it, it is kept
// back for no more than a second, or half the time that is left, and event streams and
// the like are not. Of any other answer, and of a request that is sent only once, the
// caller may be the one who finds it cut: the key to ask again with is in
// Response.Request.
//
// # Ends
//
// What cannot be waited for is returned at once: the last answer, whatever its status,
// if the wait after it would go past Timeout, the context's deadline (http.Client's
// Timeout sets one) or MaxRetryAfter.
//
// Each hop of a redirect is a request of its own. The request is not changed. Its
// context ends the tries, and the waits between them, at any moment. The body of an
// answer that is not returned is read, within bounds, and closed, so that its connection
// can be used again.
type Transport struct {
	// Base makes each try. Default http.DefaultTransport.
	Base http.RoundTripper
	// Header is the name of the header field that carries the key. Default
	// Idempotency-Key.
	Header string
	// Methods are those whose requests get a key. Default POST and PATCH.
	Methods []string
	// HonoursKeys tells which requests go to servers that honour keys; where it is false,
	// a request gets no key, and one that has a key is sent with it but not repeated.
	// What is safe without a key is repeated as ever. It does not read the body.
	// Default: all of them, so every request that carries a key is repeated.
	HonoursKeys func(*http.Request) bool
	// NewKey returns the key for a request that has none; it does not read the body.
	// Default: 128 bits of crypto/rand in 22 characters of URL-safe base64.
	NewKey func(*http.Request) (string, error)
	// Bare sends new keys as they are, for services whose documentation shows them
	// like that (Stripe). Default: as a string in double quotes, which is the form
	// of the Idempotency-Key draft (see FormatKey).
	Bare bool
	// MaxTries bounds the tries of one request, the first included. Those that were
	// told that the operation is in flight do not count: Timeout and the context's
	// deadline bound them, and MaxTries only if neither is set. Default 8; 1 never tries
	// again.
	MaxTries int
	// Timeout bounds the time from the call to its return, over all tries and waits:
	// from reading a body that is to be kept, to the header of the answer, to its end if
	// it is kept, and to as much of it as Retry reads. A wait that would not end before
	// it is not begun. Default 1 min; negative: no bound but the context's.
	Timeout time.Duration
	// TryTimeout bounds the time of each try in the same way; one cut short by it is
	// made again. Default: no bound but Timeout.
	TryTimeout time.Duration
	// MinBackoff is the longest wait after the first try. Default 100 ms.
	MinBackoff time.Duration
	// MaxBackoff is the longest wait of all but those that Retry-After asks for.
	// Default 10 s.
	MaxBackoff time.Duration
	// MaxRetryAfter is the longest wait that Retry-After can ask for. An answer that asks
	// for more is returned at once: coming back earlier would disobey it. Default 30 s;
	// negative: none but zero.
	MaxRetryAfter time.Duration
	// MaxBody is how many bytes of a body without GetBody are kept in memory so that
	// they can be sent again. A longer one is sent once, without a new key. Default 1 MiB;
	// negative: none, and each is streamed from the first byte on.
	MaxBody int64
	// MaxAnswer is how many bytes of an answer to a request with a key are kept in
	// memory before it is returned. Default 1 MiB; negative: none.
	MaxAnswer int64
	// Retry decides, in place of the rules above, whether a try that ended with the
	// response or the error is worth another. It may call DefaultRetry, and leaves the
	// response's body as it is. If the try's time ends while it looks at a response,
	// it is asked again, about that. Default DefaultRetry.
	Retry func(*http.Response, error) bool
	// Observer is told of each try when it has ended, on the goroutine of the
	// request. A panic of it is caught and ignored. Default nil.
	Observer func(Try)
	// Clock tells the time. Default idem.SystemClock().
	Clock idem.Clock
}

const (
	defaultMaxTries      = 8
	defaultTimeout       = time.Minute
	defaultMinBackoff    = 100 * time.Millisecond
	defaultMaxBackoff    = 10 * time.Second
	defaultMaxRetryAfter = 30 * time.Second
	defaultResendable    = 1 << 20
	defaultMaxAnswer     = 1 << 20
)

// withDefaults is t with every field set but Methods, TryTimeout and Observer.
func (t *Transport) withDefaults() Transport {
	o := *t
	setDefault(&o.Base, http.DefaultTransport)
	setDefault(&o.Header, defaultHeader)
	o.Header = http.CanonicalHeaderKey(o.Header)
	setDefault(&o.MaxTries, defaultMaxTries)
	setDefault(&o.Timeout, defaultTimeout)
	setDefault(&o.MinBackoff, defaultMinBackoff)
	setDefault(&o.MaxBackoff, defaultMaxBackoff)
	setDefault(&o.MaxRetryAfter, defaultMaxRetryAfter)
	setDefault(&o.MaxBody, defaultResendable)
	setDefault(&o.MaxAnswer, defaultMaxAnswer)
	setDefault(&o.Clock, idem.SystemClock())
	if o.NewKey == nil {
		o.NewKey = randomKey
	}
	if o.Retry == nil {
		o.Retry = DefaultRetry
	}
	return o
}

// RoundTrip implements http.RoundTripper. When the tries or the time run out it
// returns the last answer there was, whatever its status, or a [TransportError]
// around the last error. A [TransportError] around the context's error is returned
// when that ends in a wait or before a try has an answer, one around NewKey's or FormatKey's when there is no key, and
// one around idem.ErrInvalid when the caller's key is empty, or the request one that
// cannot be sent: without URL or host, or with a header field that HTTP cannot have. A
// URL of another scheme than http and https is tried once if Base is an http.Transport.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	e := &exchange{Transport: t.withDefaults(), request: r}
	_, e.start = e.Clock.Now()
	resp, err := e.run()
	if err != nil {
		return nil, &TransportError{Key: e.key, Tries: e.tries, Err: err}
	}
	return resp, nil
}

// CloseIdleConnections closes those of Base, if it can: http.Client calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.withDefaults().Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
