package idem

// markedError is an error with a mark.
type markedError struct {
	mark mark
	err  error
}

func (e *markedError) Error() string { return e.err.Error() }
func (e *markedError) Unwrap() error { return e.err }

// mark is what the work's error says about its outcome. Among joined errors the highest
// counts: a doubt about one of them is a doubt about all.
type mark uint8

const (
	unmarked  mark = iota
	retryable      // it may be run again
	permanent      // it has failed for good
	unknown        // it may or may not have been done
)

// Permanent marks err as a final failure: the operation is recorded as failed, with
// err's text as the reason, and is not tried again. Do, bolt.Do, pebble.Do and the
// handlers of consume heed it. The outermost mark of an error counts. Among joined
// errors, Unknown comes before Permanent, and Permanent before Retryable.
// Permanent(nil) is nil.
func Permanent(err error) error { return marked(permanent, err) }

// Unknown marks err as leaving it unknown whether the work was done: a downstream
// service did not answer, say. The operation is held, whatever Request.HoldUnknown
// says, with err's text as the note. Claims get ErrHeld until someone who has found out
// settles it. Unknown(nil) is nil.
func Unknown(err error) error { return marked(unknown, err) }

// Retryable marks err as one after which the work may run again: it was not done, or
// may be repeated. The operation is released, even with Request.HoldUnknown, and the
// attempt counts. A same-commit function needs no such mark: what it wrote is undone,
// and its attempt counts only if attempts are limited. Retryable(nil) is nil.
func Retryable(err error) error { return marked(retryable, err) }

// IsPermanent reports whether err, or an error it wraps, was marked by Permanent. The
// outermost mark counts.
func IsPermanent(err error) bool { return markOf(err) == permanent }

// IsUnknown reports whether err, or an error it wraps, was marked by Unknown. The
// outermost mark counts.
func IsUnknown(err error) bool { return markOf(err) == unknown }

// IsRetryable reports whether err, or an error it wraps, was marked by Retryable. The
// outermost mark counts.
func IsRetryable(err error) bool { return markOf(err) == retryable }

func marked(m mark, err error) error {
	if err == nil {
		return nil
	}
	return &markedError{m, err}
}

// markOf returns the outermost mark. An error that panics when unwrapped, such as a nil
// pointer, has none.
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
