package idemhttp

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
)

// These are the optional methods of a ResponseWriter. Each works if the ResponseWriter
// further out supports it. Deadlines and full duplex are found through Unwrap.

// Flush sends what there is so far.
func (c *capture) Flush() { _ = c.FlushError() }

// FlushError sends what there is so far, unless that is the whole answer. It returns
// http.ErrNotSupported if the ResponseWriter further out cannot flush.
func (c *capture) FlushError() error {
	if c.sent {
		return errSent
	}
	if !supports[interface{ FlushError() error }](c.w) && !supports[http.Flusher](c.w) {
		return fmt.Errorf("%w: the ResponseWriter further out cannot flush", http.ErrNotSupported)
	}
	if c.direct {
		return http.NewResponseController(c.w).Flush()
	}
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if !c.live {
		if c.whole() {
			return nil
		}
		c.setType(c.body)
		c.goLive(nil)
	}
	if c.gone == nil {
		c.gone = http.NewResponseController(c.w).Flush()
	}
	if !c.lost {
		return nil
	}
	return c.gone
}

// Hijack gives the connection to the handler. The answer, if there is one, cannot be
// replayed.
func (c *capture) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if c.sent {
		return nil, nil, errSent
	}
	if !supports[http.Hijacker](c.w) {
		return nil, nil, fmt.Errorf("%w: the ResponseWriter further out cannot be hijacked", http.ErrNotSupported)
	}
	if c.status != 0 && !c.direct {
		c.lost, c.declared = true, -1 // what follows is not ours to hold back
		c.goLive(nil)
		c.letGo()
		_ = http.NewResponseController(c.w).Flush() // the handler may have done so, when it was not sent yet
	}
	conn, rw, err := http.NewResponseController(c.w).Hijack()
	if err == nil {
		c.hijacked, c.lost, c.body = true, true, nil
	}
	return conn, rw, err
}

// CloseNotify returns a channel that gets a value when the handler's context ends. A client
// that goes away ends it only with Options.CancelWithClient; otherwise the handler finishes
// its answer for the retry. gin's Context.Stream panics without this method.
func (c *capture) CloseNotify() <-chan bool {
	over := make(chan bool, 1)
	context.AfterFunc(c.run, func() { over <- true })
	return over
}

// Push promises an HTTP/2 client another resource, at once. A replay pushes nothing.
func (c *capture) Push(target string, o *http.PushOptions) error {
	err := fmt.Errorf("%w: the ResponseWriter further out cannot push", http.ErrNotSupported)
	wraps(c.w, func(w http.ResponseWriter) bool {
		p, ok := w.(http.Pusher)
		if ok {
			err = p.Push(target, o)
		}
		return ok
	})
	return err
}

// supports reports whether w, or one that it wraps, is a T.
func supports[T any](w http.ResponseWriter) bool {
	return wraps(w, func(w http.ResponseWriter) bool { _, ok := w.(T); return ok })
}

// writesTo reports whether w, or one that it wraps, is c.
func writesTo(w http.ResponseWriter, c *capture) bool {
	return wraps(w, func(w http.ResponseWriter) bool { got, ok := w.(*capture); return ok && got == c })
}

// wraps reports whether is holds for w, or for one that it wraps.
func wraps(w http.ResponseWriter, is func(http.ResponseWriter) bool) bool {
	for !is(w) {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
	return true
}
