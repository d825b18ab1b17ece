package idemhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// capture is the ResponseWriter that the handler gets. It buffers the answer, as net/http
// would send it, and sends it once the outcome has been recorded: a client that has seen
// an answer must not see another one after a crash.
//
// An answer that cannot wait goes live, which means that it is sent as it is written. That
// is one that the handler flushes, that is over the limit, has trailers, switches protocols
// or is hijacked. A flushed one that turns out to fit is still stored. If the length is
// known, the last byte is held back until the outcome has been recorded. So even then no
// client believes an operation to be done that the store does not know to be done.
type capture struct {
	w      http.ResponseWriter
	limit  int
	before http.Header // what middleware further out had set

	status   int         // 0: WriteHeader was not called
	header   http.Header // as it was at WriteHeader, while not live
	declared int64       // Content-Length, -1: none
	written  int64       // bytes of the body that were accepted
	overdone bool        // more were written than declared
	body     []byte      // those that are kept

	live     bool
	hijacked bool
	sent     bool // all of it: nothing more is taken
	direct   bool // discarded: what is written from now on goes to w as it is
	lost     bool // the answer cannot be replayed: body is not all of it
	trailers bool
	gone     error   // the client, for this reason, while live
	tail     [1]byte // the byte held back
	held     bool

	run  context.Context // the handler's
	late bool            // it had ended at WriteHeader
	// behind is called once if an answer is written after the handler has returned.
	behind func()
}

func newCapture(w http.ResponseWriter, limit int) *capture {
	c := &capture{w: w, limit: limit, declared: -1}
	if h := w.Header(); len(h) > 0 {
		c.before = h.Clone()
	}
	return c
}

// Unwrap returns the ResponseWriter further out, for http.ResponseController.
func (c *capture) Unwrap() http.ResponseWriter { return c.w }

// Header returns the header of the ResponseWriter further out: the handler sees, and
// may change, what is set already.
func (c *capture) Header() http.Header { return c.w.Header() }

// WriteHeader buffers the status and the header. Informational ones go out at once; a
// second call is ignored.
func (c *capture) WriteHeader(status int) { c.writeHeader(status, nil) }

// writeHeader is WriteHeader for a Write of next.
func (c *capture) writeHeader(status int, next []byte) {
	if tell := c.behind; tell != nil {
		c.behind = nil
		tell()
	}
	if c.direct {
		c.w.WriteHeader(status)
		return
	}
	if c.status != 0 || c.hijacked {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status)) // as net/http does
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		c.w.WriteHeader(status)
		return
	}
	c.status, c.late = status, c.run.Err() != nil
	h := c.w.Header()
	if length := h.Get("Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			h.Del("Content-Length") // as net/http does
		} else {
			c.declared = n
		}
	}
	c.header = h.Clone()
	c.trailers = len(h["Trailer"]) > 0 || hasTrailers(h)
	if c.trailers || status == http.StatusSwitchingProtocols || bodyAllowed(status) && c.declared > int64(c.limit) {
		c.lost = true
		c.goLive(next)
	}
}

// errSent is the error for writing after the handler has returned and its answer was sent,
// by a framework around the handler or a goroutine that it left behind.
var errSent = errors.New("idemhttp: the answer was sent when the handler returned; write it before")

// Write buffers p, or passes it on. Its errors are those of net/http.
func (c *capture) Write(p []byte) (int, error) {
	switch {
	case c.hijacked || c.direct:
		return c.w.Write(p)
	case c.sent:
		return 0, errSent
	case c.status == 0:
		c.writeHeader(http.StatusOK, p)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(c.status):
		return 0, http.ErrBodyNotAllowed
	case c.overdone || c.declared >= 0 && c.written+int64(len(p)) > c.declared:
		c.overdone = true // nothing more is taken, as by net/http
		return 0, http.ErrContentLength
	}
	if (!c.lost || !c.live) && len(c.body)+len(p) <= c.limit {
		c.written += int64(len(p))
		c.body = append(c.body, p...)
		if c.live {
			_ = c.pass(p) // a client that has gone asks again
		}
		return len(p), nil
	}
	c.lost = true
	c.goLive(p)
	c.body = nil
	c.written += int64(len(p))
	if err := c.pass(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString is Write.
func (c *capture) WriteString(s string) (int, error) { return c.Write([]byte(s)) }

// ReadFrom buffers what src has. Once the answer is live and not kept, it leaves the
// copying to the ResponseWriter further out, which may let the kernel do it.
func (c *capture) ReadFrom(src io.Reader) (n int64, err error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	for {
		if rf, ok := c.w.(io.ReaderFrom); ok && c.live && c.lost && !c.hijacked && !c.overdone && !c.sent {
			part := src
			if c.declared >= 0 {
				part = io.LimitReader(src, c.declared-c.written-1) // short of the byte to hold back
			}
			passed, err := rf.ReadFrom(part)
			c.written += passed
			n += passed
			if err != nil || c.declared < 0 {
				return n, err
			}
		}
		got, readErr := src.Read(buf[:])
		if got > 0 {
			wrote, err := c.Write(buf[:got])
			n += int64(wrote)
			if err != nil {
				return n, err
			}
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			c.lost = c.lost || c.status != 0 // cut off: not to be replayed as if it were whole
			return n, readErr
		}
	}
}

const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// goLive sends what there is so far. From then on the answer goes out as it is written,
// beginning with next. net/http detects the Content-Type from that, unless middleware that
// encodes hides it.
func (c *capture) goLive(next []byte) {
	if c.live {
		return
	}
	c.live = true
	if encoded(c.before) {
		begin := append(slices.Clip(c.body[:min(len(c.body), sniffSize)]), next[:min(len(next), sniffSize)]...)
		if len(begin) > 0 {
			c.setType(begin)
		}
	}
	c.sendHeader()
	c.header = c.header.Clone() // the handler can change the other
	if len(c.body) > 0 {
		_ = c.pass(c.body)
	}
}

// sendHeader sends the header as it was at WriteHeader: later changes do not count,
// but for trailers.
func (c *capture) sendHeader() {
	h := c.w.Header()
	for name, values := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			c.header[name] = values
		}
	}
	restore(h, c.header)
	c.w.WriteHeader(c.status)
}

// pass sends p, or all but its last byte if that is the last one of the answer.
func (c *capture) pass(p []byte) error {
	if c.gone != nil {
		return c.gone
	}
	if c.written == c.declared {
		p, c.tail[0], c.held = p[:len(p)-1], p[len(p)-1], true
	}
	if len(p) > 0 {
		_, c.gone = c.w.Write(p)
	}
	return c.gone
}

// whole reports whether the handler can write nothing more.
func (c *capture) whole() bool { return !bodyAllowed(c.status) || c.written == c.declared }

// setType detects the Content-Type from the start of the body. net/http would do so when
// it sends the header, and a replay must have the same type. A nil value keeps net/http
// from detecting one.
//
// Like net/http, it does not look at a body that the handler has encoded. If middleware
// further out encodes, what the handler writes is still plain.
func (c *capture) setType(begin []byte) {
	_, has := c.header["Content-Type"]
	if has || !bodyAllowed(c.status) ||
		encoded(c.header) && !slices.Equal(c.header["Content-Encoding"], c.before["Content-Encoding"]) {
		return
	}
	if c.header.Get("Transfer-Encoding") != "" || len(begin) == 0 {
		c.header["Content-Type"] = nil
		return
	}
	c.header["Content-Type"] = []string{http.DetectContentType(begin)}
}

// sniffSize is how much of a body http.DetectContentType looks at.
const sniffSize = 512

// end is called when the handler has returned: the answer is what it is now.
func (c *capture) end() {
	if c.hijacked {
		return
	}
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if !c.trailers && hasTrailers(c.w.Header()) {
		c.trailers, c.lost = true, true
	}
	if bodyAllowed(c.status) && c.declared >= 0 && c.written != c.declared {
		c.lost = true // the handler broke off
	}
	if c.live {
		return
	}
	if len(c.body) > 0 {
		c.setType(c.body)
	}
	if !c.trailers && c.declared < 0 && bodyAllowed(c.status) && c.header.Get("Transfer-Encoding") == "" && !encoded(c.before) {
		c.header["Content-Length"] = []string{strconv.Itoa(len(c.body))}
	}
}

// send sends what is not sent yet, now that the outcome has been recorded.
func (c *capture) send() {
	c.sent = true
	switch {
	case c.hijacked:
	case !c.live:
		c.sendHeader()
		if len(c.body) > 0 {
			_, _ = c.w.Write(c.body) // a client that has gone asks again
		}
	default:
		c.letGo()
	}
}

// letGo sends the byte that is held back, if there is one.
func (c *capture) letGo() {
	if c.held && c.gone == nil {
		_, c.gone = c.w.Write(c.tail[:])
	}
	c.held = false
}

// discard drops the answer. It reports whether it could, which it cannot once anything was
// sent. A framework further out may know no other ResponseWriter than this one, and use it
// to answer a panic or an error of the handler.
func (c *capture) discard() bool {
	if c.live || c.hijacked {
		return false
	}
	restore(c.w.Header(), c.before)
	c.direct = true
	return true
}

func hasTrailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}
