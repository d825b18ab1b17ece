package idemhttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net/http"

	"github.com/idemkv/idem"
)

// requestBody is the body of a request, read completely, because it must be known before
// the key is claimed. It is in one buffer, after what RequestFingerprint hashes before it.
// Hashing is then one pass without an allocation.
type requestBody struct {
	buf  []byte
	from int // where the body begins
}

// keepBuffer is the size of the largest buffer that is kept for another request, in bytes,
// and the most that is allocated for a body that is only announced.
const keepBuffer = 64 << 10

func (b *requestBody) bytes() []byte { return b.buf[b.from:] }

// read reads r's body of at most limit bytes.
func (b *requestBody) read(r *http.Request, limit int64) error {
	b.buf = appendPart(b.buf[:0], r.Method)
	b.buf = appendPart(b.buf, target(r))
	b.buf = append(b.buf, 0, 0, 0, 0, 0, 0, 0, 0) // the body's length
	b.from = len(b.buf)
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return b.whole(r)
	}
	// One byte more than announced, or allowed, to see the end at once.
	b.grow(int(min(max(r.ContentLength, 511), keepBuffer)) + 1)
	for {
		room := b.buf[len(b.buf):cap(b.buf)]
		n, err := r.Body.Read(room)
		b.buf = b.buf[:len(b.buf)+n]
		if size := int64(len(b.bytes())); size > limit {
			return bodyTooLarge(limit)
		} else if err == io.EOF {
			return b.whole(r)
		}
		if err != nil {
			return bodyFailed(err)
		}
		if len(b.buf) == cap(b.buf) {
			b.grow(cap(b.buf))
		}
	}
}

// bodyFailed is the problem for a body whose reading ended with err: it was over a limit
// further out, it did not arrive before the server's ReadTimeout, it was cut off, or it
// is not what its encoding says.
func bodyFailed(err error) Problem {
	var tooLarge *http.MaxBytesError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &tooLarge):
		return bodyTooLarge(tooLarge.Limit)
	case errors.As(err, &timeout) && timeout.Timeout():
		return because(err, reason("timeout", problem(TypeBodyUnreadable, http.StatusRequestTimeout, "The body did not arrive in time. Ask again with the same key.")))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return because(err, reason("cut", problem(TypeBodyUnreadable, http.StatusBadRequest, "The body was cut off before its end.")))
	}
	return because(err, reason("read", problem(TypeBodyUnreadable, http.StatusBadRequest, "The body could not be read.")))
}

// whole returns a problem unless what was read can be the whole body. If code further out
// has read a part of it, different requests look alike. net/http never ends a body short of
// its length without an error. If a body has no length, parsed forms show that it was read.
func (b *requestBody) whole(r *http.Request) error {
	size := int64(len(b.bytes()))
	parsed := size == 0 && r.ContentLength < 0 && (r.PostForm != nil || r.MultipartForm != nil)
	if size >= r.ContentLength && !parsed {
		return nil
	}
	return problem(TypeMisconfigured, http.StatusInternalServerError,
		"The body was read, or made shorter than its ContentLength, before idemhttp could read it: its middleware belongs outside of whatever reads the body.")
}

// grow makes room for n more bytes.
func (b *requestBody) grow(n int) {
	if cap(b.buf)-len(b.buf) < n {
		b.buf = append(make([]byte, 0, len(b.buf)+n), b.buf...)
	}
}

// fingerprint is RequestFingerprint of the request that was read.
func (b *requestBody) fingerprint() idem.Fingerprint {
	binary.BigEndian.PutUint64(b.buf[b.from-8:], uint64(len(b.bytes())))
	return sha256.Sum256(b.buf)
}

// reader returns the body for the handler.
func (b *requestBody) reader() io.ReadCloser {
	if len(b.bytes()) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(b.bytes()))
}
