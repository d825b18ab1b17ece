package pebble

import (
	"errors"
	"math"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFile is a log that Pebble writes. Where a write makes a file longer, or goes into
// blocks that are only allocated, a sync writes the file system's journal too. Pebble
// avoids that by using old logs again, once it has some. Until then, and behind the end
// of an old log that was shorter, zeros are written ahead of the log's end here, and most
// syncs find blocks that were written before. Pebble reads zeros as the end of a log.
//
// The zeros go page by page. One large write makes one large folio in the page cache of
// Linux, and each later write into it counts as a write of the whole folio: with 256 KiB
// at a time, a claim and its completion counted as 525 KB in /proc/self/io, where bare
// Pebble counts 8.8 KB, and by pages they count 9.4 KB. (What reached the disk was the
// same; limits and bills go by what is counted.)
//
// Measured on ext4: a durable claim and completion of one caller took 0.54 ms without
// zeros where two bare synced commits took 0.43 ms, and in another run 0.31 ms with them,
// where those took 0.39 ms (medians).
type logFile struct {
	guardedFile
	ahead  int   // how many bytes of zeros are written at a time, whole pages
	at     int64 // where Write writes
	zeroed int64 // up to where the file was written
}

const (
	// zeroAhead is how many bytes of zeros are written at a time. One sync in about 200
	// of a lone caller grows the file then. Each commit of several hundred callers does,
	// and waits for no more zeros than it writes itself.
	zeroAhead = 64 << 10
	// zeroPage is the largest piece in which they are written.
	zeroPage = 4 << 10
)

// zeroAheadInMemory is for file systems of tests: Pebble's grows a file byte by byte.
const zeroAheadInMemory = 2 * zeroPage

var zeros [zeroPage]byte

func isLogName(name string) bool { return strings.HasSuffix(name, ".log") }

// newLog returns a log over f, which may be an old one that is used again.
func (g *guardedFS) newLog(f vfs.File, name string) vfs.File {
	l := &logFile{guardedFile: guardedFile{File: f, name: name, fatal: g.fatal, open: &g.open}, ahead: g.ahead}
	if info, err := f.Stat(); err == nil {
		l.zeroed = info.Size()
	}
	return l
}

func (f *logFile) Write(p []byte) (int, error) {
	f.fatal.begin()
	if f.at+int64(len(p)) > f.zeroed {
		f.fatal.end("writing", f.name, f.zero())
	}
	n, err := f.File.Write(p)
	f.at += int64(n)
	f.fatal.end("writing", f.name, err)
	return n, nil
}

// zero writes zeros where the next writes will go. Where there is no room for them it
// leaves that be: there may be enough for the log. (What it could write of them stays,
// and a disk may be full by 64 KiB sooner for everybody else: Options.MinFree is far
// more.)
func (f *logFile) zero() error {
	at := max(f.zeroed, f.at)
	end := at + int64(f.ahead)
	end -= end % zeroPage
	f.zeroed = end
	for at < end {
		piece := zeros[:zeroPage-at%zeroPage]
		if _, err := f.File.WriteAt(piece, at); err != nil {
			if noRoom(err) {
				f.zeroed, err = math.MaxInt64, nil
			}
			return err
		}
		at += int64(len(piece))
	}
	return nil
}

// noRoom reports whether err says that a file cannot grow: the disk or a quota is
// full, or a limit of the process is reached.
func noRoom(err error) bool {
	return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT)
}
