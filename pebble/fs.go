package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

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
// What only reads, fails as ever, with one exception: List.
type guardedFS struct {
	vfs.FS
	fatal  *fatal
	tables atomic.Bool // one was made
	ahead  int         // of a logFile
	moved  func() error
}

// begin is fatal.begin for what goes by path. Where the directory was moved, or another
// is in its place, it is the end: what Pebble would make, rename or remove there would be
// in somebody else's database.
func (g *guardedFS) begin() {
	g.fatal.begin()
	if err := g.moved(); err != nil {
		g.fatal.set(err)
		select {}
	}
}

// Open implements vfs.FS. Pebble opens tables when it first reads them: not those of
// another database.
func (g *guardedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	if err := g.moved(); err != nil {
		g.fatal.set(err)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// begin returns if the file system may still be changed, and otherwise does not.
func (f *fatal) begin() {
	select {
	case <-f.heard:
		select {}
	default:
	}
}

// end returns err if Pebble expects it, and does not return if the operation failed.
func (f *fatal) end(doing, name string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return err
	}
	f.set(fmt.Errorf("%s %s: %w", doing, name, err))
	select {}
}

// Unwrap implements vfs.FS.
func (g *guardedFS) Unwrap() vfs.FS { return g.FS }

// Create implements vfs.FS.
func (g *guardedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	g.begin()
	if err := g.beforeMarker(name); err != nil {
		return nil, g.fatal.end("syncing the directory of", name, err)
	}
	if strings.HasSuffix(name, ".sst") {
		g.tables.Store(true)
	}
	f, err := g.FS.Create(name, category)
	return g.guard(f, name, g.fatal.end("making", name, err))
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
// look at the tables that it has just flushed, still use: they panic.
func (g *guardedFS) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	if g.tables.Load() {
		err = g.fatal.end("listing", dir, err)
	}
	return names, err
}

// OpenReadWrite implements vfs.FS.
func (g *guardedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	g.begin()
	f, err := g.FS.OpenReadWrite(name, category, opts...)
	return g.guard(f, name, g.fatal.end("opening", name, err))
}

// ReuseForWrite implements vfs.FS.
func (g *guardedFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	g.begin()
	f, err := g.FS.ReuseForWrite(old, name, category)
	return g.guard(f, name, g.fatal.end("reusing "+old+" as", name, err))
}

// OpenDir implements vfs.FS.
func (g *guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	return g.guard(f, name, err)
}

func (g *guardedFS) guard(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if isLogName(name) {
		return g.newLog(f, name), nil
	}
	return &guardedFile{File: f, name: name, fatal: g.fatal}, nil
}

// Link implements vfs.FS.
func (g *guardedFS) Link(old, name string) error {
	g.begin()
	return g.fatal.end("linking", name, g.FS.Link(old, name))
}

// Remove implements vfs.FS.
func (g *guardedFS) Remove(name string) error {
	g.begin()
	return g.fatal.end("removing", name, g.FS.Remove(name))
}

// RemoveAll implements vfs.FS.
func (g *guardedFS) RemoveAll(name string) error {
	g.begin()
	return g.fatal.end("removing", name, g.FS.RemoveAll(name))
}

// Rename implements vfs.FS.
func (g *guardedFS) Rename(old, name string) error {
	g.begin()
	return g.fatal.end("renaming "+old+" to", name, g.FS.Rename(old, name))
}

// MkdirAll implements vfs.FS.
func (g *guardedFS) MkdirAll(name string, mode os.FileMode) error {
	g.begin()
	return g.fatal.end("making", name, g.FS.MkdirAll(name, mode))
}

// guardedFile is a file that is written, or a directory.
type guardedFile struct {
	vfs.File
	name  string
	fatal *fatal
}

func (f *guardedFile) Write(p []byte) (int, error) {
	f.fatal.begin()
	n, err := f.File.Write(p)
	return n, f.fatal.end("writing", f.name, err)
}

func (f *guardedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fatal.begin()
	n, err := f.File.WriteAt(p, at)
	return n, f.fatal.end("writing", f.name, err)
}

func (f *guardedFile) Sync() error {
	f.fatal.begin()
	return f.fatal.end("syncing", f.name, f.File.Sync())
}

func (f *guardedFile) SyncData() error {
	f.fatal.begin()
	return f.fatal.end("syncing", f.name, f.File.SyncData())
}

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	f.fatal.begin()
	full, err = f.File.SyncTo(length)
	return full, f.fatal.end("syncing", f.name, err)
}

func (f *guardedFile) Close() error {
	return f.fatal.end("closing", f.name, f.File.Close())
}
