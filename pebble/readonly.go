package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/diskspace"
)

// openReadOnly opens the store in dir, which must be there, without changing anything.
func openReadOnly(dir string, o Options) (e *driver, err error) {
	named := dir
	made, err := inspect(dir, o.fs)
	if err == nil && !made {
		if _, err = o.fs.Stat(dir); err == nil {
			return nil, fmt.Errorf("%w: there is no store in %s", idem.ErrInvalid, dir)
		}
		err = fmt.Errorf("idem: opening %s read-only: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	if dir, err = canonical(dir, o.fs); err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", named, err)
	}
	path := o.fs.PathJoin(dir, dbName)
	if _, err := o.fs.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, missingDB(dir)
	}
	h, err := hold(path, o.fs.PathJoin(named, dbName), o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	o.fs = readOnlyFS{o.fs}
	lock, err := h.lockDB(dir, path, o)
	if err != nil {
		return nil, err
	}
	if err := checkLog(dir, o.fs); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	f := newFatal()
	e = &driver{dir: dir, opts: o, fatal: f, lock: lock, files: &guardedFS{}, damagedBound: damagedBound, tableBytes: tableBytes}
	e.readers.Init(e.openReader, (*reader).close)
	po := pebbleOptions(o, f, lock)
	po.FS = o.fs
	po.ErrorIfNotExists, po.ReadOnly = true, true
	po.EventListener = f.listener()
	po.Experimental.CompactionScheduler = &e.compactions
	if e.db, err = openGuarded(path, po, f, lock.Close); err != nil {
		return nil, openError(dir, err)
	}
	// A damaged meta entry is for Bind to report, and for Verify.
	if err := e.verify(); err != nil && !errors.Is(err, idem.ErrCorrupt) {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// readOnlyFS is a file system that is only read. Pebble writes nothing that it opens for
// reading, but its lock would truncate a file, and so change its time.
type readOnlyFS struct{ vfs.FS }

var errReadOnly = fmt.Errorf("%w: the store was opened read-only", idem.ErrInvalid)

// Unwrap implements vfs.FS.
func (r readOnlyFS) Unwrap() vfs.FS { return r.FS }

// Lock implements vfs.FS.
func (r readOnlyFS) Lock(name string) (io.Closer, error) {
	if r.FS == vfs.Default {
		return diskspace.ShareFile(name)
	}
	return r.FS.Lock(name)
}

// Create implements vfs.FS.
func (readOnlyFS) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errReadOnly }

// OpenReadWrite implements vfs.FS.
func (readOnlyFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errReadOnly
}

// ReuseForWrite implements vfs.FS.
func (readOnlyFS) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errReadOnly
}

// Link implements vfs.FS.
func (readOnlyFS) Link(string, string) error { return errReadOnly }

// Remove implements vfs.FS.
func (readOnlyFS) Remove(string) error { return errReadOnly }

// RemoveAll implements vfs.FS.
func (readOnlyFS) RemoveAll(string) error { return errReadOnly }

// Rename implements vfs.FS.
func (readOnlyFS) Rename(string, string) error { return errReadOnly }

// MkdirAll implements vfs.FS.
func (readOnlyFS) MkdirAll(string, os.FileMode) error { return errReadOnly }
