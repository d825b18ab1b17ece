package pebble

import (
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// isLocked reports whether err of pebble.LockDirectory means that somebody else has
// the lock. The file system answers with a bare number; a permission that lacks
// would come wrapped with the file's name.
func isLocked(err error) bool {
	const windowsSharingViolation = 32
	if n, ok := err.(syscall.Errno); ok {
		return n == syscall.EAGAIN || n == syscall.EACCES
	}
	return strings.Contains(err.Error(), "held by current process") ||
		runtime.GOOS == "windows" && strings.Contains(err.Error(), syscall.Errno(windowsSharingViolation).Error())
}

// canonical is dir by the one name that all ways to it share: Pebble's lock within
// a process goes by name, so that one directory under two would be opened twice.
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
