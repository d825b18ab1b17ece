package idemhttp

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/idemkv/idem"
)

// MaxKey is the longest key that a request may bring, in bytes, without quotes and
// escapes. The shortest is one byte.
const MaxKey = 255

// GlobalScope is the scope of a service that has one tenant only, "*": its records are
// those of StoreKey("*", key). All clients share one space of keys, and a client that guesses another's key, and sends the same
// request, is shown its answer.
func GlobalScope(*http.Request) (string, error) { return "*", nil }

// StoreKey returns the key under which the store keeps the operation that a client
// of scope has named key: to find its record with [idem.Store.Get] or to remove it
// with Forget. It is idem.JoinKey("http", scope, key), so that no two pairs meet
// and the records of one scope share a prefix. Where that is longer than
// idem.MaxKey, which takes a scope of more than 250 bytes, scope and key are hashed:
// idem.JoinKey("http", "", "", h), h being the base64, URL-safe and unpadded, of
// idem.FingerprintOf(scope, key).
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
// string, whose parameters are checked and mean nothing, or, unless strict, the bare
// text that most clients send. If it is neither, wrong is why, as keyFaults has it.
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

// kinds is what the bytes of s are, any of them. There is no branch in its loop, which
// each request with a key goes through twice.
func kinds(s string) (all byte) {
	for i := range len(s) {
		all |= kindOf[s[i]]
	}
	return all
}

// What a byte of a key can be beside plain text.
const (
	// notBare: not visible ASCII, or it structures a field, so that a text with it
	// could be read in two ways.
	notBare byte = 1 << iota
	// escaped: idem.JoinKey writes it in another way.
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
