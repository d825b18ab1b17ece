package idemhttp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
)

// body is what the tries of a request send.
type body struct {
	first  io.ReadCloser                 // what the next try sends, nil if there is nothing
	get    func() (io.ReadCloser, error) // what those after it send, nil if they cannot
	empty  bool
	length int64 // for Request.ContentLength
	why    error // why it cannot be sent again
}

func newBody(r *http.Request) body {
	b := body{first: r.Body, get: r.GetBody, length: r.ContentLength}
	if r.Body == nil || r.Body == http.NoBody { // then net/http does not ask GetBody either
		b.first, b.get = nil, nil
	}
	b.empty = b.first == nil
	return b
}

// tooLong reports whether the body cannot be sent again because it is longer than
// limit, as far as that is known.
func (b *body) tooLong(limit int64) bool {
	return b.why != nil || b.first != nil && b.get == nil && (limit < 0 || b.length > limit)
}

// resendable reports whether the next try has all of the body.
func (b *body) resendable() bool { return b.get != nil || b.empty }

// keep sees to it that the body can be sent again, if need be by reading up to limit
// bytes of it, and reports whether it can.
func (b *body) keep(ctx context.Context, r *http.Request, limit int64) (again bool, err error) {
	if b.first == nil || b.get != nil {
		return true, nil
	}
	tooLong := fmt.Errorf("it was not tried again: its body has no GetBody and is over Transport.MaxBody (%d bytes)", max(limit, 0))
	if b.tooLong(limit) {
		b.why = tooLong
		return false, nil
	}
	read, err := readBody(ctx, io.LimitReader(r.Body, min(limit, math.MaxInt64-1)+1))
	if ended := ctxError(ctx); ended != nil {
		return false, ended
	}
	switch {
	case err != nil:
		return false, &ownError{err}
	case int64(len(read)) > limit:
		b.why = tooLong
		b.first = readCloser{io.MultiReader(bytes.NewReader(read), r.Body), r.Body}
		return false, nil
	case r.ContentLength > 0 && r.ContentLength != int64(len(read)):
		return false, &ownError{fmt.Errorf("it has %d bytes, ContentLength says %d", len(read), r.ContentLength)}
	}
	b.close()
	b.length = int64(len(read))
	if b.empty = b.length == 0; !b.empty {
		b.get = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(read)), nil }
		b.first, _ = b.get()
	}
	return true, nil
}

// readBody reads all of body, or returns when ctx ends. Closing the body, which its caller
// does then, frees most reads. One that it does not free, as behind an io.NopCloser, is left
// to end by itself: net/http too may read a body after its RoundTrip has returned.
func readBody(ctx context.Context, body io.Reader) ([]byte, error) {
	var read []byte
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		read, err = io.ReadAll(body)
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-done:
	}
	if panicked != nil { // for the caller to recover
		panic(panicked)
	}
	return read, err
}

// open has the body ready for the next try.
func (b *body) open() error {
	if b.first != nil || b.get == nil {
		return nil
	}
	first, err := b.get()
	if err != nil {
		return &ownError{err}
	}
	b.first = first
	return nil
}

// attach returns a request of its own to send, with the body from its start.
func (b *body) attach(ctx context.Context, r *http.Request) (*http.Request, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	first := b.first
	b.first = nil // its sender closes it
	sent := r.Clone(ctx)
	sent.Trailer = r.Trailer // whose values come while the body is read
	sent.Body, sent.GetBody, sent.ContentLength = first, b.get, b.length
	if first == nil && r.Body != nil {
		sent.Body = http.NoBody
	}
	return sent, nil
}

// close closes the body if no try has taken it. There is nobody whom its error would
// tell anything.
func (b *body) close() {
	if b.first != nil {
		_ = b.first.Close()
		b.first = nil
	}
}
