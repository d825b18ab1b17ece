package idemhttp

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/idemkv/idem"
)

// FormatKey returns key as the value of an Idempotency-Key header: a string in double
// quotes as in RFC 9651, with quotes and backslashes escaped. This package's middleware
// reads that form and the bare one. idem.ErrInvalid is returned when key is empty, longer
// than MaxKey bytes, or contains anything but printable ASCII; hash or base64-encode a key
// of other bytes.
func FormatKey(key string) (string, error) {
	switch {
	case key == "":
		return "", fmt.Errorf("%w: an Idempotency-Key cannot be empty", idem.ErrInvalid)
	case len(key) > MaxKey:
		return "", fmt.Errorf("%w: an Idempotency-Key has %d bytes at most, not %d", idem.ErrInvalid, MaxKey, len(key))
	}
	for i := range len(key) {
		if c := key[i]; c < ' ' || c > '~' {
			return "", fmt.Errorf("%w: byte %d of the key is %#x; an Idempotency-Key is printable ASCII", idem.ErrInvalid, i, c)
		}
	}
	return `"` + sfEscaper.Replace(key) + `"`, nil
}

var sfEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// randomKey is the default of Transport.NewKey.
func randomKey(*http.Request) (string, error) {
	var b [16]byte
	_, err := rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:]), err
}
