package idem

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
)

// MaxKey is the longest key, in bytes. The shortest is one byte; any bytes will do.
const MaxKey = 1024

// Fingerprint is a 32-byte digest of what was asked. It tells a retry from a
// different request under the same key. The zero Fingerprint agrees with any.
type Fingerprint [32]byte

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

// IsZero reports whether f is the zero Fingerprint, which is not compared.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// agrees reports whether f and g may be of the same request.
func (f Fingerprint) agrees(g Fingerprint) bool { return f == g || f.IsZero() || g.IsZero() }

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

// KeyHash returns the short hash that stands for key in logs, events and errors:
// the first six bytes of its SHA-256, in hexadecimal.
func KeyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:6])
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
		return invalid("key %s has %d bytes, at most %d are allowed; hash it first", KeyHash(key), len(key), MaxKey)
	}
	return nil
}
