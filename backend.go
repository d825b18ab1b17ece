package idem

import (
	"context"
	"time"
)

// Backend is what an engine implements. The store above it decides who may do
// what; an engine only keeps entries under keys and runs operations on them
// atomically and durably. To write one:
//
//   - Keep an Entry and a Meta whole: every field comes back as it was given, nil
//     and empty slices told apart, or not at all.
//   - Read and Apply are called from many goroutines at once, until Close.
//   - An engine may be given to one store only: the second Bind is refused.
//   - When a commit fails, or the engine panics or finds its files unreadable,
//     what it holds is unknown: call Host.Broken before anything else sees that
//     state, and answer everything with the error from then on. Never end the
//     process, never let a panic or memory fault out.
//   - Prove it with idemtest.Run, which tests everything said here.
//
// An engine that can list its records implements Scanner; one that keeps an
// expiry index, Expirer; one that knows its size, Sizer. Without Scanner, Records
// and Stats answer ErrInvalid; without Expirer nothing expired is ever removed
// (it is still absent to every reader).
type Backend interface {
	// Bind makes the backend host's. It is called once, by New, before any other
	// method, and returns the Meta of the last commit. ErrInvalid is returned when
	// the backend is bound already, ErrClosed when it is closed.
	Bind(host Host) (Binding, error)

	// Read returns the entry of key, nil if there is none. It never returns what a
	// crash could undo: while a commit of the key is under way, Read returns what
	// was there before it, and never waits for it. Expired entries are returned
	// like others. ErrCorrupt or ErrVersion is returned when the entry is there
	// and cannot be read.
	Read(key string) (*Entry, error)

	// Apply runs ops in one commit, in their order, together with those of other
	// callers as it likes. For each op, with the entry that is current at that
	// point of the commit (ops before it in the same commit count):
	//
	//	next, changed := op.Run(current, readErr)
	//
	// (op.Current may save the reading of current) and, if changed, it stores next
	// under op.Key() or removes the entry if next is nil. Run decides; it must be
	// called when no other commit can change the key until this one is done, and
	// before any of the change can be read. It may be called again for the same op
	// if the engine has to begin the commit again. Where capacity is bounded, an op for which op.Grants() is true after
	// Run may be refused with op.Refuse instead of being stored; no other may.
	//
	// An op with an Effect is run in two steps: the engine runs the caller's function
	// and goes on with op.Finish, which takes the place of Run. If the function failed,
	// the engine undoes what it wrote and stores what Finish asks for, if anything,
	// before any other change of the key.
	//
	// Then it saves Host.Meta(), called after every Run of the commit, with the
	// changes; if nothing changed, nothing need be saved. When all is durable and
	// Read returns the new state, and before another commit can change one of the
	// keys, it calls op.Committed() for every op that changed something. Then
	// Apply returns nil. What became of each op is in the op.
	//
	// ctx is honoured until the ops join a commit: Apply may return ctx's error
	// only if none of them was or will be stored. From then on it returns the
	// commit's own answer. Any error means that no op was answered: a failed
	// commit returns the error given to Host.Broken. A commit that takes longer than
	// Host.Stall has failed, whatever becomes of it: Apply returns ErrBroken and
	// leaves the commit behind, with the ops, which nobody else uses then.
	Apply(ctx context.Context, ops []*Op) error

	// Close saves Host.Meta(), if the backend is bound and whole, and frees what
	// the engine holds. It is called once, when no other call is under way, unless
	// the backend is broken; one that was never bound is closed by its opener. Close
	// returns in bounded time, also when broken. What locks the files is kept while a
	// write may still be under way.
	Close() error
}

// Host is what a store gives its engine.
type Host struct {
	// Meta returns what to save in the commit that is being made.
	Meta func() Meta
	// Broken tells the store that the engine cannot be trusted any more. err wraps
	// ErrBroken and the cause; the first call counts. If the cause was a panic, an
	// error in it may have the method Stack() string. Broken may be called from any
	// goroutine, under any lock, and returns at once.
	Broken func(err error)
	// Group reports a commit that became durable: how many operations shared it
	// and how long it took. It is called under no lock.
	Group func(ops int, took time.Duration)
	// Clock is the store's.
	Clock Clock
	// Stall is how long a commit may take; zero or less: no bound. It is counted in
	// pieces that the process was there for, since a stopped one is not stuck.
	Stall time.Duration
	// KeyHash returns what stands for a key in messages.
	KeyHash func(key string) string
	// Within marks a context that is given to a function which runs in a commit: calls
	// of the store with it, which would wait for the commit, are refused.
	Within func(ctx context.Context) context.Context
}

// Binding is what an engine tells its store.
type Binding struct {
	// Saved is the Meta of the last commit; zero if there was none.
	Saved Meta
	// Direct: Read is as fast as a cache of entries would be; the store keeps none,
	// and may call Read during and after Close, which must be harmless.
	Direct bool
}

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
