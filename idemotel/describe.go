package idemotel

import (
	"context"
	"errors"

	"github.com/idemkv/idem"
)

// describe says what err is without its text, which may be the work's own.
func describe(err error) string {
	for _, known := range [...]error{
		idem.ErrFailed, idem.ErrInFlight, idem.ErrHeld, idem.ErrMismatch, idem.ErrExhausted, idem.ErrTooLate,
		idem.ErrFenced, idem.ErrInvalid, idem.ErrTooLarge, idem.ErrFull, idem.ErrCorrupt, idem.ErrVersion,
		idem.ErrClosed, idem.ErrBroken, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the work returned an error"
}
