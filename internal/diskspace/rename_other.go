//go:build !linux && !darwin && !windows

package diskspace

import (
	"errors"
	"os"
)

func renameNew(from, to string) error {
	return &os.LinkError{Op: "rename without replacing", Old: from, New: to, Err: errors.ErrUnsupported}
}
