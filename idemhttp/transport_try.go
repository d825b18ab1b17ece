package idemhttp

import (
	"fmt"
	"log/slog"
	"time"
)

// Try is one try of a request, for Transport.Observer.
type Try struct {
	// Key is the value of the header field that the request carries; "" if it has none.
	Key string
	// Number counts the tries of the request, from 1.
	Number int
	// Status is the answer's, zero if there was none.
	Status int
	// Err is why there was no answer.
	Err error
	// Again: the request will be tried again, after Wait.
	Again bool
	// Wait is the time until then; zero if it will not be tried again.
	Wait time.Duration
}

// String says how the try ended, and nothing about the key.
func (t Try) String() string {
	ended := fmt.Sprint("status ", t.Status)
	if t.Err != nil {
		ended = t.Err.Error()
	}
	if t.Again {
		ended += ", again after " + t.Wait.String()
	}
	return fmt.Sprintf("try %d: %s", t.Number, ended)
}

// GoString is String: %#v does not disclose the key either.
func (t Try) GoString() string { return t.String() }

// LogValue logs what String says.
func (t Try) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("number", t.Number)}
	if t.Err != nil {
		attrs = append(attrs, slog.String("error", t.Err.Error()))
	} else {
		attrs = append(attrs, slog.Int("status", t.Status))
	}
	if t.Again {
		attrs = append(attrs, slog.Bool("again", true), slog.Duration("wait", t.Wait))
	}
	return slog.GroupValue(attrs...)
}
