package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// Backup writes a copy of the store to the new directory dir, with your own data, as of one
// moment: everything that was answered before Backup was called is in it. Calls go on
// meanwhile, and none waits for it. The copy shares no file with the store and may be on
// another file system. It is compact, it is checked, made durable, and only then gets its
// name. If Backup fails, or ctx ends, it leaves nothing. (A process that is killed may
// leave dir.new-….) engine.WithProgress tells how far it is.
//
// To restore, stop the process, put the copy in the store's place, and open it with the
// same Options. What was done after the backup is then unknown to the store, and would run
// again. So the copy has a mark, which its first opening for writing replaces with the time:
// a claim whose Request.IssuedAt is not later gets idem.ErrTooLate if there is no record. A
// snapshot of the volume, or a cp of a stopped store, has no mark: restore those with the
// command idem restore, which adds it.
//
// idem.ErrInvalid is returned when dir exists or is inside the store's own directory,
// idem.ErrCorrupt when the store is damaged (see Verify), idem.ErrBroken and idem.ErrClosed
// as by idem.Store. Other errors are ctx's or come from the operating system.
func (b *Backend) Backup(ctx context.Context, dir string) error {
	return b.Visit(ctx, func(ctx context.Context) error {
		if err := b.backup(ctx, dir); err != nil {
			return fmt.Errorf("idem: backing up %s to %s: %w", b.engine.dir, dir, redact(err))
		}
		return nil
	})
}

// backup makes the copy. Pebble's Checkpoint links or copies the files as they are. It copies
// the log while that is being written, and if a write comes between two reads, the copy has a hole that opening
// takes for damage. On one file system it also shares the tables with the store, and what
// damages one, damages both. Writing new tables from a snapshot has neither problem, and
// reads, and so checks, every block.
func (b *Backend) backup(ctx context.Context, dir string) (err error) {
	e, disk := b.engine, b.engine.disk()
	dir = filepath.Clean(dir)
	if err := e.absent(dir); err != nil {
		return err
	}
	if err := e.outside(dir); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.new-%08x", dir, rand.Uint32())
	// There is no marker in it until it is complete, so nobody takes it for a store.
	if err := disk.MkdirAll(disk.PathJoin(temp, dbName), 0o700); err != nil {
		return err
	}
	published := false
	defer func() {
		if !published {
			_ = disk.RemoveAll(temp)
		}
	}()
	progress, size := engine.Progress(ctx), int64(0)
	if size, err = e.Size(); err != nil {
		return err
	}
	half := func(n int64) context.Context {
		return engine.WithProgress(ctx, func(done, total int64) {
			progress(n*size+int64(float64(size)*float64(done)/float64(max(total, 1))), 2*size)
		})
	}
	w := &tables{disk: disk, dir: temp, options: tableOptions(e.opts), most: e.tableBytes}
	if err := e.copyTo(half(0), w, size); err != nil {
		return err
	}
	if err := e.assemble(ctx, temp, w); err != nil {
		return err
	}
	if err := b.check(half(1), temp); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), b.Intact()); err != nil {
		return err
	}
	if err := publish(temp, dir, disk); err != nil {
		return err
	}
	published = true
	if err := syncDir(disk, disk.PathDir(dir)); err != nil {
		return errors.Join(err, disk.RemoveAll(dir)) // a power cut might take it away later
	}
	return nil
}

// disk is the file system on which the copy is made. For writing it is not that of the
// store, where a failed write breaks the store.
func (e *driver) disk() vfs.FS {
	if ro, ok := e.opts.fs.(readOnlyFS); ok {
		return ro.FS
	}
	return e.opts.fs
}

// absent returns an error if there is something at dir, or nothing that it could be in.
func (e *driver) absent(dir string) error {
	disk := e.disk()
	var err error
	if disk == vfs.Default {
		_, err = os.Lstat(dir)
	} else {
		_, err = disk.Stat(dir)
	}
	if err == nil {
		return exists()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = disk.Stat(disk.PathDir(dir))
	return err
}

func exists() error { return fmt.Errorf("%w: it exists; name a new directory", idem.ErrInvalid) }

// outside returns an error if dir is in the store's directory, by whatever name.
func (e *driver) outside(dir string) error {
	if e.disk() != vfs.Default {
		return nil
	}
	own, err := os.Stat(e.dir)
	if err != nil {
		return err
	}
	above, err := filepath.Abs(filepath.Dir(dir))
	if err == nil {
		above, err = filepath.EvalSymlinks(above)
	}
	for err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(above); err != nil {
			break
		}
		if os.SameFile(own, info) {
			return fmt.Errorf("%w: it is inside the store's own directory, which holds nothing else", idem.ErrInvalid)
		}
		next := filepath.Dir(above)
		if next == above {
			return nil
		}
		above = next
	}
	return err
}

// copyTo writes every key of a snapshot to w, and the mark of a backup. It reads up to size
// bytes of files.
func (e *driver) copyTo(ctx context.Context, w *tables, size int64) (err error) {
	snap := e.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	defer func() { err = errors.Join(err, w.end()) }()
	if err := e.copyKeys(ctx, snap, w, size); err != nil {
		return damaged(err)
	}
	if err := w.end(); err != nil {
		return err
	}
	return damaged(copyRanges(ctx, snap, w))
}

func (e *driver) copyKeys(ctx context.Context, snap *pebble.Snapshot, w *tables, size int64) (err error) {
	it, err := snap.NewIterWithContext(ctx, nil)
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	progress := engine.Progress(ctx)
	meta := appendKey(nil, txbackend.Meta, codec.MetaKey)
	marked := false
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if string(it.Key()) == string(meta) {
			if value, err = codec.MarkBackup(value); err != nil {
				return err
			}
			marked = true
		}
		began, err := w.set(it.Key(), value)
		if err != nil {
			return err
		}
		if began {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress(min(w.size, size), size)
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if !marked {
		return fmt.Errorf("%w: it has no meta entry", idem.ErrCorrupt)
	}
	return ctx.Err()
}

// copyRanges copies the caller's range keys.
func copyRanges(ctx context.Context, snap *pebble.Snapshot, w *tables) (err error) {
	it, err := snap.NewIterWithContext(ctx, &pebble.IterOptions{KeyTypes: pebble.IterKeyTypeRangesOnly})
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	for ok := it.First(); ok; ok = it.Next() {
		start, end := it.RangeBounds()
		for _, k := range it.RangeKeys() {
			if err := w.setRange(start, end, k); err != nil {
				return err
			}
		}
	}
	return it.Error()
}

// closeIter is deferred: it closes after a panic too, or the database could not be closed.
func closeIter(it *pebble.Iterator, err *error) {
	if closeErr := it.Close(); *err == nil { // it repeats what the iterator met
		*err = closeErr
	}
}

// tables writes sorted keys to table files in dir.
type tables struct {
	disk    vfs.FS
	dir     string
	options sstable.WriterOptions
	most    uint64 // the size that ends a table

	w      *sstable.Writer
	points []string // files with keys
	ranges []string // the file with the caller's range keys
	size   int64    // of the files that are done
	bytes  int      // since the last report
}

const (
	// tableBytes is the size that ends a table.
	tableBytes = 64 << 20
	// reportBytes is how many bytes set takes before it says that it is time to look up.
	reportBytes = 1 << 20
)

// tableOptions are those of the lowest level, where most of a store is.
func tableOptions(o Options) sstable.WriterOptions {
	po := pebbleOptions(o, newFatal(), &dbLock{})
	po.EnsureDefaults()
	return po.MakeWriterOptions(len(po.Levels)-1, format.MaxTableFormat())
}

// set adds a key. It returns true every now and then, for the caller to look up.
func (t *tables) set(key, value []byte) (now bool, err error) {
	if t.w == nil {
		if err := t.begin(&t.points); err != nil {
			return false, err
		}
	}
	if err := t.w.Set(key, value); err != nil {
		return false, err
	}
	if t.bytes += len(key) + len(value); t.bytes < reportBytes {
		return false, nil
	}
	t.bytes = 0
	if t.w.Raw().EstimatedSize() >= t.most {
		return true, t.end()
	}
	return true, nil
}

func (t *tables) setRange(start, end []byte, k pebble.RangeKeyData) error {
	if t.w == nil {
		if err := t.begin(&t.ranges); err != nil {
			return err
		}
	}
	return t.w.RangeKeySet(start, end, k.Suffix, k.Value)
}

func (t *tables) begin(list *[]string) error {
	path := t.disk.PathJoin(t.dir, fmt.Sprintf("copy-%06d.sst", len(t.points)+len(t.ranges)))
	f, err := t.disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), t.options)
	*list = append(*list, path)
	return nil
}

// end finishes the current table, if there is one, and makes it durable.
func (t *tables) end() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	if err := w.Close(); err != nil {
		return err
	}
	m, err := w.Metadata()
	if err == nil {
		t.size += int64(m.Size)
	}
	return err
}

// assemble makes a store in dir out of the tables. It never waits for a Pebble that has
// met a fatal error.
func (e *driver) assemble(ctx context.Context, dir string, t *tables) error {
	disk := t.disk
	f := newFatal()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- callback.Caught("panic in Pebble", v)
			}
		}()
		done <- e.ingest(ctx, disk.PathJoin(dir, dbName), t, f)
	}()
	err := error(nil)
	select {
	case err = <-done:
	case <-f.heard:
		timer := time.NewTimer(closeBound)
		defer timer.Stop()
		select {
		case err = <-done:
		case <-timer.C:
		}
	}
	if err = errors.Join(err, f.err()); err != nil {
		return err
	}
	names, err := disk.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names { // Pebble has linked them into the database, and may have left them
		if strings.HasSuffix(name, ".sst") {
			if err := disk.Remove(disk.PathJoin(dir, name)); err != nil {
				return err
			}
		}
	}
	if err := writeFile(disk.PathJoin(dir, markerName), markerText, disk); err != nil {
		return err
	}
	return syncDir(disk, dir)
}

// ingest makes a database at path out of the tables.
func (e *driver) ingest(ctx context.Context, path string, t *tables, f *fatal) (err error) {
	po := pebbleOptions(e.opts, f, &dbLock{})
	po.FS = t.disk
	po.ErrorIfExists = true
	po.EventListener = f.listener()
	po.Experimental.CompactionScheduler = &scheduler{}
	db, err := pebble.Open(path, po)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, list := range [...][]string{t.points, t.ranges} {
		if len(list) > 0 {
			if err := db.Ingest(ctx, list); err != nil {
				return err
			}
		}
	}
	return nil
}

// check opens the copy as anybody would and reads all of it.
func (b *Backend) check(ctx context.Context, dir string) (err error) {
	o := b.engine.opts
	o.fs, o.ReadOnly = b.engine.disk(), true
	e, err := openReadOnly(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Inspect(func(v txbackend.View) error { return b.Whole(ctx, v) })
}

// publish gives the directory temp its name, unless that is taken.
func publish(temp, dir string, disk vfs.FS) error {
	if disk != vfs.Default {
		return disk.Rename(temp, dir)
	}
	err := diskspace.RenameNew(temp, dir)
	if errors.Is(err, errors.ErrUnsupported) { // a rename replaces no directory but an empty one
		if _, statErr := os.Lstat(dir); statErr == nil {
			return exists()
		}
		return os.Rename(temp, dir)
	}
	if errors.Is(err, fs.ErrExist) {
		return exists()
	}
	return err
}
