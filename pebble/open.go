package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/txbackend"
)

// A store's directory holds the database and the marker, which says that the database
// was completed. Pebble would create a new database wherever it finds none. With the
// marker there, a missing database is damage.
const (
	markerName = "IDEM"
	newMarker  = "IDEM.new" // there while the store is being created
	markerText = "idem format 2 on pebble\n"
	oldMarker  = "idem format 1 on pebble\n" // from before the first release
	dbName     = "db"
)

// format is the Pebble format version of new databases. It is the first whose log has
// chunks that tell damage inside the synced part from the log's end.
const format = pebble.FormatWALSyncChunks

// open opens the store in dir, creating it if necessary.
func open(dir string, o Options) (e *driver, err error) {
	if o.ReadOnly {
		return openReadOnly(dir, o)
	}
	named := dir
	made, err := inspect(dir, o.fs)
	if err != nil {
		return nil, err
	}
	if !made {
		if err := o.fs.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("idem: making %s: %w", dir, err)
		}
	}
	if dir, err = canonical(dir, o.fs); err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", named, err)
	}
	path := o.fs.PathJoin(dir, dbName)
	if made {
		if _, err := o.fs.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, missingDB(dir)
		}
	} else if err := begin(dir, o.fs); err != nil {
		return nil, fmt.Errorf("idem: making %s: %w", dir, err)
	}
	h, err := hold(path, o.fs.PathJoin(named, dbName), o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if !made {
		if err := create(dir, o, h); err != nil {
			return nil, fmt.Errorf("idem: making %s: %w", dir, err)
		}
	}
	return openDB(dir, o, true, h)
}

func missingDB(dir string) error {
	return fmt.Errorf("%w: the database of %s is missing; restore the directory from a backup", idem.ErrCorrupt, dir)
}

// inspect reports whether a store was completed in dir, and refuses anything else. It
// only reads.
func inspect(dir string, f vfs.FS) (made bool, err error) {
	info, err := f.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("idem: opening %s: %w", dir, err)
	case !info.IsDir():
		return false, fmt.Errorf("%w: %s is a file; name a directory", idem.ErrInvalid, dir)
	}
	names, err := f.List(dir)
	if err != nil {
		return false, fmt.Errorf("idem: opening %s: %w", dir, err)
	}
	if slices.Contains(names, markerName) {
		return true, checkMarker(dir, f)
	}
	begun := slices.Contains(names, newMarker)
	for _, name := range names {
		if name != newMarker && (name != dbName || !begun) {
			return false, fmt.Errorf("%w: %s has something else in it (%s); give the store a directory of its own", idem.ErrInvalid, dir, name)
		}
	}
	return false, nil
}

func checkMarker(dir string, f vfs.FS) error {
	text, err := readFile(f.PathJoin(dir, markerName), f)
	switch {
	case err != nil:
		return fmt.Errorf("idem: reading %s in %s: %w", markerName, dir, err)
	case text == markerText:
		return nil
	case text == oldMarker:
		return fmt.Errorf("%w: %s says %q, which is from before the first release; use the library that wrote it, or make a new store",
			idem.ErrVersion, dir, strings.TrimSpace(text))
	case strings.HasPrefix(text, "idem format "):
		return fmt.Errorf("%w: %s says %q; use a newer library", idem.ErrVersion, dir, strings.TrimSpace(text))
	}
	return fmt.Errorf("%w: %s in %s is damaged; restore the directory from a backup", idem.ErrCorrupt, markerName, dir)
}

// begin begins to create a store. It writes the new marker first: a foreign database is
// then never mistaken for an unfinished store.
func begin(dir string, f vfs.FS) error {
	if err := writeNewMarker(dir, f); err != nil {
		return err
	}
	return f.MkdirAll(f.PathJoin(dir, dbName), 0o700)
}

// create finishes what begin has begun, in this process or in one that ended while
// creating the store. At the end the new marker becomes the marker; until then nothing
// has been stored. The database is opened twice, because the first log of a new one has
// no sync chunks.
func create(dir string, o Options, h *held) (err error) {
	e, err := openDB(dir, o, false, h)
	if err != nil {
		return err
	}
	return errors.Join(e.finishCreation(), e.Close(), syncDir(o.fs, o.fs.PathDir(dir)))
}

// finishCreation runs under the database's lock, because another process may have
// created the store since this one looked.
func (e *driver) finishCreation() error {
	f := e.opts.fs
	if _, err := f.Stat(f.PathJoin(e.dir, markerName)); err == nil {
		if err := f.Remove(f.PathJoin(e.dir, newMarker)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil // the other process has renamed it to the marker
	}
	pairs, err := e.Scan(txbackend.Meta, []byte(codec.MetaKey), nil, 1)
	if err == nil && len(pairs) == 0 {
		err = e.Update(func(t txbackend.Tx) error {
			return t.Set(txbackend.Meta, []byte(codec.MetaKey), codec.AppendMeta(nil, engine.Meta{}))
		})
	}
	if err != nil {
		return err
	}
	if err := f.Rename(f.PathJoin(e.dir, newMarker), f.PathJoin(e.dir, markerName)); err != nil {
		return err
	}
	return syncDir(f, e.dir)
}

func writeNewMarker(dir string, f vfs.FS) error {
	path := f.PathJoin(dir, newMarker)
	// A complete one is left alone. Pebble's Create removes a file before recreating it.
	// Killed between the two, it would leave a database that belongs to no store.
	if text, err := readFile(path, f); err == nil && text == markerText {
		return nil
	}
	if err := writeFile(path, markerText, f); err != nil {
		return err
	}
	return syncDir(f, dir)
}

func readFile(path string, f vfs.FS) (string, error) {
	file, err := f.Open(path)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(file, 1024))
	return string(text), errors.Join(err, file.Close())
}

func syncDir(f vfs.FS, dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openDB opens the database. It creates one only if the store is being created.
func openDB(dir string, o Options, made bool, h *held) (*driver, error) {
	path := o.fs.PathJoin(dir, dbName)
	lock, err := h.lockDB(dir, path, o)
	if err != nil {
		return nil, err
	}
	if made {
		if err := tryDB(dir, o, lock); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		if err := removeNote(dir, o.fs); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	f := newFatal()
	if o.pause != nil {
		f.pause = o.pause
	}
	e := &driver{dir: dir, opts: o, fatal: f, lock: lock, damagedBound: damagedBound, tableBytes: tableBytes}
	e.readers.Init(e.openReader, (*reader).close)
	e.compactions.done = e.expireReaders
	events := f.listener()
	events.FlushEnd = func(pebble.FlushInfo) { e.expireSoon() }
	g := &guardedFS{dir: path, fatal: f, ahead: zeroAhead, moved: h.moved}
	g.FS = patientFS{FS: o.fs, attempts: fileAttempts, over: f.heard, stayed: g.stayed}
	if o.fs != vfs.Default {
		g.ahead = zeroAheadInMemory
	}
	e.files = g
	po := pebbleOptions(o, f, lock)
	po.EventListener = events
	po.FS = g
	po.ErrorIfNotExists = made
	po.Experimental.CompactionScheduler = &e.compactions
	e.db, err = openGuarded(path, po, f, lock.Close)
	if err != nil {
		return nil, openError(dir, err)
	}
	g.opened.Store(true)
	if made {
		if err := writeNote(dir, g.log, o.fs); err != nil {
			return nil, errors.Join(fmt.Errorf("idem: opening %s: %w", dir, err), e.Close())
		}
	}
	return e, nil
}

func pebbleOptions(o Options, f *fatal, lock *dbLock) *pebble.Options {
	po := &pebble.Options{
		CacheSize:          o.CacheBytes,
		FormatMajorVersion: format,
		Lock:               lock.pebble,
		Logger:             f,
		MemTableSize:       uint64(o.MemTableBytes),
		// Up to two at a time: claims must not wait long for a compaction.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return po
}

// openError says what an error of pebble.Open means. "Does not exist" refers to tables.
func openError(dir string, err error) error {
	if errors.Is(err, pebble.ErrDBDoesNotExist) || errors.Is(err, fs.ErrNotExist) || pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: the database of %s is damaged: %w; restore the directory from a backup", idem.ErrCorrupt, dir, redact(err))
	}
	if strings.Contains(err.Error(), "unknown format major version") { // Pebble gives only the text
		return fmt.Errorf("%w: %s was opened with a newer Pebble: %w; use a newer library", idem.ErrVersion, dir, redact(err))
	}
	return fmt.Errorf("idem: opening %s: %w", dir, redact(err))
}

// tryDB opens the database read-only and checks for what create put there. A database
// that is refused is thereby left as it was: a real opening writes the logs it reads
// into tables, begins a new manifest and removes what neither needs.
func tryDB(dir string, o Options, lock *dbLock) error {
	if err := checkLog(dir, o.fs); err != nil {
		return err
	}
	f := newFatal()
	po := pebbleOptions(o, f, lock)
	po.CacheSize = 1 << 20
	po.FS = o.fs
	po.ErrorIfNotExists, po.ReadOnly = true, true
	po.EventListener = f.listener()
	e := &driver{dir: dir, opts: o, fatal: f}
	po.Experimental.CompactionScheduler = &e.compactions
	var err error
	if e.db, err = openGuarded(o.fs.PathJoin(dir, dbName), po, f, func() error { return nil }); err != nil {
		return openError(dir, err)
	}
	err = e.verify()
	f.leave()
	return errors.Join(err, redact(e.db.Close()))
}

// openGuarded is pebble.Open in bounded time. Open panics on some errors of the file
// system, and after others it waits forever. On failure the lock is released, but not
// while Pebble is still running.
func openGuarded(path string, po *pebble.Options, f *fatal, unlock func() error) (*pebble.DB, error) {
	type opened struct {
		db  *pebble.DB
		err error
	}
	done, left := make(chan opened), make(chan struct{})
	go func() {
		var o opened
		defer func() {
			if v := recover(); v != nil {
				o.err = fmt.Errorf("panic in Pebble: %v", v)
			}
			if o.err != nil {
				_ = unlock()
			}
			select {
			case done <- o:
			case <-left:
			}
		}()
		o.db, o.err = pebble.Open(path, po)
	}()
	select {
	case o := <-done:
		if err := f.err(); err != nil && o.err == nil {
			return nil, err // the database would not close
		}
		return o.db, o.err
	case <-f.heard:
		close(left)
		return nil, f.err()
	}
}

// verify checks for what create put there.
func (e *driver) verify() error {
	pairs, err := e.Scan(txbackend.Meta, []byte(codec.MetaKey), nil, 1)
	if err == nil && len(pairs) == 0 {
		err = fmt.Errorf("%w: it has no meta entry", idem.ErrCorrupt)
	}
	if err == nil {
		_, err = codec.DecodeMeta(pairs[0].Value)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return openError(e.dir, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.dir, damaged(err))
	}
	return nil
}
