//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package diskspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"github.com/idemkv/idem/engine"
)

func lockDir(string, bool) (fs.FileInfo, func() error, error) {
	return nil, func() error { return nil }, nil
}

const windowsSharingViolation = syscall.Errno(32)

// shareFile opens the file. On Windows that is all: a writer opens it shared with nobody.
func shareFile(path string) (io.Closer, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nothing{}, nil
	case runtime.GOOS == "windows" && errors.Is(err, windowsSharingViolation):
		return nil, fmt.Errorf("%w: %s; close it there", engine.ErrLocked, path)
	case err != nil:
		return nil, err
	}
	return f, nil
}
