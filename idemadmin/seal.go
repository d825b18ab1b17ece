package idemadmin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// formLife is how long a form can be sent after it was shown.
const formLife = 30 * time.Minute

// seal protects what goes through the browser: places in lists, which contain keys, and
// the decision that a form confirms. Its secrets last as long as the handler.
type seal struct {
	clock idem.Clock
	aead  cipher.AEAD
	mac   [32]byte
}

func newSeal(clock idem.Clock) seal {
	s := seal{clock: clock}
	var key [16]byte
	_, _ = rand.Read(key[:])   // never fails
	_, _ = rand.Read(s.mac[:]) // never fails
	block, err := aes.NewCipher(key[:])
	if err == nil {
		s.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // the sizes are right
	}
	return s
}

// place hides the place where a list goes on.
func (s *seal) place(next string) string {
	if next == "" {
		return ""
	}
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, []byte(next), nil))
}

// open is the reverse of place.
func (s *seal) open(text string) (next string, err error) {
	if text == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if n := s.aead.NonceSize(); err == nil && len(b) > n {
		if plain, err := s.aead.Open(nil, b[:n], b[n:], nil); err == nil {
			return string(plain), nil
		}
	}
	return "", operator.NewProblem(operator.TypeInvalid,
		"The place in the list is not known. The service has restarted since, perhaps. Begin the list again.")
}

// decision is what a form confirms.
type decision struct {
	who    string
	action operator.Action
	hash   string
	fence  string
	state  string
}

// sign returns a token for d, good for formLife.
func (s *seal) sign(d decision) string {
	_, now := s.clock.Now()
	return base64.RawURLEncoding.EncodeToString(s.sum(now, d))
}

// signed reports whether token was made for d, not too long ago.
func (s *seal) signed(token string, d decision) bool {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return false
	}
	made := time.Duration(binary.BigEndian.Uint64(b))
	_, now := s.clock.Now()
	return hmac.Equal(b, s.sum(made, d)) && now-made < formLife
}

func (s *seal) sum(made time.Duration, d decision) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(made))
	m := hmac.New(sha256.New, s.mac[:])
	m.Write(b)
	for _, part := range []string{d.who, string(d.action), d.hash, d.fence, d.state} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write([]byte(part))
	}
	return m.Sum(b)
}
