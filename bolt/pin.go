package bolt

import (
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem/internal/txbackend"
)

// pin begins a read transaction whose pages can be read from the file until unpin is
// called, however long that takes. It keeps them from being reused, so the file may grow by
// as much as they take, but it does not keep commits waiting.
//
// A read transaction also holds a lock on the memory map, and a commit that has to grow the
// map waits for all of them, as do later readers. Nobody here reads through the map, so the
// lock is given back for the time between. A bbolt that has no such lock keeps it, and
// commits may wait.
func (e *driver) pin() (tx *bbolt.Tx, unpin func(), err error) {
	if tx, err = e.db.Begin(false); err != nil {
		return nil, nil, err
	}
	lock := e.layout.mapLock(e.db)
	if lock == nil {
		return tx, func() { _ = tx.Rollback() }, nil
	}
	lock.RUnlock()
	return tx, func() {
		lock.RLock()
		_ = tx.Rollback()
	}, nil
}

// Inspect implements txbackend.Inspector.
func (e *driver) Inspect(fn func(txbackend.View) error) error {
	tx, unpin, err := e.pin()
	if err != nil {
		return err
	}
	defer unpin()
	m := e.meta
	if m == nil { // the store writes no list of free pages
		m = &metaPage{
			pageSize: uint64(e.pageSize), root: uint64(tx.Cursor().Bucket().Root()), freelist: noFreelist,
			pages: uint64(tx.Size() / e.pageSize),
		}
	}
	return fn(&fileView{f: e.file, meta: m, name: e.path, still: e.meta != nil})
}
