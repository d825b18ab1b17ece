package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardedFS stops Pebble's writing at the first write that fails, without ending the
// process.
//
// Left alone, Pebble reacts to a failing disk in three ways. If a log or a directory
// fails, it panics, on its own goroutines or with its mutex in a state in which the
// runtime ends the process even if the panic is recovered. If a manifest fails, it
// calls Fatalf and, if that returns, goes on to write edits that refer to the lost one;
// the store can then no longer be opened. If a table fails, it retries forever.
//
// So a failed operation that changes files breaks the store and parks its goroutine for
// good. So does every later one. The disk then holds what a crash at that moment would
// have left, callers get idem.ErrBroken, and Close leaves Pebble behind.
//
// An error is returned only where every caller in Pebble v2.1.7 is prepared for one,
// and there every error is:
//
//   - Remove, of obsolete tables, logs, manifests, options and markers: Pebble goes on, and
//     removes them when it is next opened. A virus scanner may hold them. Of temporary
//     files and old markers while opening: Open reports it.
//   - ReuseForWrite of an old log that is gone or held: a new log does as well. Pebble
//     itself would panic.
//   - Link, which only checkpoints use: Pebble copies instead.
//   - MkdirAll and OpenDir, of the directory while it is opened: Open reports it.
//   - Everything that only reads. A missing table is damage to its reader. List is an
//     exception while Pebble is opening.
//
// Nowhere else does Pebble expect that a file does not exist, or exists.
//
// Files outside the directory belong to a checkpoint, and none of this applies to them: a
// full disk for backups breaks nothing.
type guardedFS struct {
	vfs.FS
	dir    string // of the database
	fatal  *fatal
	tables atomic.Bool  // a table was made
	opened atomic.Bool  // Pebble is open
	log    string       // the last log made before that
	open   atomic.Int64 // number of files open for writing
	ahead  int          // see logFile
	moved  func() error
}

// begin returns if the file system may still be changed. Otherwise it never returns.
func (f *fatal) begin() {
	select {
	case <-f.heard:
		select {}
	default:
	}
}

// end does not return if the operation failed.
func (f *fatal) end(doing, name string, err error) {
	if err != nil {
		f.set(fmt.Errorf("%s %s: %w", doing, name, err))
		select {}
	}
}

// begin is fatal.begin for operations by path. If the directory was moved or replaced,
// it never returns: Pebble would make, rename or remove files in someone else's
// database.
func (g *guardedFS) begin() {
	g.fatal.begin()
	if g.stayed() != nil {
		select {}
	}
}

// stayed returns an error, and breaks the store, if the directory was moved.
func (g *guardedFS) stayed() error {
	err := g.moved()
	if err != nil {
		g.fatal.set(err)
	}
	return err
}

// ours reports whether name is the database's directory or directly in it.
func (g *guardedFS) ours(name string) bool { return name == g.dir || g.PathDir(name) == g.dir }

// Unwrap implements vfs.FS.
func (g *guardedFS) Unwrap() vfs.FS { return g.FS }

// Open implements vfs.FS. Pebble opens tables when it first reads them. They must not
// be another database's.
func (g *guardedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	if err := g.stayed(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Create implements vfs.FS.
func (g *guardedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !g.ours(name) {
		return g.FS.Create(name, category)
	}
	g.begin()
	return g.create(name, category), nil
}

func (g *guardedFS) create(name string, category vfs.DiskWriteCategory) vfs.File {
	g.fatal.end("syncing the directory of", name, g.beforeMarker(name))
	if strings.HasSuffix(name, ".sst") {
		g.tables.Store(true)
	}
	f, err := g.FS.Create(name, category)
	g.fatal.end("making", name, err)
	return g.guard(f, name)
}

// beforeMarker makes the directory durable before a marker is made in it. A marker's
// name names another file, the manifest in use. Pebble makes both durable with one sync
// of the directory, after making the marker. A power cut just before that sync may
// leave the marker alone, and the database could no longer be opened.
func (g *guardedFS) beforeMarker(name string) error {
	if !strings.HasPrefix(g.PathBase(name), "marker.") {
		return nil
	}
	return syncDir(g.FS, g.PathDir(name))
}

// List implements vfs.FS. Towards the end of opening, Pebble lists its directory once
// more. If that fails it gives up and takes away what its goroutines still use to look
// at the tables it has just flushed; they panic. Later it lists only to complete the
// text of a read error.
func (g *guardedFS) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	if g.tables.Load() && !g.opened.Load() {
		g.fatal.end("listing", dir, err)
	}
	return names, err
}

// OpenReadWrite implements vfs.FS.
func (g *guardedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if !g.ours(name) {
		return g.FS.OpenReadWrite(name, category, opts...)
	}
	g.begin()
	f, err := g.FS.OpenReadWrite(name, category, opts...)
	g.fatal.end("opening", name, err)
	return g.guard(f, name), nil
}

// ReuseForWrite implements vfs.FS. Only old logs are reused.
func (g *guardedFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	g.begin()
	f, err := g.FS.ReuseForWrite(old, name, category)
	if errors.Is(err, fs.ErrNotExist) || isHeld(err) {
		_ = g.FS.Remove(old) // if it is there; opening removes it otherwise
		return g.create(name, category), nil
	}
	g.fatal.end("reusing "+old+" as", name, err)
	return g.guard(f, name), nil
}

// isHeld reports whether err says that someone else keeps the file from being touched
// just now.
func isHeld(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EBUSY) ||
		runtime.GOOS == "windows" && errors.Is(err, windowsSharingViolation)
}

// OpenDir implements vfs.FS.
func (g *guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil || !g.ours(name) {
		return f, err
	}
	return &guardedFile{File: f, name: name, fatal: g.fatal, open: new(atomic.Int64)}, nil
}

func (g *guardedFS) guard(f vfs.File, name string) vfs.File {
	g.open.Add(1)
	if isLogName(name) {
		if !g.opened.Load() {
			g.log = name
		}
		return g.newLog(f, name)
	}
	return &guardedFile{File: f, name: name, fatal: g.fatal, open: &g.open}
}

// Link implements vfs.FS.
func (g *guardedFS) Link(old, name string) error {
	if err := g.stayed(); err != nil {
		return err
	}
	return g.FS.Link(old, name)
}

// Remove implements vfs.FS.
func (g *guardedFS) Remove(name string) error {
	if g.ours(name) {
		g.begin()
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g *guardedFS) RemoveAll(name string) error {
	if g.ours(name) {
		g.begin()
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g *guardedFS) Rename(old, name string) error {
	g.begin()
	g.fatal.end("renaming "+old+" to", name, g.FS.Rename(old, name))
	return nil
}

// MkdirAll implements vfs.FS.
func (g *guardedFS) MkdirAll(name string, mode os.FileMode) error {
	if g.ours(name) {
		g.begin()
	}
	return g.FS.MkdirAll(name, mode)
}

// guardedFile is a file open for writing, or a directory.
type guardedFile struct {
	vfs.File
	name  string
	fatal *fatal
	open  *atomic.Int64 // the guardedFS's
}

func (f *guardedFile) Write(p []byte) (int, error) {
	f.fatal.begin()
	n, err := f.File.Write(p)
	f.fatal.end("writing", f.name, err)
	return n, nil
}

func (f *guardedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fatal.begin()
	n, err := f.File.WriteAt(p, at)
	f.fatal.end("writing", f.name, err)
	return n, nil
}

func (f *guardedFile) Sync() error {
	f.fatal.begin()
	f.fatal.end("syncing", f.name, f.File.Sync())
	return nil
}

func (f *guardedFile) SyncData() error {
	f.fatal.begin()
	f.fatal.end("syncing", f.name, f.File.SyncData())
	return nil
}

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	f.fatal.begin()
	full, err = f.File.SyncTo(length)
	f.fatal.end("syncing", f.name, err)
	return full, nil
}

func (f *guardedFile) Close() error {
	f.fatal.end("closing", f.name, f.File.Close())
	f.open.Add(-1)
	return nil
}
