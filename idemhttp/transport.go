package idemhttp

import (
	"net/http"
	"time"

	"github.com/idemkv/idem"
)

// Transport is an http.RoundTripper that repeats a request until it has an answer, in a
// way that the server can recognize: a POST or PATCH without an Idempotency-Key gets a new
// one, which all its tries carry. The zero value is good, and one Transport serves any
// number of requests at once:
//
//	client := &http.Client{Transport: &idemhttp.Transport{}}
//
// # Warning: only for servers that honour keys
//
// A key makes a request safe to repeat only if the server honours it. A server that
// ignores Idempotency-Key and answers 504, 504, 200 has charged three times. If a client
// also talks to servers that do not honour keys, set HonoursKeys: where it returns false, a
// POST gets no key and is not repeated, unless no connection could be made for it.
//
//	transport := &idemhttp.Transport{HonoursKeys: func(r *http.Request) bool {
//		return r.URL.Host == "api.stripe.com"
//	}}
//
// # Keys
//
// A key that the caller has set is kept. Set one, with FormatKey, if the operation
// outlives the call: a request that is made anew, after a restart or from a queue, is the
// same operation only if it carries the same key. When the tries run out, [TransportError]
// has the key that was used. A key that is set but empty is an error that wraps
// idem.ErrInvalid, and nothing is sent. A header field without a value
// (r.Header["Idempotency-Key"] = nil) tells net/http that the request is idempotent on its
// own. The Transport then repeats it too, and sends it without a key.
//
// # Tries
//
// The Transport tries again after a connection that failed, and after the answers 425, 429,
// 502, 503, 504, and 409 if the operation is in flight (from this package's middleware,
// from Stripe, or with a Retry-After). It does not after anything else: a 422 or a 400
// would be the same the next time, and a 500 may be. Nor does it after a replay
// (Idempotent-Replayed: true), which is what the server will answer from now on. If a
// service itself says whether to try again (Stripe-Should-Retry, X-Should-Retry), that
// counts; see [DefaultRetry]. Between tries the Transport waits as long as Retry-After asks,
// or else for a random time, at first up to MinBackoff, then up to twice that, and so on
// (full jitter).
//
// Requests whose method is idempotent by RFC 9110, section 9.2.2 (GET, HEAD, OPTIONS,
// TRACE, PUT, DELETE), get no key and are tried again by the same rules. A request with any
// other method is sent once, unless the method is one of Methods or the caller has set a
// key. Even a request that may be sent only once is tried again if no connection could be
// made, which proves that nothing was sent.
//
// # Bodies
//
// A body is sent again from Request.GetBody, which http.NewRequest sets for buffers
// and strings. Without it, up to MaxBody bytes are read into memory before the first
// try. A longer body is sent once, and gets no new key, just as without the Transport. If
// the server's middleware refuses a body with a key because it is over its Options.MaxBody,
// the request is sent once more without the key.
//
// The answer to a request with a key is read into memory before it is returned, up to
// MaxAnswer bytes. If its connection is cut half-way, the Transport tries again. An answer
// of unknown length, because it comes in chunks or net/http decompresses it, is held back
// for no more than a second, or half the time that is left. Event streams and the like are
// not held back. With all other answers, and those to a request that is sent only once, it
// may be the caller who finds that they are cut. The key to try again with is in
// Response.Request.
//
// # Giving up
//
// If the wait before the next try would go past Timeout, the context's deadline
// (http.Client's Timeout sets one) or MaxRetryAfter, the last answer is returned at once,
// whatever its status.
//
// Each hop of a redirect is a request of its own. The request is not changed. Its context
// can end the tries, and the waits between them, at any moment. The body of an answer that
// is not returned is read, within bounds, and closed, to make its connection usable again.
type Transport struct {
	// Base makes each try. Default http.DefaultTransport.
	Base http.RoundTripper
	// Header is the name of the header field that carries the key. Default
	// Idempotency-Key.
	Header string
	// Methods are those whose requests get a key. Default POST and PATCH.
	Methods []string
	// HonoursKeys reports whether a request goes to a server that honours keys. If it does
	// not, a request gets no key, and one that has a key is sent with it but not repeated.
	// Requests that are safe without a key are repeated as always. The function must not
	// read the body. Default: every server does, so every request that carries a key is
	// repeated.
	HonoursKeys func(*http.Request) bool
	// NewKey returns the key for a request that has none. It must not read the body.
	// Default: 128 bits of crypto/rand in 22 characters of URL-safe base64.
	NewKey func(*http.Request) (string, error)
	// Bare sends new keys as they are, for services whose documentation shows them
	// like that (Stripe). Default: as a string in double quotes, which is the form
	// of the Idempotency-Key draft (see FormatKey).
	Bare bool
	// MaxTries bounds the tries of one request, including the first. A try whose answer
	// was that the operation is in flight does not count: Timeout and the context's
	// deadline bound those, and MaxTries only if neither is set. Default 8; 1 never tries
	// again.
	MaxTries int
	// Timeout bounds the time from the call to its return, over all tries and waits. That
	// includes reading a body that is kept, and the answer: its header, the rest if it is
	// kept, and as much as Retry reads. A wait that would not end in time is not begun.
	// Default 1 min; negative: only the context's deadline counts.
	Timeout time.Duration
	// TryTimeout bounds the time of each try in the same way. A try that it cuts short is
	// made again. Default: only Timeout.
	TryTimeout time.Duration
	// MinBackoff is the longest wait after the first try. Default 100 ms.
	MinBackoff time.Duration
	// MaxBackoff is the longest wait, except for those that Retry-After asks for. Default
	// 10 s.
	MaxBackoff time.Duration
	// MaxRetryAfter is the longest wait that Retry-After can ask for. An answer that asks
	// for more is returned at once, because coming back earlier would disobey it. Default
	// 30 s; negative: only a wait of zero.
	MaxRetryAfter time.Duration
	// MaxBody is how many bytes of a body without GetBody are kept in memory, to send them
	// again. A longer body is sent once, without a new key. Default 1 MiB; negative: none,
	// and every such body is streamed.
	MaxBody int64
	// MaxAnswer is how many bytes of an answer to a request with a key are kept in
	// memory before it is returned. Default 1 MiB; negative: none.
	MaxAnswer int64
	// Retry decides, in place of the rules above, whether to try again after a try that
	// ended with the response or the error. It may call DefaultRetry, and must leave the
	// response's body as it was. If the try's time ends while Retry looks at a response,
	// it is called again with that error. Default DefaultRetry.
	Retry func(*http.Response, error) bool
	// Observer is called with each try when it has ended, on the goroutine of the
	// request. Its panics are caught and ignored. Default nil.
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

// withDefaults returns t with every field set but Methods, TryTimeout and Observer.
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

// RoundTrip implements http.RoundTripper. When the tries or the time run out, it returns
// the last answer there was, whatever its status. All its errors are a [TransportError]. It
// wraps the last try's error; the context's, if that ended during a wait or before a try
// had an answer; NewKey's or FormatKey's, if there is no key; or idem.ErrInvalid, if the
// caller's key is empty or the request cannot be sent (no URL or host, or a header field
// that HTTP does not allow). A URL with a scheme other than http or https is tried once if
// Base is an http.Transport.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	e := &exchange{Transport: t.withDefaults(), request: r}
	_, e.start = e.Clock.Now()
	resp, err := e.run()
	if err != nil {
		return nil, &TransportError{Key: e.key, Tries: e.tries, Err: err}
	}
	return resp, nil
}

// CloseIdleConnections closes the idle connections of Base, if Base can do that.
// http.Client calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.withDefaults().Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
