//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package diskspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/idemkv/idem/engine"
)

// lockDir locks dir with flock(2), which belongs to the open file. A POSIX record lock
// would be dropped when the process closes any descriptor of the directory.
func lockDir(dir string, shared bool) (info fs.FileInfo, release func() error, err error) {
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	return lockDirBy(dir, how, flock)
}

func lockDirBy(dir string, how int, flock func(f *os.File, how int) error) (info fs.FileInfo, release func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	none := func() error { return nil }
	switch err := flock(f, how|syscall.LOCK_NB); {
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

func shareFile(path string) (io.Closer, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing{}, nil
	}
	if err != nil {
		return nil, err
	}
	spec := syscall.Flock_t{Type: syscall.F_RDLCK}
	switch err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &spec); {
	case err == nil || cannotLock(err):
		return f, nil
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES):
		return nil, errors.Join(fmt.Errorf("%w: %s; close it there", engine.ErrLocked, path), f.Close())
	default:
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
