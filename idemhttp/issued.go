package idemhttp

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/idemkv/idem"
)

// KeyIssuedAt is for Options.IssuedAt where clients make keys that are UUIDv7s or ULIDs,
// which have the time in them. The time of any other key is unknown. doubt is what the
// clocks of clients may be ahead of the server's by: the time is that much earlier.
func KeyIssuedAt(doubt time.Duration) func(*http.Request, string) (time.Time, error) {
	return func(_ *http.Request, key string) (time.Time, error) {
		issued, ok := idem.KeyTime(key)
		if !ok {
			return time.Time{}, nil
		}
		return issued.Add(-doubt), nil
	}
}

// HeaderIssuedAt is for Options.IssuedAt where clients say in the header name when they
// made the key. A retry has to send the time of the first request again, which Date and
// the time stamps of most webhooks do not. Without the header the time is unknown.
//
// It reads seconds of Unix time, as a plain number or with "@" in front (RFC 9651), RFC
// 3339, and what Date looks like. doubt is as in KeyIssuedAt.
func HeaderIssuedAt(name string, doubt time.Duration) func(*http.Request, string) (time.Time, error) {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request, _ string) (time.Time, error) {
		lines := r.Header[name]
		if len(lines) == 0 {
			return time.Time{}, nil
		}
		issued, ok := parseTime(strings.TrimSpace(lines[0]))
		if len(lines) > 1 || !ok {
			return time.Time{}, errIssuedAt
		}
		return issued.Add(-doubt), nil
	}
}

var errIssuedAt = errors.New("idemhttp: the header that says when the key was made is there twice, or is no time")

// maxSeconds is the year 10000. What is beyond counts something else, such as milliseconds.
const maxSeconds = 253402300800

func parseTime(text string) (time.Time, bool) {
	if seconds, err := strconv.ParseInt(strings.TrimPrefix(text, "@"), 10, 64); err == nil {
		return time.Unix(seconds, 0), seconds > 0 && seconds < maxSeconds
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, true
	}
	t, err := http.ParseTime(text)
	return t, err == nil
}
