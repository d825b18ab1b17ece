package idem

// markedError is an error with a mark.
type markedError struct {
	mark mark
	err  error
}

func (e *markedError) Error() string { return e.err.Error() }
func (e *markedError) Unwrap() error { return e.err }

// mark is what the work's error says of its outcome. Of several, joined, the highest
// counts: whoever doubts one of them doubts the whole.
type mark uint8

const (
	unmarked  mark = iota
	retryable      // it may be run again
	permanent      // it has failed for good
	unknown        // nobody knows whether it was done
)

// Permanent marks err as a final failure: the operation is recorded as failed, with
// err's text as the reason, and is not tried again. Do, bolt.Do, pebble.Do and the
// handlers of consume heed it. The outermost mark of an error counts; of errors that
// were joined, Unknown counts before Permanent, and that before Retryable.
// Permanent(nil) is nil.
func Permanent(err error) error { return marked(permanent, err) }

// Unknown marks err as one after which nobody knows whether the work was done: a
// service further down did not answer. The operation is held, whatever
// Request.HoldUnknown says, with err's text as the note. Claims get ErrHeld until
// someone who has found out settles it. Unknown(nil) is nil.
func Unknown(err error) error { return marked(unknown, err) }

// Retryable marks err as one after which the work may be run again: it was not done, or
// may be repeated. The operation is released, also with Request.HoldUnknown, and the
// attempt counts. A same-commit function needs no such mark: what it wrote is undone, and
// its attempt counts only where there is a limit of them. Retryable(nil) is nil.
func Retryable(err error) error { return marked(retryable, err) }

// IsPermanent reports whether err, or an error it wraps, was marked by Permanent, and
// by no other mark further out.
func IsPermanent(err error) bool { return markOf(err) == permanent }

// IsUnknown reports whether err, or an error it wraps, was marked by Unknown, and by no
// other mark further out.
func IsUnknown(err error) bool { return markOf(err) == unknown }

// IsRetryable reports whether err, or an error it wraps, was marked by Retryable, and by
// no other mark further out.
func IsRetryable(err error) bool { return markOf(err) == retryable }

func marked(m mark, err error) error {
	if err == nil {
		return nil
	}
	return &markedError{m, err}
}

// markOf looks for the outermost mark. An error that cannot be looked into, because it is
// a nil pointer, has none.
func markOf(err error) (found mark) {
	defer func() { _ = recover() }()
	for err != nil {
		switch e := err.(type) { //nolint:errorlint // it unwraps by itself
		case *markedError:
			return e.mark
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				found = max(found, markOf(err))
			}
			return found
		default:
			return unmarked
		}
	}
	return unmarked
}
