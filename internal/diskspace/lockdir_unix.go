//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package diskspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/idemkv/idem/engine"
)

// lockDir locks dir with flock(2), which belongs to the open file. A POSIX record lock
// would be dropped when the process closes any descriptor of the directory.
func lockDir(dir string) (info fs.FileInfo, release func() error, err error) {
	return lockDirBy(dir, flock)
}

func lockDirBy(dir string, flock func(f *os.File, how int) error) (info fs.FileInfo, release func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	none := func() error { return nil }
	switch err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, nil, errors.Join(fmt.Errorf("%w: %s; close it there", engine.ErrLocked, dir), f.Close())
	case cannotLock(err):
		return nil, none, f.Close()
	default:
		return nil, nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	release = func() error {
		// Closing alone would leave the lock to a child process that is just starting and
		// has not yet closed its copy of the descriptor.
		return errors.Join(flock(f, syscall.LOCK_UN), f.Close())
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return info, release, nil
}

// cannotLock reports whether err means that this file system does not lock directories.
// NFS turns flock into a record lock, which needs the file open for writing. Others
// have no flock.
func cannotLock(err error) bool {
	for _, of := range [...]error{syscall.EBADF, syscall.ENOLCK, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOSYS} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
