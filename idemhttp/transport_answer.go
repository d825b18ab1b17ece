package idemhttp

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"
)

// keepAnswer reads the body of an answer up to MaxAnswer and puts it back, or into another
// response to return. Its error means that the answer was cut.
func (e *exchange) keepAnswer(resp *http.Response, cancel func()) (*http.Response, error) {
	switch n := resp.ContentLength; {
	case !e.again || n == 0 || n > e.MaxAnswer || e.MaxAnswer < 0 || !bodyAllowed(resp.StatusCode):
		return resp, nil // the length that a 304 tells is of the body that it leaves out
	case n > 0:
		return resp, keepKnown(resp, n)
	case isStream(resp.Header):
		return resp, nil
	}
	return e.keepUnknown(resp, cancel)
}

// isStream reports whether an answer is of a kind that is read while it comes.
func isStream(h http.Header) bool {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch media {
	case "text/event-stream", "application/vnd.amazon.eventstream", "application/x-ndjson", "application/jsonl",
		"application/stream+json", "application/json-seq", "multipart/x-mixed-replace":
		return true
	}
	return strings.HasPrefix(media, "application/grpc") || strings.HasPrefix(media, "application/connect+")
}

// keepKnown keeps an answer that says how long it is. It reads on to its end, where
// HTTP/2 has the trailer.
func keepKnown(resp *http.Response, n int64) error {
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
	_ = resp.Body.Close() // nothing is lost with what has been read to its end
	resp.Body = wholeBody{bytes.NewReader(kept)}
	return nil
}

// patience is how long an answer of unknown length is kept from the caller. What takes
// longer is a stream, or as good as one.
const patience = time.Second

// patience is half of what the try has left if that is shorter: an answer that is still
// kept back when the try is over is lost.
func (e *exchange) patience() time.Duration {
	p := patience
	if e.limited > 0 {
		_, now := e.Clock.Now()
		p = min(p, (e.limited-(now-e.began))/2)
	}
	if deadline, ok := e.request.Context().Deadline(); ok {
		p = min(p, time.Until(deadline)/2)
	}
	return max(p, 0)
}

const aheadBuffer = 8 << 10

// keepUnknown keeps an answer that comes in chunks, or that net/http unpacks. If it is
// too long, or still coming after a while, it is handed on as it comes.
func (e *exchange) keepUnknown(resp *http.Response, cancel func()) (*http.Response, error) {
	// At its end the body sets the trailer of resp, at a time when the caller may look at
	// which trailers are announced, as ReverseProxy does.
	given := *resp
	given.Trailer = resp.Trailer.Clone()
	a := &ahead{src: resp.Body, from: resp, to: &given, cancel: cancel, handOn: make(chan struct{}), done: make(chan struct{})}
	go a.read(e.MaxAnswer)
	stop := e.Clock.AfterFunc(e.patience(), func() { close(a.handOn) })
	select {
	case <-a.handOn:
		given.Body = a
		return &given, nil
	case <-a.done:
		stop()
		a.wait()
	}
	kept := bytes.NewReader(a.kept)
	switch {
	case a.err == nil: // too long
		resp.Body = readCloser{io.MultiReader(kept, a.src), a.src}
		return resp, nil
	case a.err != io.EOF && broken(a.err):
		resp.Body = readCloser{io.MultiReader(kept, failingReader{a.err}), a.src}
		return resp, nil
	case a.err != io.EOF:
		return resp, fmt.Errorf("reading the answer, status %d: %w", resp.StatusCode, a.err)
	}
	_ = a.src.Close() // nothing is lost with what has been read to its end
	resp.Body = wholeBody{kept}
	return resp, nil
}

// broken reports whether an answer was packed wrong, as it would be the next time.
func broken(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt)
}

// ahead is the body of an answer that is read on a goroutine of its own until it is
// handed on to the caller. The goroutine ends with the read it is in then.
type ahead struct {
	src    io.ReadCloser
	from   *http.Response // whose body src is
	to     *http.Response // that the caller has
	cancel func()         // frees a read of src
	handOn chan struct{}  // closed when the caller has it
	done   chan struct{}  // closed when the goroutine has ended: then src is the caller's

	mu   sync.Mutex
	kept []byte
	err  error

	panicked any // what src panicked with; set when done is closed
}

// read reads until src ends, or has more than most.
func (a *ahead) read(most int64) {
	defer close(a.done)
	defer func() { a.panicked = recover() }()
	p := make([]byte, aheadBuffer)
	for {
		n, err := a.src.Read(p)
		a.mu.Lock()
		a.kept, a.err = append(a.kept, p[:n]...), err
		tooLong := int64(len(a.kept)) > most
		a.mu.Unlock()
		if err != nil || tooLong {
			return
		}
		select {
		case <-a.handOn:
			return
		default:
		}
	}
}

// Read returns what was read ahead, then what comes, and at the end sets the trailer.
func (a *ahead) Read(p []byte) (int, error) {
	n, err := a.next(p)
	if err == io.EOF && a.to.Trailer == nil {
		a.to.Trailer = a.from.Trailer
	} else if err == io.EOF {
		maps.Copy(a.to.Trailer, a.from.Trailer)
	}
	return n, err
}

func (a *ahead) next(p []byte) (int, error) {
	if n, err := a.take(p); n > 0 || err != nil || len(p) == 0 {
		return n, err
	}
	a.wait()
	if n, err := a.take(p); n > 0 || err != nil {
		return n, err
	}
	return a.src.Read(p)
}

// wait waits until the goroutine has ended. A panic of it would end the process: it goes on
// where the body would be read without it, and its callers can recover.
func (a *ahead) wait() {
	<-a.done
	if a.panicked != nil {
		panic(a.panicked)
	}
}

func (a *ahead) take(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) == 0 {
		a.kept = nil // its memory is not needed any more
		return 0, a.err
	}
	n := copy(p, a.kept)
	a.kept = a.kept[n:]
	return n, nil
}

// Close ends the goroutine, which may wait for what never comes.
func (a *ahead) Close() error {
	a.cancel()
	err := a.src.Close()
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept, a.err = nil, http.ErrBodyReadAfterClose
	return err
}

// wholeBody is a body that was read to its end.
type wholeBody struct{ *bytes.Reader }

func (wholeBody) Close() error { return nil }

// isWhole reports whether nothing of an answer is still to come.
func isWhole(resp *http.Response) bool {
	_, kept := resp.Body.(wholeBody)
	return kept || resp.Body == http.NoBody
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

// CloseWrite ends one direction of the connection, as net/http's own body of a 101 does.
// ReverseProxy passes on by it that the client has sent all.
func (b *endedDuplex) CloseWrite() error {
	if c, ok := b.Writer.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("closing one direction of the connection: %w", http.ErrNotSupported)
}
