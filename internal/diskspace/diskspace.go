// Package diskspace is what engines on disk ask of a file system besides reading and
// writing: its free space, durable names, locks on directories, the identity of a file,
// and a rename that replaces nothing.
package diskspace

import (
	"fmt"
	"os"
	"runtime"

	"github.com/idemkv/idem/engine"
)

// Free returns the bytes free to this user on the file system of dir. It returns false
// if that cannot be determined; nothing is then refused for lack of space.
func Free(dir string) (uint64, bool) { return free(dir) }

// SyncDir makes the names in dir durable, where the operating system supports that.
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

// Room returns an error that wraps idem.ErrFull when fewer than least bytes are free on
// the file system of dir. A negative least is not checked.
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
