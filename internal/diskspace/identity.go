package diskspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Identity is the file or directory that a path named when a store was opened. A lock
// on an open file says nothing about the path. Once the file has been moved, removed or
// replaced, another process can open or create a store at the path, and both would
// grant the same keys.
type Identity struct {
	path   string // absolute: changing directory does not matter
	info   fs.FileInfo
	linked bool // it had names, and the file system counts them
}

// Identify returns the identity of the file or directory that path names now.
func Identify(path string) (*Identity, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, err
	}
	// Windows looks up the file of a FileInfo by name on its first comparison. Do that
	// now, before another file can have the name.
	os.SameFile(info, info)
	names, counted := links(info)
	return &Identity{path: abs, info: info, linked: counted && names > 0}, nil
}

// Is reports whether info, of an open file, describes the same file or directory.
func (id *Identity) Is(info fs.FileInfo) bool { return os.SameFile(id.info, info) }

// Check returns an error if the path now names something else, or nothing. It returns
// nil if the path cannot be looked up for another reason. Dropped privileges or a
// network file system that does not answer do not mean that the file moved.
func (id *Identity) Check() error {
	info, err := os.Stat(id.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s was moved or removed while the store was open; put it back and restart the process", id.path)
	case err != nil:
		return nil
	case os.SameFile(id.info, info):
		// Through a bind mount, as containers have them, a removed file keeps its path.
		if names, _ := links(info); id.linked && names == 0 {
			return fmt.Errorf("%s was removed or replaced beneath its mount while the store was open; "+
				"mount the directory instead of the file, and restart the process", id.path)
		}
		return nil
	}
	return fmt.Errorf("%s was replaced while the store was open; restore the file it was opened on and restart the process", id.path)
}
