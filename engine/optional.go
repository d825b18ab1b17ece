package engine

import "context"

// Scanner is a Backend that can list its entries.
type Scanner interface {
	// Scan returns some entries after the cursor and the cursor to go on from, ""
	// when there are no more; "" also starts. Entries whose key does not start
	// with prefix may be left out. An entry that is there from the first call to
	// the last is returned exactly once. Like Read it returns nothing that a crash
	// could undo, and holds nothing between calls. A page is small enough to hold
	// in memory, and may be empty before the end.
	Scan(ctx context.Context, prefix, cursor string) (page []Scanned, next string, err error)
}

// Scanned is one entry of a scan.
type Scanned struct {
	// Key and Entry are as Read has them.
	Key   string
	Entry *Entry
	// Err is ErrCorrupt or ErrVersion, wrapped, when the entry cannot be read;
	// Entry is then nil.
	Err error
}

// Expirer is a Backend with an expiry index: for every entry whose Due is not
// zero it finds (Due, key) in the order of Due. Apply keeps it in step: the place
// of the entry before a change (its Due) and the place the op found (Op.Due, zero
// if none) make way for that of the entry after it.
type Expirer interface {
	// Expiring returns up to limit places of the index in order, the first one
	// after the place from (the zero Due: from the start) whose time is at or
	// before until. A place may be stale: the sweep checks the entry again.
	Expiring(ctx context.Context, from Due, until Instant, limit int) ([]Due, error)
}

// Due is a place in the expiry index.
type Due struct {
	// At and Key: look at Key not before At.
	At  Instant
	Key string
}

// Checker is a Backend that can tell whether it would take a new record now; see
// Store.Health.
type Checker interface {
	// Check returns nil if a new record would be taken, and otherwise what a claim of
	// it would meet: ErrFull, ErrBroken, ErrClosed. It writes nothing.
	Check(ctx context.Context) error
}

// Sizer is a Backend that knows how many bytes it takes.
type Sizer interface {
	// Size returns bytes on disk, or in memory for an engine without a disk.
	Size() (int64, error)
}
