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

// guardedFS ends Pebble's writing at the first write that fails, without ending
// the process.
//
// Pebble itself goes three ways when a disk fails it. Over a log or a directory it
// panics, on goroutines of its own, or with its mutex in a state in which the
// runtime ends the process, recovered or not. Over a manifest it calls Fatalf and,
// if that returns, goes on to write edits that refer to the lost one: the store
// then cannot be opened any more. Over a table it tries again for ever.
//
// So an operation that changes files and fails breaks the store, and parks the
// goroutine that asked for it, for good; so does every one after it. What is on the
// disk is then what a crash at that moment would have left, callers hear
// idem.ErrBroken, and Close leaves Pebble behind.
//
// An error goes back only where all of Pebble v2.1.7 that asks for the operation is
// ready for one, and then each error does:
//
//   - Remove, of tables, logs, manifests, options and markers that are obsolete: Pebble
//     goes on, and removes them when it is next opened. A scanner of viruses may hold
//     them. Of temporary files and old markers while opening: Open says so.
//   - ReuseForWrite of an old log that is gone or held: a new log does as well. Pebble
//     itself would panic.
//   - Link, which only checkpoints use: it copies instead.
//   - MkdirAll and OpenDir, of the directory while it is opened: Open says so.
//   - What only reads. A table that is gone is damage to whoever reads it. List is an
//     exception while Pebble is opened.
//
// Nowhere else does it expect that a file does not exist, or exists.
//
// What is outside of the directory is of a checkpoint, and none of this applies to it:
// a disk for backups that is full breaks nothing.
type guardedFS struct {
	vfs.FS
	dir    string // of the database
	fatal  *fatal
	tables atomic.Bool  // one was made
	opened atomic.Bool  // Pebble is
	log    string       // the last one made until then
	open   atomic.Int64 // how many files that are written
	ahead  int          // of a logFile
	moved  func() error
}

// begin returns if the file system may still be changed, and otherwise does not.
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

// begin is fatal.begin for what goes by path. Where the directory was moved, or another
// is in its place, it is the end: what Pebble would make, rename or remove there would be
// in somebody else's database.
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

// Open implements vfs.FS. Pebble opens tables when it first reads them: not those of
// another database.
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

// beforeMarker makes the directory durable before a marker in it is made. A marker's
// name names another file, the manifest in use: and Pebble makes both durable by one
// sync of the directory, after the marker is made. A power cut just before that may
// leave the marker alone, and the database could not be opened any more.
func (g *guardedFS) beforeMarker(name string) error {
	if !strings.HasPrefix(g.PathBase(name), "marker.") {
		return nil
	}
	return syncDir(g.FS, g.PathDir(name))
}

// List implements vfs.FS. Towards the end of opening, Pebble lists its directory once
// more. Where that fails it gives up, and takes away what goroutines of its own, which
// look at the tables that it has just flushed, still use: they panic. Later it lists
// only for the text of an error, for those who read.
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

// ReuseForWrite implements vfs.FS. Only old logs are used again.
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

// isHeld reports whether err says that a file is not to be touched just now, by somebody
// else's doing.
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

// guardedFile is a file that is written, or a directory.
type guardedFile struct {
	vfs.File
	name  string
	fatal *fatal
	open  *atomic.Int64 // of its guardedFS
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
