package peers

import (
	"os"
	"syscall"
)

// datasync is the fdatasync that bbolt and Pebble use here.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
