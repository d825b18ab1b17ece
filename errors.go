package idem

import (
	"errors"
	"fmt"

	"github.com/idemkv/idem/engine"
)

// Refusals of Claim. Each says why the work must not run. They are returned bare,
// without allocation; the record in the way comes with the Claim.
var (
	// ErrCompleted is returned when the operation is done. Claim returns it with the
	// record to replay. A token operation returns it when it would change a completed
	// record of its own claim.
	ErrCompleted = errors.New("idem: operation is completed")

	// ErrFailed is returned when the operation failed for good. Claim returns it with
	// the reason in Record.Result. A token operation returns it when it would change a
	// failed record of its own claim.
	ErrFailed = errors.New("idem: operation has failed for good")

	// ErrInFlight is returned when another attempt holds the claim and its lease has not
	// lapsed. Use Wait to learn when that changes.
	ErrInFlight = errors.New("idem: operation is in flight")

	// ErrHeld is returned when the outcome of an attempt is unknown and must not be
	// guessed: the record is Held, or it was claimed with HoldUnknown and its lease
	// lapsed. The record's own token settles it.
	ErrHeld = errors.New("idem: operation is held, its outcome is unknown")

	// ErrMismatch is returned when the key belongs to a request with another
	// fingerprint. It discloses nothing of that request.
	ErrMismatch = errors.New("idem: key is in use by a different request")

	// ErrExhausted is returned when the operation has been granted as many claims as
	// Request.MaxAttempts or Options.MaxAttempts allows, and none finished it.
	ErrExhausted = errors.New("idem: operation has used up its attempts")

	// ErrTooLate is returned when there is no record but there may have been one: by
	// Request.IssuedAt, the request is older than its retention or than what the store
	// has lost. The operation may have been done.
	ErrTooLate = errors.New("idem: request is too old, its record may be gone")
)

// Answers of token operations and of reading.
var (
	// ErrFenced is returned when a token is stale: its claim was taken over, released or
	// forgotten, or has expired. Nothing was changed.
	ErrFenced = errors.New("idem: token is stale")

	// ErrNotFound is returned by Get and Wait when the key has no live record.
	ErrNotFound = errors.New("idem: no record of this key")
)

// Errors of input, capacity and the store itself. They come wrapped in a message that
// says what failed, where, and what to do.
var (
	// ErrInvalid is returned when an argument is out of range (a key, an option, a
	// duration, a batch size), when a store and an engine do not fit together, and when
	// a call would wait for the very work that makes it. Nothing was changed.
	ErrInvalid = engine.ErrInvalid

	// ErrTooLarge is returned when bytes are longer than Options.MaxResult. From
	// Complete and Fail it means that the operation is recorded as final and its result
	// or reason was dropped. From Checkpoint it means that nothing was changed.
	ErrTooLarge = errors.New("idem: value is too large")

	// ErrFull is returned when a new claim does not fit: the engine's bound on
	// records, bytes or disk space is reached. Nothing was changed. Token
	// operations are never refused for capacity.
	ErrFull = engine.ErrFull

	// ErrCorrupt is returned when a stored record fails its checksum or cannot be read.
	// Its key is not granted; other keys are not affected.
	ErrCorrupt = engine.ErrCorrupt

	// ErrVersion is returned when a file or a record has a format version that this
	// library does not read. Nothing was changed.
	ErrVersion = engine.ErrVersion

	// ErrLocked is returned by an engine's Open when another store, in this process or
	// another, has the file or directory open.
	ErrLocked = engine.ErrLocked

	// ErrBroken is returned by everything once a commit has failed or exceeded
	// Options.Stall, the engine has panicked, or its files could not be read or were
	// moved, removed or replaced. What is on disk is then unknown until the store is
	// closed and opened again. The call's own change may or may not have been made. It
	// wraps the cause.
	ErrBroken = engine.ErrBroken

	// ErrClosed is returned after Close, and to new claims after Shutdown.
	ErrClosed = engine.ErrClosed
)

// invalid returns an ErrInvalid that says what is out of range.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
