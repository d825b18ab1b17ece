package bolt

import (
	"errors"
	"strings"
	"syscall"
)

// diskErrors are the errors of a disk, or of the memory to map it.
var diskErrors = [...]syscall.Errno{
	syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.ENOMEM,
}

// caused is an error whose cause was only in its text. It adds that cause.
type caused struct {
	error
	cause syscall.Errno
}

func (c *caused) Unwrap() []error { return []error{c.error, c.cause} }

// withCause lets errors.Is find the cause of err. If the file or its map cannot grow,
// bbolt returns only a text.
func withCause(err error) error {
	var number syscall.Errno
	if err == nil || errors.As(err, &number) {
		return err
	}
	for _, n := range diskErrors {
		if strings.HasSuffix(err.Error(), n.Error()) {
			return &caused{error: err, cause: n}
		}
	}
	return err
}
