package pebble

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/diskspace"
)

// held is the lock on a store's directory, from before anything in it is changed until
// the last Pebble that may still write there is done with it.
//
// Pebble's own lock is a POSIX record lock on the file LOCK. It is lost when any
// descriptor of that file is closed in the process, as a backup does that reads the
// directory, or when the file is removed, and it goes by name within a process. It is
// taken as well: for file systems that cannot lock directories, and for Pebble's tools.
type held struct {
	refs  atomic.Int32
	dir   *diskspace.DirLock    // nil on a file system of tests
	paths []*diskspace.Identity // where the database must still be
}

// hold locks the database at path, which a caller has named as named.
func hold(path, named string, f vfs.FS) (*held, error) {
	h := &held{}
	h.refs.Store(1)
	if f != vfs.Default {
		return h, nil
	}
	dir, err := diskspace.LockDir(path)
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", filepath.Dir(path), err)
	}
	h.dir, h.paths = dir, []*diskspace.Identity{dir.Identity}
	if abs, err := filepath.Abs(named); err == nil && abs != path {
		// A symbolic link, say, that may be made to lead to another store.
		id, err := diskspace.Identify(abs)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("idem: opening %s: %w", named, err), h.Close())
		}
		h.paths = append(h.paths, id)
	}
	return h, nil
}

// moved returns an error if the database is not any more where it was opened.
func (h *held) moved() error {
	for _, id := range h.paths {
		if err := id.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the lock up when all who hold it have closed it.
func (h *held) Close() error {
	if h.refs.Add(-1) > 0 || h.dir == nil {
		return nil
	}
	return h.dir.Close()
}

// dbLock is what one opened Pebble holds: its own lock, and a share of held.
type dbLock struct {
	*held
	pebble *pebble.Lock
}

// lockDB takes Pebble's lock of the database at path. It is taken before pebble.Open,
// which would leave a goroutine behind if it cannot have it.
func (h *held) lockDB(dir, path string, f vfs.FS) (*dbLock, error) {
	l, err := pebble.LockDirectory(path, f)
	switch {
	case err != nil && isLocked(err):
		return nil, fmt.Errorf("%w: %s; close it there: %w", idem.ErrLocked, dir, err)
	case err != nil:
		return nil, fmt.Errorf("idem: locking %s: %w", dir, err)
	}
	h.refs.Add(1)
	return &dbLock{held: h, pebble: l}, nil
}

func (l *dbLock) Close() error { return errors.Join(l.pebble.Close(), l.held.Close()) }

const windowsSharingViolation = syscall.Errno(32)

// isLocked reports whether err of pebble.LockDirectory means that somebody else has
// the lock. The file system answers with a bare number; a permission that lacks
// would come wrapped with the file's name.
func isLocked(err error) bool {
	if n, ok := err.(syscall.Errno); ok { //nolint:errorlint // a wrapped one means something else
		return n == syscall.EAGAIN || n == syscall.EACCES
	}
	return strings.Contains(err.Error(), "held by current process") ||
		runtime.GOOS == "windows" && strings.Contains(err.Error(), windowsSharingViolation.Error())
}

// canonical is dir by the one name that all ways to it share: Pebble's lock within
// a process goes by name, and one directory under two would be opened twice where
// directories cannot be locked.
func canonical(dir string, f vfs.FS) (string, error) {
	if f != vfs.Default {
		return dir, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
