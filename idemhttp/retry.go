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

// DefaultRetry reports whether a Transport makes a try again that ended so: with any
// error but one of the server's certificate; with 425, 429, 502, 503 or 504; or with
// 409 if the operation is in flight, which a Retry-After header or the problem type
// of this package's middleware tells. Not if the answer is a replay, which will not
// change. Of the body of a 409 it looks at the first bytes and puts them back.
func DefaultRetry(resp *http.Response, err error) bool {
	if err != nil {
		var certificate *tls.CertificateVerificationError
		var notTLS tls.RecordHeaderError
		return !errors.As(err, &certificate) && !errors.As(err, &notTLS)
	}
	if resp.Header.Get(defaultReplayedHeader) == "true" {
		return false
	}
	switch resp.StatusCode {
	case http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict:
		return resp.Header.Get("Retry-After") != "" || problemType(resp) == TypeInFlight
	}
	return false
}

const maxProblem = 8 << 10

// problemType returns the type of an RFC 9457 problem, "" if the answer is none, and
// leaves its body to be read from the start.
func problemType(resp *http.Response) string {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != "application/problem+json" {
		return ""
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failingReader{err}
	}
	resp.Body = readCloser{io.MultiReader(bytes.NewReader(start), rest), resp.Body}
	var problem struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(start, &problem); err != nil {
		return ""
	}
	return problem.Type
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// backoff is the wait after so many tries: anything from zero to a bound that begins
// at first and doubles, up to most ("full jitter", M. Brooker, Exponential Backoff
// And Jitter, 2015).
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

// retryAfter reads a Retry-After header (RFC 9110, section 10.2.3): seconds, or a
// date, which counts from the server's own Date if the answer has one, because the
// clocks may differ. ok is false if there is none that can be read.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			seconds = 1 << 31 // more than fits is as good as for ever
		}
		return time.Duration(seconds) * time.Second, true
	}
	until, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(until.Sub(now), 0), true
}
