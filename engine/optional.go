package engine

import "context"

// Scanner is a Backend that can list its entries.
type Scanner interface {
	// Scan returns some entries after the cursor, and the next cursor. "" starts a scan,
	// and is returned at its end. Entries whose key does not start with prefix may be
	// left out. An entry that exists from the first call to the last is returned exactly
	// once. Like Read, Scan returns nothing that a crash could undo, and it holds
	// nothing between calls. A page is small enough for memory and may be empty before
	// the end.
	Scan(ctx context.Context, prefix, cursor string) (page []Scanned, next string, err error)
}

// Scanned is one entry of a scan.
type Scanned struct {
	// Key and Entry are what Read would return.
	Key   string
	Entry *Entry
	// Err is ErrCorrupt or ErrVersion, wrapped, when the entry cannot be read;
	// Entry is then nil.
	Err error
}

// Expirer is a Backend with an expiry index: (Due, key) for every entry whose Due is
// not zero, in the order of Due. Apply keeps it in step. With each change it removes
// the place of the old entry (its Due) and the place that the op found (Op.Due, if not
// zero), and adds that of the new entry.
type Expirer interface {
	// Expiring returns up to limit places of the index, in order, that come after from
	// (the zero Due: from the start) and whose time is not after until. A place may be
	// stale: the sweep checks the entry again.
	Expiring(ctx context.Context, from Due, until Instant, limit int) ([]Due, error)
}

// Due is a place in the expiry index: do not look at Key before At.
type Due struct {
	// At is the time of the place, Key its record's key.
	At  Instant
	Key string
}

// Checker is a Backend that can tell whether it would accept a new record now; see
// Store.Health.
type Checker interface {
	// Check returns nil if a new record would be accepted, and otherwise the error of
	// such a claim: ErrFull, ErrBroken, ErrClosed. It writes nothing.
	Check(ctx context.Context) error
}

// Sizer is a Backend that knows its size.
type Sizer interface {
	// Size returns bytes on disk, or in memory for an engine without a disk.
	Size() (int64, error)
}

// Verifier is a Backend that can check everything it has stored.
type Verifier interface {
	// Verify reads all that is stored, the caller's own data included: each record, the
	// expiry index in both directions, and every page or block of the database. It calls
	// report for each damage, from one goroutine, and goes on past it. A nil error means
	// that Verify got to the end, whatever it reported.
	//
	// It checks the state of one commit, changes nothing and holds up no commit. It may be
	// called before Bind, but then reports no key hashes. Damage that the database's own
	// pages cannot show, such as a flipped bit in the caller's data on bolt, goes
	// unnoticed. For progress, see WithProgress. ctx's error is returned when ctx ends,
	// ErrBroken and ErrClosed as by Read.
	Verify(ctx context.Context, report func(Damage)) error
}

// Damage is one finding of Verify.
type Damage struct {
	// What is damaged: "record", "expiry index", "meta entry", or a part of the database,
	// such as "page" or "table". "clock" means that the store has seen a wall clock far
	// ahead of this machine's: records will expire later than they should.
	What string
	// KeyHash is that of the damaged record's key; "" if the damage is not that of one record.
	KeyHash string
	// Err says what is wrong and where. It contains no key. It wraps ErrCorrupt or
	// ErrVersion, except for "clock".
	Err error
}
