package pebble

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
)

// Options configures Open. The zero value is good.
type Options struct {
	// CacheBytes is the size of Pebble's block cache. Default 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of a memtable. Writes collect in one, which is flushed
	// to a table when it is full; up to four are kept. Default 16 MiB.
	MemTableBytes int64
	// MinFree is how many bytes must be free on the file system for a new claim. With
	// less, it gets idem.ErrFull, which leaves room for the results of claims in flight,
	// flushes and compactions. Default 128 MiB; negative: not checked. It is also not
	// checked where free space cannot be determined (Windows).
	MinFree int64
	// LockTimeout is how long Open waits for the lock of a directory that is open elsewhere
	// before it returns idem.ErrLocked. Default 1 s.
	LockTimeout time.Duration
	// ReadOnly opens an existing store for reading and changes nothing in its directory,
	// not even a time stamp. What is only in the log is read into memory. The store made on
	// it refuses every change with idem.ErrInvalid. Several processes may have a store open
	// read-only at once; while one does, nobody can open it for writing, and the reverse.
	// Damage that lets Pebble open is no reason to refuse: Backend.Verify tells what is
	// left. (Where directories cannot be locked, as on some network file systems, do not
	// open read-only what the same process has open for writing.) Default false.
	ReadOnly bool

	fs    vfs.FS // for tests; nil: the operating system's
	pause func() // for tests; see fatal.pause
}

const (
	defaultCacheBytes    = 64 << 20
	defaultMemTableBytes = 16 << 20
	defaultMinFree       = 128 << 20
	// maxMemTableBytes is the most that Pebble accepts.
	maxMemTableBytes = 1 << 30
)

func (o Options) withDefaults() (Options, error) {
	if o.CacheBytes < 0 || o.MemTableBytes < 0 || o.MemTableBytes > maxMemTableBytes {
		return o, fmt.Errorf("%w: pebble.Options: CacheBytes %d and MemTableBytes %d must be from 0, the latter at most %d",
			idem.ErrInvalid, o.CacheBytes, o.MemTableBytes, maxMemTableBytes)
	}
	if o.LockTimeout < 0 {
		return o, fmt.Errorf("%w: pebble.Options: LockTimeout %v cannot be negative", idem.ErrInvalid, o.LockTimeout)
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Second
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o, nil
}
