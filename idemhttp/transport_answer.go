package idemhttp

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
)

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
