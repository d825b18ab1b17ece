package diskspace

import (
	"errors"
	"fmt"
)

// DirLock is an exclusive lock on a directory. It is on the directory, not on a name: a
// symbolic link, a bind mount or a new name leads to the same lock, from this process
// and from others. Only Close or the end of the process releases it. Reading, copying
// or removing files in the directory does not.
type DirLock struct {
	*Identity
	release func() error
}

// LockDir locks dir. idem.ErrLocked is returned when it is locked already, by this
// process or another. If the operating system or the file system cannot lock
// directories, LockDir locks nothing and returns no error: the caller needs another
// lock as well.
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

// Close releases the lock.
func (l *DirLock) Close() error { return l.release() }
