package diskspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Identity is the file or directory that a path named when a store was opened. A
// lock on an open file says nothing about the path: once the file has been moved,
// removed or replaced, another process can open or make a store at the path, and
// both would grant the same keys.
type Identity struct {
	path string // absolute, so that changing directory does not matter
	info fs.FileInfo
}

// Identify returns the identity of what path names now.
func Identify(path string) (*Identity, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, err
	}
	// Windows looks up what a FileInfo is of by its name, when it is first compared: that
	// must be now and not when something else has the name.
	os.SameFile(info, info)
	return &Identity{path: abs, info: info}, nil
}

// Is reports whether info, of an open file, is of the same file or directory.
func (id *Identity) Is(info fs.FileInfo) bool { return os.SameFile(id.info, info) }

// Check returns an error if the path names something else now, or nothing. It is
// nil when the path cannot be looked up for another reason: dropped privileges or a
// network file system that does not answer do not mean that the file moved.
func (id *Identity) Check() error {
	info, err := os.Stat(id.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s was moved or removed while the store was open; put it back and restart the process", id.path)
	case err != nil || os.SameFile(id.info, info):
		return nil
	}
	return fmt.Errorf("%s was replaced while the store was open; restore the file it was opened on and restart the process", id.path)
}
