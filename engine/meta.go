package engine

// Meta is what an engine saves in each commit, besides the records, and gives back
// when it is opened again. Engines store every field and interpret none.
//
// Time and Wall are the store time and the wall clock, read at one instant. The next
// opening continues at Time plus the time spent closed, which is what the wall clock
// has advanced since Wall. Counting too much of it would forget records that are live,
// counting too little lets them live longer, which is harmless. So it counts 7 days at
// most, and nothing if either reading of the wall clock is before 2025, when no clock
// that was set can be. Wall never goes back. A reading in the far future therefore counts
// nothing until the clock is there.
//
// Where the wall clock has been behind since the opening, how long the store had been
// closed before is not known, and the next opening must not count it against records made
// since. A negative Wall says so: nothing is counted from it.
type Meta struct {
	// Time is the store time at the commit.
	Time Instant
	// Wall is the wall clock at the same instant, Unix nanoseconds; negative if the clock
	// is behind what was saved, and then what that comes to by the time elapsed since.
	Wall int64
	// Fence is the highest fence granted. Zero only in a store that is new.
	Fence uint64
	// Opening counts the openings of the store, from 1.
	Opening uint64
	// LostUntil is the wall clock, Unix nanoseconds, up to which records may have been
	// lost with what the store was before: a backup was restored, or it was a memory
	// engine. Zero if nothing was.
	LostUntil int64
	// Secret is what Store.KeyHash is keyed by; drawn when the store is made.
	Secret [16]byte
}
