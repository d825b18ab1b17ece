//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// mayOwn refuses to let root change a Pebble store that is another user's: the files that
// Pebble makes would be root's, and the service could not open its store any more.
func mayOwn(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return failed(err, "looking at %s", path)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && s.Uid != 0 {
		return &failure{
			exitRefused, "opening " + path,
			fmt.Errorf("it belongs to user %d, and what root writes there that user may not be able to read", s.Uid),
			fmt.Sprintf("run this as that user: sudo -u '#%d' idem …", s.Uid),
		}
	}
	return nil
}
