package pebble

import (
	"errors"
	"strings"
)

// redact reduces a Pebble error to one line, because some carry a goroutine's stack. It
// also keeps the store's keys out: where the text begins to name one (the bounds of a
// table, a leaked iterator), it is cut off.
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

// Is and As look into the error without exposing it. A caller that printed the result
// of an Unwrap would print the keys.
func (r *redacted) Is(target error) bool { return errors.Is(r.err, target) }
func (r *redacted) As(target any) bool   { return errors.As(r.err, target) }
