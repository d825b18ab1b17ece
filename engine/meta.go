package engine

import (
	"math"
	"time"
)

// Restored is the LostUntil of a backup. Nobody knows yet until when records are missing
// from it: the opening that makes it a store again saves its own time instead. As a time it
// is later than any, so whoever takes it for one loses nothing.
const Restored int64 = math.MaxInt64

// Meta is what an engine saves in each commit besides the records, and returns when it
// is opened again. Engines store every field and interpret none.
//
// Time and Wall are the store time and the wall clock at the same instant. The next
// opening continues at Time plus the time spent closed: what the wall clock has
// advanced since Wall. Counting too much would forget live records; counting too little
// lets them live longer, which is harmless. So the time closed counts for 7 days at
// most. It does not count at all if either reading of the wall clock is before 2025,
// because a clock that has been set cannot read that. Wall never goes back, so after a
// reading in the far future nothing counts until the clock gets there.
//
// If the wall clock has been behind since the opening, it is unknown how long the store
// was closed before. The next opening must not count that time against records made
// since. A negative Wall says so: nothing is counted from it.
type Meta struct {
	// Time is the store time at the commit.
	Time Instant
	// Wall is the wall clock at the same instant, Unix nanoseconds. It is negative if
	// the clock is behind what was saved; it then holds the saved clock plus the time
	// elapsed since.
	Wall int64
	// Fence is the highest fence granted. It is zero only in a new store.
	Fence uint64
	// Epoch counts the openings of the store, from 1.
	Epoch uint64
	// LostUntil is the wall clock, Unix nanoseconds, up to which records may have been
	// lost: a backup was restored, records were imported while their store went on, or
	// the engine keeps its records in memory. Zero if none were; Restored in a backup that
	// has not been opened; never negative. An engine that loses records calls Lose.
	LostUntil int64
	// Importing: the store holds a part of another store's records, and is not used
	// before an import has ended.
	Importing bool
	// Secret is the key of Store.KeyHash, drawn when the store is created.
	Secret [16]byte
}

// Lose notes that records up to until, by the wall clock, may have been lost. The clock
// may be off by any amount.
func (m *Meta) Lose(until time.Time) {
	lost := int64(1) // before 1970; zero would say that nothing was lost
	switch last := time.Unix(0, math.MaxInt64); {
	case until.After(last):
		lost = math.MaxInt64
	case until.Unix() >= 0:
		lost = max(until.UnixNano(), 1)
	}
	m.LostUntil = max(m.LostUntil, lost)
}
