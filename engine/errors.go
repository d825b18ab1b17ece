package engine

import "errors"

// The errors that engines return. They come wrapped in a message that says what failed,
// on which file or key hash, and what to do. Package idem has the same errors by the
// same names and says what each means to a user.
var (
	// ErrInvalid is returned when an option is out of range or the backend is bound
	// already.
	ErrInvalid = errors.New("idem: invalid argument")
	// ErrFull is returned when a new record does not fit.
	ErrFull = errors.New("idem: store is full")
	// ErrCorrupt is returned when a stored record fails its checksum or cannot be read.
	ErrCorrupt = errors.New("idem: record is corrupt")
	// ErrVersion is returned when a file or a record has a format version that is not
	// read here.
	ErrVersion = errors.New("idem: format of another version")
	// ErrLocked is returned when another Backend has the file or directory open.
	ErrLocked = errors.New("idem: store is open elsewhere")
	// ErrBroken is returned once the engine's content is unknown.
	ErrBroken = errors.New("idem: store is broken, close and reopen it")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("idem: store is closed")
)
