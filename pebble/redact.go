package pebble

import (
	"errors"
	"strings"
)

// redact makes one line of Pebble's messages, some of which carry the stack of a
// goroutine, and keeps the keys of the store out of them: where one begins to name them
// (the bounds of a table, an iterator that leaked) it is cut off.
func redact(err error) error {
	if err == nil {
		return nil
	}
	text, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	for _, form := range [...]string{reserved, `idem\x00`} {
		if at := strings.Index(text, form); at >= 0 {
			text = text[:at] + "… (the rest names keys and is left out)"
		}
	}
	if text == err.Error() {
		return err
	}
	return &redacted{text: text, err: err}
}

// redacted is an error with another text.
type redacted struct {
	text string
	err  error
}

func (r *redacted) Error() string { return r.text }

// Is and As look into the error, without giving it out: who prints what Unwrap
// returns would print the keys.
func (r *redacted) Is(target error) bool { return errors.Is(r.err, target) }
func (r *redacted) As(target any) bool   { return errors.As(r.err, target) }
