package pebble

import (
	"errors"
	"math"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFile is a new log. Where a write makes a file longer, or goes into blocks that
// are only allocated, a sync writes the file system's journal too. Pebble avoids that
// by using logs again, once it has old ones; a new one is written over with zeros
// here, a piece ahead of the log's end, so that most syncs find blocks that were
// written before. Pebble reads zeros as the end of a log.
//
// Measured on ext4: a durable claim and completion of one caller took 0.54 ms without it
// where two bare synced commits took 0.43 ms, and in another run 0.31 ms with it, where
// those took 0.39 ms (medians).
type logFile struct {
	guardedFile
	ahead  int   // how many zeros are written at a time, zeroAhead at most
	at     int64 // where Write writes
	zeroed int64 // up to where zeros were written
}

const (
	// zeroAhead is how many zeros are written at a time. One commit of several hundred
	// waits for them.
	zeroAhead = 256 << 10
	// zeroUpTo is the largest write that is prepared for: what a larger one takes, the
	// journal adds little to.
	zeroUpTo = 32 << 10
)

// zeroAheadInMemory is for file systems of tests: Pebble's grows a file byte by byte.
const zeroAheadInMemory = 8 << 10

var zeros [zeroAhead]byte

func isLogName(name string) bool { return strings.HasSuffix(name, ".log") }

func (f *logFile) Write(p []byte) (int, error) {
	f.fatal.begin()
	if f.at+int64(len(p)) > f.zeroed && len(p) <= zeroUpTo {
		if err := f.zero(); err != nil {
			return 0, f.fatal.end("writing", f.name, err)
		}
	}
	n, err := f.File.Write(p)
	f.at += int64(n)
	return n, f.fatal.end("writing", f.name, err)
}

// zero writes zeros where the next writes will go. Where there is no room for them it
// leaves that be: there may be enough for the log. (What it could write of them stays,
// so that a disk may be full by 256 KiB sooner for everybody else: Options.MinFree is far
// more.)
func (f *logFile) zero() error {
	from := max(f.zeroed, f.at)
	_, err := f.File.WriteAt(zeros[:f.ahead], from)
	f.zeroed = from + int64(f.ahead)
	if noRoom(err) {
		f.zeroed, err = math.MaxInt64, nil
	}
	return err
}

// noRoom reports whether err says that a file cannot grow: the disk or a quota is
// full, or a limit of the process is reached.
func noRoom(err error) bool {
	return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT)
}
