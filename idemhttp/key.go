package idemhttp

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/idemkv/idem"
)

// MaxKey is the length of the longest key that a request may bring, in bytes, without
// quotes and escapes. The shortest key is one byte.
const MaxKey = 255

// GlobalScope is the scope function of a service with only one tenant. It returns "*", so
// a record's key is StoreKey("*", key). All clients share one space of keys: a client that
// guesses another's key and sends the same request gets the other's answer.
func GlobalScope(*http.Request) (string, error) { return "*", nil }

// StoreKey returns the key under which the store keeps the operation that a client of
// scope has named key. Use it with [idem.Store.Get] and Forget. It is
// idem.JoinKey("http", scope, key): no two pairs give the same key, and the records of one
// scope share a prefix. If that would be longer than idem.MaxKey, which takes a scope of
// more than 250 bytes, scope and key are hashed. The result is then
// idem.JoinKey("http", "", "", h), where h is idem.FingerprintOf(scope, key) in unpadded,
// URL-safe base64.
func StoreKey(scope, key string) string {
	if plain(scope) && plain(key) {
		if n := len(storePrefix) + len(scope) + 1 + len(key); n <= idem.MaxKey {
			var b strings.Builder
			b.Grow(n)
			b.WriteString(storePrefix)
			b.WriteString(scope)
			b.WriteByte('/')
			b.WriteString(key)
			return b.String()
		}
	} else if joined := idem.JoinKey("http", scope, key); len(joined) <= idem.MaxKey {
		return joined
	}
	f := idem.FingerprintOf([]byte(scope), []byte(key))
	return idem.JoinKey("http", "", "", base64.RawURLEncoding.EncodeToString(f[:]))
}

const storePrefix = "http/"

// plain reports whether idem.JoinKey writes part as it is.
func plain(part string) bool { return part != "" && kinds(part)&escaped == 0 }

// parseKey reads the key from the lines of its header field. The key is an RFC 9651
// string, whose parameters are checked and ignored, or, unless strict, the bare text that
// most clients send. If it is neither, wrong says why, with a key of keyFaults.
func parseKey(lines []string, strict bool) (key, wrong string) {
	if len(lines) != 1 {
		return "", "repeated"
	}
	s := lines[0]
	if s != "" && (s[0] == ' ' || s[len(s)-1] == ' ') {
		s = strings.Trim(s, " ")
	}
	switch {
	case s == "":
		return "", "empty"
	case s[0] == '"':
		var rest string
		var ok bool
		if key, rest, ok = sfString(s); !ok {
			return "", "quotes"
		}
		if !sfParameters(rest) {
			return "", "parameters"
		}
		if key == "" {
			return "", "empty"
		}
	case strict:
		return "", "unquoted"
	case !bare(s):
		return "", "characters"
	default:
		key = s
	}
	if len(key) > MaxKey {
		return "", "length"
	}
	return key, ""
}

// keyFaults are the reasons of TypeKeyInvalid, and their details.
var keyFaults = map[string]string{
	"repeated":   "The header is there more than once.",
	"empty":      "The key is empty.",
	"quotes":     "The quoted string is not ended, or has a byte or an escape that is not allowed in it.",
	"parameters": "What follows the quoted string is not a parameter of it. A list of keys is not allowed.",
	"unquoted":   "The key must be a string in double quotes (RFC 9651).",
	"characters": "A key without quotes may have visible ASCII characters only, and none of \" , ; ( ) \\.",
	"length":     "The key is longer than 255 bytes.",
}

// bare reports whether s can be a key without quotes.
func bare(s string) bool { return kinds(s)&notBare == 0 }

// kinds returns the kinds of all bytes of s together. Its loop has no branch, because each
// request with a key goes through it twice.
func kinds(s string) (all byte) {
	for i := range len(s) {
		all |= kindOf[s[i]]
	}
	return all
}

// What a byte of a key can be, besides plain text.
const (
	// notBare: not visible ASCII, or a delimiter, which would let the text be read in two
	// ways.
	notBare byte = 1 << iota
	// escaped: idem.JoinKey escapes it.
	escaped
)

var kindOf = func() (kind [256]byte) {
	for c := range kind {
		if c <= ' ' || c > '~' || strings.IndexByte(`",;()\`, byte(c)) >= 0 {
			kind[c] = notBare
		}
	}
	kind['/'], kind['%'] = escaped, escaped
	return kind
}()
