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
// quotes as RFC 9651 has it, in which quotes and backslashes are escaped. Middleware
// of this package reads that form, and the bare one. idem.ErrInvalid is returned when
// key is empty, longer than MaxKey bytes, or has anything but printable ASCII in it;
// a hash or base64 makes a key of any bytes fit.
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
