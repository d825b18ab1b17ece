// Package diskspace asks the operating system what a store's engine does not tell.
package diskspace

import (
	"fmt"
	"os"
	"runtime"

	"github.com/idemkv/idem/engine"
)

// Free returns the bytes free to this user on the file system of dir; false where
// that cannot be told: then nobody is refused for lack of it.
func Free(dir string) (uint64, bool) { return free(dir) }

// SyncDir makes the names in dir durable, where the operating system has that.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// Room returns an error that wraps idem.ErrFull when fewer than least bytes are
// free where dir is. least below zero: it is not checked.
func Room(dir string, least int64) error {
	if least < 0 {
		return nil
	}
	if n, known := Free(dir); known && n < uint64(least) {
		return fmt.Errorf("%w: %d bytes are free on the disk of %s, Options.MinFree is %d; free some, or lower it",
			engine.ErrFull, n, dir, least)
	}
	return nil
}
