package idem

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Token proves that its holder was granted a claim; operations on the claim take it. It
// is plain data that can be saved, sent, and used after a restart. A token is good
// until its claim is settled, taken over or forgotten, or its record expires. A stale
// token changes nothing.
type Token struct {
	// Key is the claimed key.
	Key string
	// Fence is the store-wide, strictly increasing number of the claim. It is never
	// reused, not even after the record is gone.
	Fence uint64
}

// tokenVersion starts the text form, to tell it from any later form.
const tokenVersion = "idem1"

// MarshalText returns the token as "idem1.<fence>.<key>", the fence in decimal
// and the key in unpadded URL-safe base64. ErrInvalid is returned when the token
// is zero or its key out of range.
func (t Token) MarshalText() ([]byte, error) {
	if err := checkToken(t); err != nil {
		return nil, err
	}
	b := append([]byte(tokenVersion), '.')
	b = strconv.AppendUint(b, t.Fence, 10)
	b = append(b, '.')
	return base64.RawURLEncoding.AppendEncode(b, []byte(t.Key)), nil
}

// UnmarshalText reads the form that MarshalText writes and no other spelling of it.
// ErrInvalid is returned when text is not a token; t is then unchanged.
func (t *Token) UnmarshalText(text []byte) error {
	version, rest, _ := strings.Cut(string(text), ".")
	fence, key, found := strings.Cut(rest, ".")
	if version != tokenVersion || !found {
		return invalid("token text must read %s.<fence>.<key>", tokenVersion)
	}
	n, err := strconv.ParseUint(fence, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != fence {
		return invalid("token text has no decimal fence")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(key)
	if err != nil || strings.ContainsAny(key, "\r\n") {
		return invalid("token text has a key that is not URL-safe base64")
	}
	parsed := Token{Key: string(raw), Fence: n}
	if err := checkToken(parsed); err != nil {
		return err
	}
	*t = parsed
	return nil
}

// String names the token without disclosing its key.
func (t Token) String() string {
	return fmt.Sprintf("token(fence %d)", t.Fence)
}

// GoString is String: %#v does not disclose the key either.
func (t Token) GoString() string { return t.String() }

// LogValue logs the fence, never the key.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("fence", t.Fence))
}

func checkToken(t Token) error {
	if err := checkKey(t.Key); err != nil {
		return err
	}
	if t.Fence == 0 {
		return invalid("the token has no fence; use the one Claim returned")
	}
	return nil
}
