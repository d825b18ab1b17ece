package idemhttp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// takenForLeave are the fields that an http.Transport takes for leave to send a request
// again by itself, when a connection that it has used before breaks.
var takenForLeave = [...]string{"Idempotency-Key", "X-Idempotency-Key"}

// hideKeys spells those fields so that an http.Transport does not find them. To the
// server the names are the same (RFC 9110, section 5.1).
func hideKeys(h http.Header) {
	for _, name := range takenForLeave {
		if values := h[name]; len(values) > 0 {
			delete(h, name)
			h[strings.ToLower(name)] = append(values, h[strings.ToLower(name)]...)
		}
	}
}

// showKeys undoes hideKeys in the request that the caller finds in the answer.
func showKeys(resp *http.Response) {
	if resp.Request == nil {
		return
	}
	shown := resp.Request.Clone(resp.Request.Context()) // Base may still read its own
	for _, name := range takenForLeave {
		if values := shown.Header[strings.ToLower(name)]; len(values) > 0 {
			delete(shown.Header, strings.ToLower(name))
			shown.Header[name] = values
		}
	}
	resp.Request = shown
}

// watchSending returns a context for a try, and a function that reports whether its
// error proves that nothing of the request was sent.
func watchSending(ctx context.Context) (watched context.Context, unsent func(err error) bool) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	return ctx, func(err error) bool {
		// The error alone would not do: a Base that tries again may have sent the request
		// before it failed to connect.
		var failed *net.OpError
		return errors.As(err, &failed) && (failed.Op == "dial" || failed.Op == "proxyconnect") && !connected.Load()
	}
}

// withoutKey reports whether an answer says that the body is longer than the server
// takes with a key: its middleware has then not run the handler.
func withoutKey(resp *http.Response) bool {
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		return false
	}
	media, found := peekJSON(resp)
	return media == problemMedia && found.Type == TypeBodyTooLarge
}
