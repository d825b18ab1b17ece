package bolt

import (
	"errors"
	"strings"
	"syscall"
)

// diskErrors are what a disk, or the memory to map it, can lack.
var diskErrors = [...]syscall.Errno{
	syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.ENOMEM,
}

// caused is an error whose cause was only in its text.
type caused struct {
	error
	cause syscall.Errno
}

func (c *caused) Unwrap() []error { return []error{c.error, c.cause} }

// withCause returns err so that errors.Is finds what it tells of: of what fails while
// the file or its map grows, bbolt gives the words alone.
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
