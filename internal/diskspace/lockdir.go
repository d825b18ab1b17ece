package diskspace

import (
	"errors"
	"fmt"
)

// DirLock is an exclusive lock on a directory. It goes by the directory and not by a
// name: a symbolic link, a bind mount or a new name leads to the same lock, from this
// process and from others. Nothing but Close and the end of the process gives it up:
// reading, copying or removing the files in the directory does not.
type DirLock struct {
	*Identity
	release func() error
}

// LockDir locks dir. idem.ErrLocked is returned when somebody else has it, in this
// process too. Where the operating system or the file system cannot lock directories,
// nothing is locked and nobody is refused: the caller needs another lock as well.
func LockDir(dir string) (*DirLock, error) {
	info, release, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	id, err := Identify(dir)
	if err == nil && info != nil && !id.Is(info) {
		err = fmt.Errorf("%s was replaced while it was being opened; try again", dir)
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return &DirLock{Identity: id, release: release}, nil
}

// Close gives the lock up.
func (l *DirLock) Close() error { return l.release() }
