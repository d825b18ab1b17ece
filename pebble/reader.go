package pebble

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem/internal/txbackend"
)

// reader looks records up by an iterator. Pebble's Get does not use the Bloom filters
// of the last level, where most records are; an iterator told to, does: an absent key,
// which is what every first claim looks for, then costs no block read.
type reader struct {
	it  *pebble.Iterator
	key []byte // the iterator keeps hold of it
}

func (e *driver) openReader() (*reader, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, err
	}
	return &reader{it: it}, nil
}

// close ends the reader. The damage that a look-up has met was told to whoever asked;
// the iterator tells it again.
func (r *reader) close() { _ = r.it.Close() }

// find returns the value of key in a space, valid until the next call; nil if there
// is none. After an error the reader is of no use any more.
func (r *reader) find(space txbackend.Space, key []byte) ([]byte, error) {
	r.key = appendKey(r.key[:0], space, key)
	if !r.it.SeekPrefixGE(r.key) || !bytes.Equal(r.it.Key(), r.key) {
		return nil, r.it.Error()
	}
	return r.it.ValueAndErr()
}

// expireReaders is called when a commit can be seen, before anybody is told of it, and
// after each flush and compaction: an idle iterator keeps what they have replaced, in a
// store to which nobody writes for as long as that.
func (e *driver) expireReaders() {
	e.expiring.Lock()
	defer e.expiring.Unlock()
	e.readers.Hold()
	if !e.ending {
		e.readers.Renew()
	}
}

// endReaders closes what is idle, for good.
func (e *driver) endReaders() {
	e.expiring.Lock()
	e.ending = true
	e.expiring.Unlock()
	e.expireReaders()
}

// expireSoon is told of each flush, under Pebble's locks: an idle iterator keeps the
// memtable that was flushed.
func (e *driver) expireSoon() { e.soon.Go(e.expireReaders) }
