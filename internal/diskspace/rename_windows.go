package diskspace

import (
	"os"
	"syscall"
)

// renameNew uses MoveFile, which replaces nothing. os.Rename tells MoveFileEx to
// replace.
func renameNew(from, to string) error {
	old, err := syscall.UTF16PtrFromString(from)
	if err == nil {
		var name *uint16
		if name, err = syscall.UTF16PtrFromString(to); err == nil {
			err = syscall.MoveFile(old, name)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "MoveFile", Old: from, New: to, Err: err}
	}
	return nil
}
