package bolt

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"time"

	"github.com/idemkv/idem"
)

// Options configures Open. The zero value is good.
type Options struct {
	// FileMode is the mode of a file that is created. Default 0600.
	FileMode os.FileMode
	// LockTimeout is how long Open waits for the lock of a file that is open elsewhere
	// before it returns idem.ErrLocked. Default 1 s.
	LockTimeout time.Duration
	// MapSize is the initial size of the memory map, in bytes. Growing the map waits for
	// all readers and blocks new ones, while a larger map costs only address space.
	// Default 64 MiB on 64-bit systems; 0 bytes on 32-bit ones and on Windows, where the
	// file itself would take that size.
	MapSize int
	// MaxSize bounds the bytes in use in the file. Past it, new claims get idem.ErrFull.
	// Token operations are never refused, so the results of claims in flight may
	// overshoot it. Default 0: no bound. With a bound, bbolt keeps statistics, which
	// costs each read two uncontended locks.
	MaxSize int64
	// MinFree is how many bytes must be free on the file system for a new claim. With
	// less, it gets idem.ErrFull, which leaves room for the results of claims in flight.
	// Default 16 MiB; negative: not checked. It is also not checked where free space
	// cannot be determined (Windows).
	MinFree int64
	// ReadOnly opens an existing store for reading and changes nothing, not even a time
	// stamp. The store made on it refuses every change with idem.ErrInvalid. Several
	// processes may have a store open read-only at once; while one does, nobody can open it
	// for writing, and the reverse. A file that is damaged opens if its meta page can be
	// read: Backend.Verify tells what is left. Default false.
	ReadOnly bool
}

const defaultMinFree = 16 << 20

func (o Options) withDefaults() (Options, error) {
	if o.LockTimeout < 0 || o.MapSize < 0 || o.MaxSize < 0 {
		return o, fmt.Errorf("%w: bolt.Options: LockTimeout %v, MapSize %d and MaxSize %d cannot be negative",
			idem.ErrInvalid, o.LockTimeout, o.MapSize, o.MaxSize)
	}
	if o.FileMode == 0 {
		o.FileMode = 0o600
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Second
	}
	if o.MapSize == 0 && bits.UintSize == 64 && runtime.GOOS != "windows" {
		o.MapSize = 64 << 20
	}
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	return o, nil
}
