package idemhttp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
)

// body is what the tries of a request send.
type body struct {
	first  io.ReadCloser                 // what the next try sends, nil if there is nothing
	get    func() (io.ReadCloser, error) // what those after it send, nil if they cannot
	length int64                         // for Request.ContentLength
	why    error                         // why it cannot be sent again
}

func newBody(r *http.Request) body {
	b := body{first: r.Body, get: r.GetBody, length: r.ContentLength}
	if r.Body == http.NoBody {
		b.first, b.get = nil, nil
	}
	return b
}

// keep sees to it that the body can be sent again, if need be by reading up to limit
// bytes of it, and reports whether it can.
func (b *body) keep(ctx context.Context, r *http.Request, limit int64) (again bool, err error) {
	if b.first == nil || b.get != nil {
		return true, nil
	}
	tooLong := fmt.Errorf("it was not tried again: its body has no GetBody and is over Transport.MaxBody (%d bytes)", max(limit, 0))
	if limit < 0 || r.ContentLength > limit {
		b.why = tooLong
		return false, nil
	}
	// A body that blocks, such as a pipe, ends with the context.
	stop := context.AfterFunc(ctx, func() { _ = r.Body.Close() })
	read, err := io.ReadAll(io.LimitReader(r.Body, min(limit, math.MaxInt64-1)+1))
	stop()
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
	if b.length = int64(len(read)); b.length > 0 {
		b.get = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(read)), nil }
		b.first, _ = b.get()
	}
	return true, nil
}

// attach returns a request of its own to send, with the body from its start.
func (b *body) attach(ctx context.Context, r *http.Request) (*http.Request, error) {
	first := b.first
	b.first = nil // its sender closes it
	if first == nil && b.get != nil {
		var err error
		if first, err = b.get(); err != nil {
			return nil, &ownError{err}
		}
	}
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

// keepAnswer reads the body of an answer that says how long it is, up to limit, and
// puts it back. It reads on to its end, where HTTP/2 has the trailer.
func keepAnswer(resp *http.Response, limit int64) error {
	n := resp.ContentLength
	if n <= 0 || n > limit || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	// A length that is only announced is no reason to set much memory aside.
	buf := bytes.NewBuffer(make([]byte, 0, min(n, keepBuffer)+bytes.MinRead))
	if _, err := io.CopyN(buf, resp.Body, n); err == io.EOF {
		return fmt.Errorf("reading the answer, status %d: %w", resp.StatusCode, io.ErrUnexpectedEOF)
	} else if err != nil {
		return fmt.Errorf("reading the answer, status %d: %w", resp.StatusCode, err)
	}
	kept := buf.Bytes()
	more := make([]byte, 1)
	switch _, err := io.ReadFull(resp.Body, more); {
	case err == nil: // Base let it say less than it has, which is no reason to lose any
		resp.Body = readCloser{io.MultiReader(bytes.NewReader(append(kept, more...)), resp.Body), resp.Body}
		return nil
	case err != io.EOF:
		return fmt.Errorf("reading the end of the answer, status %d: %w", resp.StatusCode, err)
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("closing the answer, status %d: %w", resp.StatusCode, err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(kept))
	return nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// endWith calls end when the body is closed. The body of a 101 answer can be written
// to, and what it becomes still can.
func endWith(b io.ReadCloser, end func()) io.ReadCloser {
	ended := &endedBody{ReadCloser: b, end: sync.OnceFunc(end)}
	if w, ok := b.(io.Writer); ok {
		return &endedDuplex{ended, w}
	}
	return ended
}

type endedBody struct {
	io.ReadCloser
	end func()
}

// Close closes the body, then frees what the exchange needed until then.
func (b *endedBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

type endedDuplex struct {
	*endedBody
	io.Writer
}
