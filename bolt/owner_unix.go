//go:build unix

package bolt

import (
	"fmt"
	"os"
	"syscall"
)

// sameOwner gives the file at path the owner of like. An operator who compacts the store of
// a service must not take it from the service.
func sameOwner(path string, like *os.File) error {
	info, err := like.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	want, ok := info.Sys().(*syscall.Stat_t)
	is, also := now.Sys().(*syscall.Stat_t)
	if !ok || !also || want.Uid == is.Uid && want.Gid == is.Gid {
		return nil
	}
	if err := os.Chown(path, int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the new file cannot be given the owner of the old one; run this as that user, or as root: %w", err)
	}
	return nil
}
