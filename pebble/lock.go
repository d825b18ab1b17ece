package pebble

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/diskspace"
)

// held is the lock on a store's directory. It is held from before anything there is
// changed until the last Pebble that may still write there is done.
//
// Pebble's own lock is a POSIX record lock on the file LOCK. It is lost when the
// process closes any descriptor of that file, as a backup that reads the directory
// does, or when the file is removed. Within a process it goes by name. It is taken as
// well, for file systems that cannot lock directories and for Pebble's tools.
type held struct {
	refs  atomic.Int32
	dir   *diskspace.DirLock    // nil on a test's file system
	paths []*diskspace.Identity // where the database must still be found
}

// hold locks the database at path, which the caller named as named.
func hold(path, named string, o Options) (*held, error) {
	h := &held{}
	h.refs.Store(1)
	if o.fs != vfs.Default {
		return h, nil
	}
	lock := diskspace.LockDir
	if o.ReadOnly {
		lock = diskspace.ShareDir
	}
	var dir *diskspace.DirLock
	err := o.waitForLock(func() (err error) {
		dir, err = lock(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", filepath.Dir(path), err)
	}
	h.dir, h.paths = dir, []*diskspace.Identity{dir.Identity}
	if abs, err := filepath.Abs(named); err == nil && abs != path {
		// For instance a symbolic link, which may later lead to another store.
		id, err := diskspace.Identify(abs)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("idem: opening %s: %w", named, err), h.Close())
		}
		h.paths = append(h.paths, id)
	}
	return h, nil
}

// lockPoll is how often a lock that somebody else has is tried again.
const lockPoll = 25 * time.Millisecond

// waitForLock calls lock until it has the lock or LockTimeout has passed.
func (o Options) waitForLock(lock func() error) error {
	for begun := time.Now(); ; time.Sleep(lockPoll) {
		err := lock()
		if err == nil || !errors.Is(err, idem.ErrLocked) {
			return err
		}
		if time.Since(begun) >= o.LockTimeout {
			return fmt.Errorf("%w, or wait longer with Options.LockTimeout (%v)", err, o.LockTimeout)
		}
	}
}

// moved returns an error if the database is no longer where it was opened.
func (h *held) moved() error {
	for _, id := range h.paths {
		if err := id.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the lock once every holder has closed it.
func (h *held) Close() error {
	if h.refs.Add(-1) > 0 || h.dir == nil {
		return nil
	}
	return h.dir.Close()
}

// dbLock is what one open Pebble holds: its own lock, and a share of held.
type dbLock struct {
	*held
	pebble *pebble.Lock
}

// lockDB takes Pebble's lock of the database at path. It must be taken before
// pebble.Open, which would leave a goroutine behind if it could not get it.
func (h *held) lockDB(dir, path string, o Options) (*dbLock, error) {
	var l *pebble.Lock
	err := o.waitForLock(func() (err error) {
		l, err = pebble.LockDirectory(path, o.fs)
		switch {
		case err == nil || errors.Is(err, idem.ErrLocked):
			return err
		case isLocked(err):
			return fmt.Errorf("%w: %s (%w); close it there", idem.ErrLocked, dir, err)
		}
		return fmt.Errorf("idem: locking %s: %w", dir, err)
	})
	if err != nil {
		return nil, err
	}
	h.refs.Add(1)
	return &dbLock{held: h, pebble: l}, nil
}

func (l *dbLock) Close() error { return errors.Join(l.pebble.Close(), l.held.Close()) }

const windowsSharingViolation = syscall.Errno(32)

// isLocked reports whether err from pebble.LockDirectory means that someone else has
// the lock. The file system then returns a bare number; a missing permission would come
// wrapped with the file's name.
func isLocked(err error) bool {
	if n, ok := err.(syscall.Errno); ok { //nolint:errorlint // a wrapped one means something else
		return n == syscall.EAGAIN || n == syscall.EACCES
	}
	return strings.Contains(err.Error(), "held by current process") ||
		runtime.GOOS == "windows" && strings.Contains(err.Error(), windowsSharingViolation.Error())
}

// canonical returns the one name of dir that all paths to it share. Pebble's lock
// within a process goes by name. Where directories cannot be locked, a directory with
// two names could otherwise be opened twice.
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
