package idem

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/jcs"
)

// MaxKey is the longest key, in bytes. The shortest is one byte; any bytes will do.
const MaxKey = 1024

// Fingerprint is a 32-byte digest of what was asked. It tells a retry from a
// different request under the same key. The zero Fingerprint agrees with any.
type Fingerprint = engine.Fingerprint

// FingerprintOf returns the SHA-256 of the parts, each preceded by its length as
// eight bytes, big endian, so that no two lists of parts run into each other.
// The recipe is frozen with the on-disk format.
func FingerprintOf(parts ...[]byte) Fingerprint {
	h := sha256.New()
	for _, p := range parts {
		writeLength(h, len(p))
		h.Write(p)
	}
	return Fingerprint(h.Sum(nil))
}

// agree reports whether f and g may be of the same request.
func agree(f, g Fingerprint) bool { return f == g || f.IsZero() || g.IsZero() }

var joinEscaper = strings.NewReplacer("%", "%25", "/", "%2F")

// JoinKey joins parts (tenant, kind, client key, …) into one key. It is
// injective: different lists of parts give different keys. Parts are separated
// by "/"; within a part "%" and "/" are percent-encoded, and an empty part is
// written "%". The keys of one first part share the prefix JoinKey(first) + "/".
func JoinKey(parts ...string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		if p == "" {
			out[i] = "%"
			continue
		}
		out[i] = joinEscaper.Replace(p)
	}
	return strings.Join(out, "/")
}

// DownstreamKey derives the idempotency key to show a downstream service for one
// step of an operation. It is the same on every attempt and differs by key and
// by step. It is 43 characters of URL-safe base64 and discloses neither: the
// SHA-256 of "idem/downstream", key and step, each preceded by its length as in
// FingerprintOf.
func DownstreamKey(key, step string) string {
	f := FingerprintOf([]byte("idem/downstream"), []byte(key), []byte(step))
	return base64.RawURLEncoding.EncodeToString(f[:])
}

// ContentKey derives a key from what an operation is about, for clients that send
// none: from the order number and the canonical body, say. It is 43 characters of
// URL-safe base64: the SHA-256 of "idem/content" and the parts, each preceded by
// its length as in FingerprintOf.
//
// Equal content gives an equal key. Two coffees ordered in one day for 3.50 each
// are then one operation to the store, and the second is never made. So name what
// makes them two: begin with something of the business that a retry repeats and
// another operation does not, such as an order or invoice number. The time of
// sending is not that; a retry has another. Without any such thing, keep the
// Retention no longer than retries take, and expect to lose real repeats.
//
// A JSON part goes through CanonicalJSON first, so that white space and the order
// of fields do not make two of one operation.
func ContentKey(parts ...[]byte) string {
	f := FingerprintOf(append([][]byte{[]byte("idem/content")}, parts...)...)
	return base64.RawURLEncoding.EncodeToString(f[:])
}

// CanonicalJSON returns the JSON value in b in the canonical form of RFC 8785: no
// white space, names in order, one way to write each string and number. Two texts get
// the same bytes if and only if they mean the same. Show the bytes to FingerprintOf or
// ContentKey. b is only read and the result is the caller's.
//
// Numbers compare by their exact value: 1.10e2 is 110, and 9007199254740993 is not
// 9007199254740992. Here the form departs from RFC 8785, which rounds each number to a
// float64. A number that a float64 does not tell from its neighbours keeps all its
// digits. -0 is 0.
//
// ErrInvalid is returned, with the offset and nothing of the text, for what is not
// one whole JSON value, a name that an object has twice, invalid UTF-8, a lone
// surrogate, nesting deeper than 10,000, and an exponent beyond 999,999,999.
func CanonicalJSON(b []byte) ([]byte, error) {
	out, err := jcs.Canonical(b)
	if err != nil {
		return nil, invalid("JSON: %v", err)
	}
	return out, nil
}

// KeyHash returns the short hash that stands for key in the store's logs, events and
// errors, and in Filter.KeyHash: the first six bytes of its HMAC-SHA-256, in
// hexadecimal, under a secret of the store. Without the secret nobody can tell a key
// from its hash by trying, as order numbers could be. The hash is the same as long as
// the store exists; another store has another.
func (s *Store) KeyHash(key string) string {
	h := hmac.New(sha256.New, s.time.secret[:])
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil)[:6])
}

func writeLength(h hash.Hash, n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func checkKey(key string) error {
	switch {
	case key == "":
		return invalid("the key is empty; give the operation a name of 1 to %d bytes", MaxKey)
	case len(key) > MaxKey:
		return invalid("the key has %d bytes, at most %d are allowed; hash it first", len(key), MaxKey)
	}
	return nil
}
