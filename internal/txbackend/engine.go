// Package txbackend is the part that engines on disk share: engine.Backend over a small
// transactional key-value store. It groups commits and keeps records, expiry index and
// meta entry in step within each. It shows no commit to readers before it is durable,
// and stops everything when one fails. An engine adds only its database.
package txbackend

import (
	"context"

	"github.com/idemkv/idem/engine"
)

// Space is one of the separate key spaces of an engine.
type Space uint8

// The spaces.
const (
	Records Space = iota // key → record (codec)
	Expiry               // place (codec) → empty
	Meta                 // codec.MetaKey → meta entry
)

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Engine is the database under a Backend. What it returns belongs to the caller, copied
// out of pages and buffers. Read errors that wrap idem.ErrCorrupt or idem.ErrVersion
// concern only the key. Unless a method says otherwise, any other error, panic or memory
// fault means that the database cannot be trusted, and breaks the store.
type Engine interface {
	// Name is the path, for messages.
	Name() string
	// Read returns the record of key as the database has it now, durable or not; nil if
	// there is none.
	Read(key string) (*engine.Entry, error)
	// Scan returns up to limit pairs with from <= key < to (nil: no bound), in order, as
	// the database has them now. It returns fewer once their values exceed a few MiB.
	Scan(space Space, from, to []byte, limit int) ([]Pair, error)
	// Update runs fn in a transaction and commits it durably. If fn returns an error,
	// nothing is changed and Update returns that error as it is.
	Update(fn func(Tx) error) error
	// Moved returns an error when the path of the database now names something else. It
	// is called after each commit, and its error breaks the store.
	Moved() error
	// Room returns an error that wraps idem.ErrFull, and says what to do, when no new
	// record should be accepted.
	Room() error
	// Size returns the bytes on disk. Its error breaks nothing.
	Size() (int64, error)
	// Close frees everything. It is called once.
	Close() error
}

// Tx is one commit in the making.
type Tx interface {
	// Get returns the value that key had before the transaction, valid until the next
	// call; nil if there was none.
	Get(space Space, key []byte) ([]byte, error)
	// Set copies key and value.
	Set(space Space, key, value []byte) error
	// Delete copies key.
	Delete(space Space, key []byte) error
	// Effect runs fn, a same-commit function of the engine's own type, with ctx. Its
	// writes and the changes made until the next Effect commit together. If it returns
	// an error, the writes of fn are undone. If spoiled is true, they can only be undone
	// by giving up the whole transaction.
	Effect(ctx context.Context, fn any) (result []byte, spoiled bool, err error)
}
