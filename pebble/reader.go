package pebble

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem/internal/txbackend"
)

// reader looks up records with an iterator. Pebble's Get does not use the Bloom filters
// of the last level, where most records are; an iterator can be told to. An absent key,
// which every first claim looks for, then costs no block read.
type reader struct {
	it  *pebble.Iterator
	key []byte // the iterator keeps a reference to it
}

func (e *driver) openReader() (*reader, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, err
	}
	return &reader{it: it}, nil
}

// close ends the reader. It ignores the error: the iterator repeats damage that a
// look-up has already reported.
func (r *reader) close() { _ = r.it.Close() }

// find returns the value of key in a space, valid until the next call; nil if there is
// none. After an error the reader must not be used again.
func (r *reader) find(space txbackend.Space, key []byte) ([]byte, error) {
	r.key = appendKey(r.key[:0], space, key)
	if !r.it.SeekPrefixGE(r.key) || !bytes.Equal(r.it.Key(), r.key) {
		return nil, r.it.Error()
	}
	return r.it.ValueAndErr()
}

// expireReaders runs when a commit is visible, before anyone is told of it, and after
// each flush and compaction. An idle iterator keeps alive what those have replaced, and
// in a store without writes nothing else would close it.
func (e *driver) expireReaders() {
	e.expiring.Lock()
	defer e.expiring.Unlock()
	e.readers.Hold()
	if !e.ending {
		e.readers.Renew()
	}
}

// endReaders closes idle readers for good.
func (e *driver) endReaders() {
	e.expiring.Lock()
	e.ending = true
	e.expiring.Unlock()
	e.expireReaders()
}

// expireSoon is called for each flush, under Pebble's locks. An idle iterator keeps the
// flushed memtable alive.
func (e *driver) expireSoon() { e.soon.Go(e.expireReaders) }
