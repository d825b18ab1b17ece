package pebble

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// patientFS tries again when the process or the system has no file descriptor left.
//
// A service runs out of descriptors when many clients connect at once, and seconds
// later it has some again. Nothing was opened and nothing changed, so nothing is wrong
// with the database. But Pebble opens files for new logs, flushes, compactions and
// tables it has not read lately, and the first failure of the former would stop it until
// the process ends; see guardedFS. A commit that waits here too long breaks the store as
// any other does; see idem.Options.Stall.
type patientFS struct {
	vfs.FS
	attempts int             // how often one operation is tried
	over     <-chan struct{} // closed when trying is of no more use
	stayed   func() error    // after a pause, the directory may be another one
}

// The pauses between attempts begin at firstPause and double up to lastPause, as those
// of net/http's Server between its attempts to accept. Together they make half a minute.
const (
	fileAttempts = 120
	firstPause   = time.Millisecond
	lastPause    = 256 * time.Millisecond
)

var _ vfs.FS = patientFS{}

// noDescriptor reports whether err says that there is none left.
func noDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// try calls do until it does not fail for lack of a descriptor.
func (p patientFS) try(do func() error) error {
	pause := firstPause
	for n := 1; ; n++ {
		err := do()
		if err == nil || !noDescriptor(err) || n >= p.attempts {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.over:
			timer.Stop()
			return err
		}
		if err := p.stayed(); err != nil {
			return err
		}
		pause = min(2*pause, lastPause)
	}
}

func (p patientFS) file(open func() (vfs.File, error)) (f vfs.File, err error) {
	err = p.try(func() error {
		f, err = open()
		return err
	})
	return f, err
}

// Unwrap implements vfs.FS.
func (p patientFS) Unwrap() vfs.FS { return p.FS }

// Create implements vfs.FS.
func (p patientFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return p.file(func() (vfs.File, error) { return p.FS.Create(name, category) })
}

// Open implements vfs.FS.
func (p patientFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.file(func() (vfs.File, error) { return p.FS.Open(name, opts...) })
}

// OpenReadWrite implements vfs.FS.
func (p patientFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.file(func() (vfs.File, error) { return p.FS.OpenReadWrite(name, category, opts...) })
}

// OpenDir implements vfs.FS.
func (p patientFS) OpenDir(name string) (vfs.File, error) {
	return p.file(func() (vfs.File, error) { return p.FS.OpenDir(name) })
}

// ReuseForWrite implements vfs.FS. The file may have its new name already when it cannot
// be opened. A new one does as well.
func (p patientFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := p.FS.ReuseForWrite(old, name, category)
	if err == nil || !noDescriptor(err) {
		return f, err
	}
	if err := p.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return p.Create(name, category)
}

// List implements vfs.FS.
func (p patientFS) List(dir string) (names []string, err error) {
	err = p.try(func() error {
		names, err = p.FS.List(dir)
		return err
	})
	return names, err
}
