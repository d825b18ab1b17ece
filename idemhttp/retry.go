package idemhttp

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultRetry reports whether a Transport tries again after a try that ended with this
// response or error. It does after any error, unless the server's certificate was refused
// or the server does not speak TLS. It does after 425, 429, 502, 503 and 504, and after 409
// if the operation is in flight: if there is a Retry-After header, the problem type of this
// package's middleware, or Stripe's error. It does not if the answer is a replay, which
// will not change.
//
// An error status with the header Stripe-Should-Retry or X-Should-Retry (OpenAI, Anthropic
// and others) is tried again if the header is "true", and is not if it is "false", whatever
// the status. Every 409 from Stripe is tried again, as Stripe's own libraries do.
// DefaultRetry looks at the first bytes of the body of a 409, and puts them back.
func DefaultRetry(resp *http.Response, err error) bool {
	if err != nil {
		var certificate *tls.CertificateVerificationError
		var notTLS tls.RecordHeaderError
		return !errors.As(err, &certificate) && !errors.As(err, &notTLS)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		for _, name := range [...]string{"Stripe-Should-Retry", "X-Should-Retry"} {
			switch resp.Header.Get(name) {
			case "true":
				return true
			case "false":
				return false
			}
		}
	}
	if resp.Header.Get(defaultReplayedHeader) == "true" {
		return false
	}
	switch resp.StatusCode {
	case http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict:
		return resp.Header.Get("Stripe-Version") != "" || inFlight(resp)
	}
	return false
}

// inFlight reports whether an answer says that the operation is in flight.
func inFlight(resp *http.Response) bool {
	if resp.StatusCode != http.StatusConflict {
		return false
	}
	if resp.Header.Get("Retry-After") != "" {
		return true
	}
	media, found := peekJSON(resp)
	if media == problemMedia {
		return found.Type == TypeInFlight
	}
	var stripe struct {
		Type string `json:"type"`
		Code string `json:"code"`
	}
	if err := json.Unmarshal(found.Error, &stripe); err != nil {
		return false
	}
	return stripe.Type == "idempotency_error" || stripe.Code == "idempotency_key_in_use" || stripe.Code == "lock_timeout"
}

const maxProblem = 8 << 10

// said is what a JSON answer says about itself: RFC 9457's type, Stripe's error.
type said struct {
	Type  string          `json:"type"`
	Error json.RawMessage `json:"error"` // of other services it may be a string
}

// peekJSON reads the start of a JSON answer, and leaves the whole body to be read. For any
// other answer it returns nothing.
func peekJSON(resp *http.Response) (media string, found said) {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != problemMedia && media != "application/json" || resp.Body == nil {
		return "", said{}
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failingReader{err}
	}
	resp.Body = readCloser{io.MultiReader(bytes.NewReader(start), rest), resp.Body}
	if err := json.Unmarshal(start, &found); err != nil {
		return "", said{}
	}
	return media, found
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// backoff returns the wait after so many tries: anything from zero to a bound that begins
// at first and doubles, up to most ("full jitter", M. Brooker, Exponential Backoff And
// Jitter, 2015).
func backoff(first, most time.Duration, tries int) time.Duration {
	bound := min(first, most)
	for range tries - 1 {
		if bound >= most/2 {
			bound = most
			break
		}
		bound *= 2
	}
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}

// retryAfter reads a Retry-After header (RFC 9110, section 10.2.3): seconds, or a date. A
// date counts from the server's own Date if the answer has one, because the clocks may
// differ. If there are several, because a proxy adds its own, the longest wait suits all
// who asked. ok is false if none can be read.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	for _, line := range h["Retry-After"] {
		if until, err := http.ParseTime(strings.TrimSpace(line)); err == nil {
			wait, ok = max(wait, until.Sub(now)), true
			continue
		}
		for text := range strings.SplitSeq(line, ",") {
			if asked, readable := seconds(strings.TrimSpace(text)); readable {
				wait, ok = max(wait, asked), true
			}
		}
	}
	return wait, ok
}

// seconds reads a number of seconds. A fraction, which the header may not have but some
// services send, is rounded up.
func seconds(text string) (wait time.Duration, ok bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 32)
	if err != nil {
		n = 1 << 31 // more than fits is as good as forever
	} else if strings.Trim(fraction, "0") != "" {
		n++
	}
	return time.Duration(n) * time.Second, true
}
