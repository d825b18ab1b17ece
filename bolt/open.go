package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// open opens the file at path, creating it if necessary.
func open(path string, o Options) (*driver, error) {
	if o.ReadOnly {
		return openReadOnly(path, o)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path, o, os.Link); err != nil {
			return nil, fmt.Errorf("idem: making %s: %w", path, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", path, err)
	} else if err := inspect(path, info); err != nil {
		return nil, err
	}
	if err := checkUnderSharedLock(path, o); err != nil {
		return nil, err
	}
	db, file, err := openDB(path, o, false)
	if err != nil {
		return nil, err
	}
	identity, err := identify(path, file)
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", path, closing(db, err))
	}
	e := &driver{db: db, file: file, path: path, dir: dir, identity: identity, pageSize: int64(db.Info().PageSize), opts: o}
	e.layout = layoutOfBbolt()
	e.readers.Init(e.openReader, reader.close)
	if err := e.verify(); err != nil {
		_ = db.Close()
		return nil, err
	}
	return e, nil
}

// identify returns the identity of path, which must name file, the one that is open and
// locked.
func identify(path string, file *os.File) (*diskspace.Identity, error) {
	identity, err := diskspace.Identify(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !identity.Is(info) {
		return nil, errors.New("another file took its place just now; try again")
	}
	return identity, nil
}

// create makes a store next to path and then gives it its name. A crash never leaves
// half a store under that name, so an empty or short file there is damage and is
// refused. If another process was faster, its store is left alone and this one is
// dropped.
func create(path string, o Options, link func(from, to string) error) error {
	temp := fmt.Sprintf("%s.new-%08x", path, rand.Uint32())
	defer func() { _ = os.Remove(temp) }()
	db, err := bbolt.Open(temp, o.FileMode, &bbolt.Options{Timeout: o.LockTimeout, NoFreelistSync: true})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(buckets[txbackend.Meta]).Put([]byte(codec.MetaKey), codec.AppendMeta(nil, engine.Meta{}))
	})
	if err := closing(db, withCause(err)); err != nil {
		return err
	}
	if err := publish(temp, path, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return diskspace.SyncDir(filepath.Dir(path))
}

// publish gives the file temp the name path too. If the name is taken, it returns an error
// that is fs.ErrExist. A link replaces nothing. A plain rename would replace a store that
// another process has just created and used.
func publish(temp, path string, link func(from, to string) error) error {
	linkErr := link(temp, path)
	if linkErr == nil || errors.Is(linkErr, fs.ErrExist) {
		return linkErr
	}
	err := diskspace.RenameNew(temp, path)
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("this file system has neither links nor a rename that replaces nothing; "+
			"make the store on another one and copy its file here: %w; %w", linkErr, err)
	}
	return err
}

// closing closes db and returns err joined, on one line, with any error from closing.
func closing(db *bbolt.DB, err error) error {
	closeErr := db.Close()
	if err == nil || closeErr == nil {
		return cmp.Or(err, closeErr)
	}
	return fmt.Errorf("%w; closing it: %w", err, closeErr)
}

// checkUnderSharedLock checks the file's trees while a shared lock keeps writers out.
func checkUnderSharedLock(path string, o Options) (err error) {
	db, _, err := openDB(path, o, true)
	if err != nil {
		return err
	}
	defer func() { err = closing(db, err) }()
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("idem: opening %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	newest, _, err := readMetas(f)
	if err == nil && newest != nil {
		err = checkFile(f, newest)
	}
	if err != nil {
		return fmt.Errorf("%w: %s is damaged: %w; restore it from a backup", idem.ErrCorrupt, path, err)
	}
	return nil
}

// openDB opens a file that has been inspected.
func openDB(path string, o Options, readOnly bool) (db *bbolt.DB, file *os.File, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil { // bbolt panics on a damaged free list or tree
			if file != nil {
				_ = file.Close()
			}
			db, file, err = nil, nil, fmt.Errorf("%w: %s is damaged: %v; restore it from a backup", idem.ErrCorrupt, path, v)
		}
	}()
	db, err = bbolt.Open(path, o.FileMode, &bbolt.Options{
		Timeout:         o.LockTimeout,
		InitialMmapSize: o.MapSize,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true, // the free list is found by a scan on opening instead of being written by each commit
		NoStatistics:    o.MaxSize == 0,
		ReadOnly:        readOnly,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			if file != nil {
				return openCopy(file, name, flag, mode)
			}
			f, err := os.OpenFile(name, flag&^os.O_CREATE, mode) // create made it, or nobody does
			file = f
			return f, err
		},
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%w: %s; close it there, or wait longer with Options.LockTimeout (%v)", idem.ErrLocked, path, o.LockTimeout)
	case errors.Is(err, berrors.ErrInvalid) && readable(path):
		// bbolt returns this error, too, if reading the first page fails.
		return nil, nil, fmt.Errorf("idem: opening %s: it could not be read, and just now it could; try again: %w", path, err)
	case errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch):
		return nil, nil, fmt.Errorf("%w: %s is damaged: %w; restore it from a backup", idem.ErrCorrupt, path, err)
	case err != nil:
		return nil, nil, fmt.Errorf("idem: opening %s: %w", path, err)
	}
	return db, file, nil
}

// openCopy opens the files that bbolt opens later, for Tx.CopyFile and Tx.WriteTo. It
// never opens the store's own file for writing.
func openCopy(own *os.File, name string, flag int, mode os.FileMode) (*os.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		to, err := os.Stat(name)
		if err == nil {
			var from fs.FileInfo
			if from, err = own.Stat(); err == nil && os.SameFile(from, to) {
				return nil, fmt.Errorf("%w: %s is the store's own file; copy it to another one", idem.ErrInvalid, name)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(name, flag, mode)
}

// readable reports whether a meta page of the file at path is intact. A failure to read
// the file is no sign of damage either.
func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	newest, _, err := readMetas(f)
	return err != nil || newest != nil
}

// verify checks for what create put there, without writing.
func (e *driver) verify() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %s is damaged: %v; restore it from a backup", idem.ErrCorrupt, e.path, v)
		}
	}()
	return e.db.View(func(tx *bbolt.Tx) error {
		e.size.Store(tx.Size())
		missing := 0
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
				missing++
			}
		}
		if missing == len(buckets) {
			return notAStore(e.path)
		}
		// The version comes first: another version may have other buckets.
		if meta := tx.Bucket(buckets[txbackend.Meta]); meta != nil {
			if _, err := codec.DecodeMeta(meta.Get([]byte(codec.MetaKey))); err != nil {
				return fmt.Errorf("%s: %w", e.path, err)
			}
		}
		if missing > 0 {
			return fmt.Errorf("%w: %s lacks %d of the store's buckets", idem.ErrCorrupt, e.path, missing)
		}
		e.last, e.saved = tx.ID(), bytes.Clone(tx.Bucket(buckets[txbackend.Meta]).Get([]byte(codec.MetaKey)))
		return nil
	})
}

func notAStore(path string) error {
	return fmt.Errorf("%w: %s is a bbolt database of something else; give the store a file of its own", idem.ErrInvalid, path)
}

// errTruncated means that a file is shorter than its meta page says.
var errTruncated = fmt.Errorf("%w: truncated", idem.ErrCorrupt)

// A bbolt file starts with two meta pages, each a page header and a meta. bbolt trusts
// them. If the file is shorter than the pages they count, reading it ends the process
// with SIGBUS. So the meta pages are read here first.
const (
	pageHeader = 16
	metaBytes  = 64
	metaMagic  = 0xED0CDAED
)

type metaPage struct {
	pageSize, root, freelist, pages, txid uint64
}

// inspect refuses a file that is not a complete bbolt file. It only reads.
func inspect(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return fmt.Errorf("%w: %s is a directory; name a file", idem.ErrInvalid, path)
	case info.Size() == 0:
		return fmt.Errorf("%w: %s is empty: a store never is. If nothing was lost, remove it and a new one is made", idem.ErrInvalid, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("idem: opening %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	// Read the size after the pages: a writer elsewhere grows the file before it writes
	// a meta that counts the new pages.
	newest, magic, err := readMetas(f)
	if err != nil {
		return fmt.Errorf("idem: reading %s: %w", path, err)
	}
	if info, err = f.Stat(); err != nil {
		return fmt.Errorf("idem: opening %s: %w", path, err)
	}
	switch {
	case newest == nil && !magic:
		return fmt.Errorf("%w: %s is not a bbolt file; give the store a file of its own", idem.ErrInvalid, path)
	case newest == nil:
		return fmt.Errorf("%w: %s: neither meta page can be read; restore it from a backup", idem.ErrCorrupt, path)
	case uint64(info.Size()) < newest.pages*newest.pageSize:
		return fmt.Errorf("%w: %s has %d bytes and should have %d; restore it from a backup",
			errTruncated, path, info.Size(), newest.pages*newest.pageSize)
	}
	return nil
}

// readMetas returns the newest intact meta page, nil if there is none, and whether
// anything looked like one. The second page lies one page size in. The page size is in
// the first page; if that is damaged, every size is tried.
func readMetas(f io.ReaderAt) (newest *metaPage, magic bool, err error) {
	offsets := []int64{0}
	for size := int64(1 << 10); size <= 64<<10; size <<= 1 {
		offsets = append(offsets, size)
	}
	for _, at := range offsets {
		var b [metaBytes]byte
		if _, err := f.ReadAt(b[:], at+pageHeader); err == io.EOF {
			break
		} else if err != nil {
			return nil, false, err
		}
		if binary.NativeEndian.Uint32(b[:]) != metaMagic {
			continue
		}
		magic = true
		m := decodeMeta(b[:])
		if m == nil || at != 0 && uint64(at) != m.pageSize {
			continue
		}
		if newest == nil || m.txid > newest.txid {
			newest = m
		}
	}
	return newest, magic, nil
}

// decodeMeta returns the meta in b; nil if that is none, or damaged.
func decodeMeta(b []byte) *metaPage {
	ne := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:metaBytes-8])
	if ne.Uint32(b) != metaMagic || sum.Sum64() != ne.Uint64(b[metaBytes-8:]) {
		return nil
	}
	return &metaPage{
		pageSize: uint64(ne.Uint32(b[8:])), root: ne.Uint64(b[16:]), freelist: ne.Uint64(b[32:]),
		pages: ne.Uint64(b[40:]), txid: ne.Uint64(b[48:]),
	}
}
