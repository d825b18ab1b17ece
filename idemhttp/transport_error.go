package idemhttp

import (
	"context"
	"errors"
	"fmt"
)

// TransportError is what Transport.RoundTrip returns if there is no answer. If anything
// was sent, nobody knows what became of the operation. To find out, make the request again
// with the same key.
type TransportError struct {
	// Key is the value of the header field that the tries carried, "" if there was none.
	// Set it in the next request to continue the same operation.
	Key string
	// Tries is how many tries there were.
	Tries int
	// Err is the error of the last one.
	Err error
}

// Error says how many tries there were, and nothing about the key.
func (e *TransportError) Error() string {
	tries := fmt.Sprint(e.Tries, " tries")
	if e.Tries == 1 {
		tries = "1 try"
	}
	return fmt.Sprintf("idemhttp: %s: %v", tries, e.Err)
}

// GoString is Error: %#v does not disclose the key either.
func (e *TransportError) GoString() string { return e.Error() }

// Unwrap returns Err.
func (e *TransportError) Unwrap() error { return e.Err }

// Timeout reports whether time had run out: Transport.Timeout, TryTimeout, a deadline of
// the context, or a timeout of the network.
func (e *TransportError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// timeoutError is the end of a Transport's own patience.
type timeoutError string

func (e timeoutError) Error() string   { return string(e) }
func (e timeoutError) Timeout() bool   { return true }
func (e timeoutError) Temporary() bool { return true }

// Is makes it a context.DeadlineExceeded.
func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

const (
	errTimeout    = timeoutError("no answer within Transport.Timeout")
	errTryTimeout = timeoutError("no answer within Transport.TryTimeout")
)

// errCancel is a context.Canceled.
var errCancel = fmt.Errorf("%w: Request.Cancel is closed", context.Canceled)

// errNothing is what http.Client says of such a Base.
var errNothing = errors.New("Transport.Base returned neither an answer nor an error")

// ownError is the request's own fault: its body cannot be read. Another try would meet
// the same error.
type ownError struct{ err error }

func (e *ownError) Error() string { return "the request's body: " + e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

func isOwn(err error) bool {
	var own *ownError
	return errors.As(err, &own)
}

// ctxError returns how ctx ended, with its cause; nil if it has not.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
