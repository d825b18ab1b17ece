package diskspace

import (
	"errors"
	"fmt"
	"io"
)

// DirLock is a lock on a directory, exclusive or shared. It is on the directory, not on a name: a
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
func LockDir(dir string) (*DirLock, error) { return lock(dir, false) }

// ShareDir is LockDir with a shared lock: others can have one too, and nobody an exclusive
// one. It changes nothing in dir and may be used where nothing can be written.
func ShareDir(dir string) (*DirLock, error) { return lock(dir, true) }

func lock(dir string, shared bool) (*DirLock, error) {
	info, release, err := lockDir(dir, shared)
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

// ShareFile takes a shared record lock on a file, which conflicts with the exclusive one
// that a writer of Pebble's takes. It changes nothing. There is none if there is no such
// file, or on a file system without locks. idem.ErrLocked is returned when another process
// has the file locked. (Closing the lock, and being refused it, also drops this process's
// own locks of the file, so see first that the process has none.)
func ShareFile(path string) (io.Closer, error) { return shareFile(path) }

// nothing is the lock of a file that does not exist.
type nothing struct{}

func (nothing) Close() error { return nil }
