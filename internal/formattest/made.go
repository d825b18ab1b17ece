package formattest

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/idemkv/idem"
)

// Made holds what cannot be known before a golden store is made: the fences of each
// opening begin at random, and the secret is random. It is kept in a file next to the
// store. Tokens and hashes of keys live outside the store, and must still match it
// later.
type Made struct {
	// Tokens are those of all claims, in order.
	Tokens []idem.Token
	// KeyHash is Store.KeyHash of KeyCompleted.
	KeyHash string
}

// secondOpening is the number of the first claim of the second opening.
const secondOpening = 26

// fence returns the fence of the claim with that number. An opening counts up from its
// first.
func (m Made) fence(claim int) uint64 {
	if claim >= secondOpening {
		return m.Tokens[secondOpening].Fence + uint64(claim-secondOpening)
	}
	return m.Tokens[0].Fence + uint64(claim)
}

// claimed returns the keys of all claims, in order.
func claimed() []string {
	return []string{
		KeyInFlight, KeyTakenOver, KeyExtended, KeyTakenOver, KeyHoldUnknown, KeyReleased, KeyHeld, KeyCompleted,
		KeyNil, KeyEmpty, KeyBinary, KeyDropped, KeyForever, KeyFailed, KeyNUL, KeyNotUTF8, KeyLong(), KeyExpired,
		KeyForgotten, KeyReason, KeyRetried, KeyRetried, KeyBound, KeyBound, KeyUndone, KeyFailDropped,
		KeySecondOpening, KeySameCommit,
	}
}

// check checks the parts of m that can be known.
func (m Made) check(t testing.TB) {
	t.Helper()
	keys := claimed()
	if len(m.Tokens) != len(keys) {
		t.Fatalf("golden: %d tokens, want %d", len(m.Tokens), len(keys))
	}
	for i, token := range m.Tokens {
		equal(t, fmt.Sprintf("token %d", i), idem.Token{Key: keys[i], Fence: m.fence(i)}, token)
	}
	if last, next := m.fence(secondOpening-1), m.fence(secondOpening); next <= last || m.fence(0) <= uint64(Base) {
		t.Errorf("golden: fences begin at %d, then at %d after %d", m.fence(0), next, last)
	}
}

// checkSecret checks that secret produced m's hashes.
func (m Made) checkSecret(t testing.TB, secret [16]byte) {
	t.Helper()
	h := hmac.New(sha256.New, secret[:])
	h.Write([]byte(KeyCompleted))
	equal(t, "hash of "+KeyCompleted, m.KeyHash, hex.EncodeToString(h.Sum(nil)[:6]))
	if secret == [16]byte{} {
		t.Error("golden: no secret")
	}
}

const hashLine = "key hash "

// Text returns the content of the file.
func (m Made) Text() ([]byte, error) {
	b := []byte(hashLine + m.KeyHash + "\n")
	for _, token := range m.Tokens {
		text, err := token.MarshalText()
		if err != nil {
			return nil, err
		}
		b = append(append(b, text...), '\n')
	}
	return b, nil
}

// ParseMade parses the output of Text.
func ParseMade(text []byte) (m Made, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if hash, ok := strings.CutPrefix(lines.Text(), hashLine); ok {
			m.KeyHash = hash
			continue
		}
		var token idem.Token
		if err := token.UnmarshalText(lines.Bytes()); err != nil {
			return m, err
		}
		m.Tokens = append(m.Tokens, token)
	}
	return m, lines.Err()
}
