package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/txbackend"
)

// openReadOnly opens the file at path, which must be a store, without changing anything. A
// store that is damaged opens too, if only its meta page can be read: somebody must be able
// to look what is left.
func openReadOnly(path string, o Options) (*driver, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s read-only: %w", path, err)
	}
	if err := inspect(path, info); err != nil && !errors.Is(err, errTruncated) {
		return nil, err
	}
	o.MapSize = 0 // it will not grow
	db, file, err := openDB(path, o, true)
	if err != nil {
		return nil, err
	}
	identity, err := identify(path, file)
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", path, closing(db, err))
	}
	e := &driver{
		db: db, file: file, path: path, identity: identity, pageSize: int64(db.Info().PageSize), opts: o, layout: layoutOfBbolt(),
	}
	e.readers.Init(e.openReader, reader.close)
	if err := e.examine(); err != nil {
		return nil, closing(db, err)
	}
	return e, nil
}

// examine looks at a file that was opened for reading and finds out whether it is damaged.
func (e *driver) examine() error {
	newest, _, err := readMetas(e.file)
	if err == nil && newest == nil {
		err = errors.New("its meta pages were overwritten just now; try again")
	}
	var info os.FileInfo
	if err == nil {
		info, err = e.file.Stat()
	}
	if err != nil {
		return fmt.Errorf("idem: opening %s: %w", e.path, err)
	}
	e.meta = newest
	e.size.Store(int64(newest.pages * newest.pageSize))
	damage := checkFile(e.file, newest)
	if size := uint64(info.Size()); damage == nil && size < newest.pages*newest.pageSize {
		damage = fmt.Errorf("it has %d bytes and should have %d", size, newest.pages*newest.pageSize)
	}
	if damage != nil {
		e.damage = fmt.Errorf("%w: %s is damaged: %w; Verify lists what is", idem.ErrCorrupt, e.path, damage)
	}
	// Damage there is for Bind to report; a file of something else, or of another version, is
	// refused here.
	if err := e.identifyContent(); err != nil && !errors.Is(err, idem.ErrCorrupt) {
		return err
	}
	return nil
}

// identifyContent returns an error unless the file has the meta entry of a store.
func (e *driver) identifyContent() error {
	view := &fileView{f: e.file, meta: e.meta, name: e.path}
	missing := 0
	for space := range buckets {
		if _, _, err := view.Get(txbackend.Space(space), []byte(codec.MetaKey)); errors.Is(err, errNoBucket) {
			missing++
		}
	}
	switch {
	case missing == len(buckets):
		return notAStore(e.path)
	case missing > 0 && e.damage == nil:
		e.damage = fmt.Errorf("%w: %s lacks %d of the store's buckets", idem.ErrCorrupt, e.path, missing)
	}
	value, _, err := view.Get(txbackend.Meta, []byte(codec.MetaKey))
	if err != nil {
		return err
	}
	if _, err := codec.DecodeMeta(value); err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	return nil
}

// damagedFile is a file with damaged trees, opened for reading. bbolt could be led astray
// by them, up to the end of the process, so it is not asked.
type damagedFile struct{ *driver }

var (
	_ txbackend.Engine    = damagedFile{}
	_ txbackend.Inspector = damagedFile{}
)

// Read implements txbackend.Engine.
func (d damagedFile) Read(key string) (*engine.Entry, error) {
	value, found, err := d.view().Get(txbackend.Records, []byte(key))
	if err != nil || !found {
		return nil, err
	}
	return codec.DecodeRecord(key, value)
}

// Scan implements txbackend.Engine. What comes before the damage is returned first.
func (d damagedFile) Scan(space txbackend.Space, from, to []byte, limit int) (pairs []txbackend.Pair, err error) {
	size := 0
	err = d.view().scan(space, from, to, func(key, value []byte) bool {
		pairs = append(pairs, txbackend.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)})
		size += len(key) + len(value)
		return len(pairs) < limit && size < scanBytes
	})
	if len(pairs) > 0 {
		return pairs, nil
	}
	return nil, err
}

// Inspect implements txbackend.Inspector.
func (d damagedFile) Inspect(fn func(txbackend.View) error) error { return fn(d.view()) }

func (d damagedFile) view() *fileView {
	return &fileView{f: d.file, meta: d.meta, name: d.path, still: true}
}
