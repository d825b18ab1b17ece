// Package engine defines what a storage engine implements and what the store above it
// provides and expects. It is for engine authors; users of a store need none of it.
//
// A [Backend] keeps an [Entry] under each key and runs operations ([Op]) on them
// atomically and durably. It has no rules of its own about who may do what: the store's
// Op.Run decides. An engine that passes idemtest.Run is complete. The interfaces
// [Scanner], [Expirer], [Checker], [Sizer] and [Verifier] are optional.
package engine

import (
	"context"
	"time"
)

// Backend is what an engine implements.
//
//   - Keep each Entry and the Meta intact. Either every field comes back as it was given,
//     with nil and empty slices kept apart, or the entry does not come back at all.
//   - Let only one Backend at a time have the file, directory or address. A second Open of
//     it, in this process or another, returns ErrLocked. Take the lock when opening, before
//     reading anything, and keep it while a write may still be under way.
//   - Let only one store have the Backend. A second Bind is refused.
//   - The content is unknown once a commit has failed, the engine has panicked, or its files
//     could not be read. Call Host.Broken before anything else sees that state, and answer
//     every later call with that error. Never end the process, and let no panic or memory
//     fault out.
//   - Expect concurrent calls of Read, Apply and the optional methods until Close.
//
// Without Scanner, Store.Records and Stats return ErrInvalid. Without Expirer, expired
// records are invisible to readers but never removed; the owner of the engine must then free
// the space. Without Checker, Store.Health does not see that the engine is full. An engine
// that runs no same-commit functions ignores Op.Effect. An op with an effect then reports
// no change, and the store tells its caller that the engine runs no effects.
type Backend interface {
	// Bind ties the backend to host and returns the Meta of the last commit. idem.New
	// calls it once, before any other method. Host.Meta and Host.KeyHash wait until Bind
	// has returned, so Bind must not call them. ErrInvalid is returned when the backend
	// is bound already, ErrClosed when it is closed.
	Bind(host Host) (Binding, error)

	// Read returns the entry of key, nil if there is none. It never returns what a crash
	// could undo: while a commit of the key is under way, it returns the previous entry
	// without waiting. It returns expired entries like any others. The entry and its
	// slices are shared and never changed.
	//
	// An engine that waits for something other than its own disk, such as a network,
	// returns ctx's error when ctx ends first. Other engines may ignore ctx. ErrCorrupt
	// or ErrVersion is returned when the entry exists but cannot be read. ErrBroken is
	// returned once the engine is broken.
	Read(ctx context.Context, key string) (*Entry, error)

	// Apply runs ops in their order and in one commit, or in several if they are too much
	// for one. It may add ops of other callers to a commit. To each op it passes the entry
	// that is current at that point of the commit, earlier ops of the same commit included:
	//
	//	next, changed := op.Run(current, readErr)
	//
	// readErr is ErrCorrupt or ErrVersion, wrapped, when the entry is there and cannot be
	// read; current is then nil. An engine that cannot read at all is broken.
	//
	// If changed, it stores next under op.Key(), or removes the entry if next is nil.
	// From Run until the commit is done, no other commit can change the key and nobody can
	// read the change. An engine that must restart the commit calls Run again.
	//
	// Op.Current may save reading the current entry. Ask it right before Run: if an earlier
	// op in the same commit changed the key, it knows nothing.
	//
	// An engine with bounded capacity may call Op.Refuse with ErrFull instead of storing an
	// op's change or running its effect, but only if Op.Grants is true. The store then sweeps
	// through Expirer to free room, and applies the op once more if anything was removed.
	//
	// An op may have an Effect, a function of the caller's to run in the same commit. Run then
	// reports no change, and Op.Effect returns the function. The engine runs it and calls
	// Op.Finish, whose answer counts in place of Run's. If the function failed, the engine
	// undoes what it wrote. It stores what Finish asks for, if anything, before any other
	// change of the key.
	//
	// With the changes it saves Host.Meta(), called after the last Run and Finish of the
	// commit. If nothing changed, it need not save anything. Once everything is durable and
	// Read returns the new state, it calls Op.Committed for every op that changed something,
	// for one key in the order of the ops, before another commit can change that key. Then
	// Apply returns nil. The answers are in the ops.
	//
	// Apply may return ctx's error only if no op was or will be stored. Once the ops have
	// joined a commit, it returns that commit's answer, even if ctx ends. An error means that
	// no op was answered. A failed commit returns the error given to Host.Broken. So does one
	// that takes longer than Host.Stall, however it ends: Apply returns without waiting for
	// it. The ops then stay with the engine, and the store does not touch them again.
	Apply(ctx context.Context, ops []Op) error

	// Close saves Host.Meta(), if the backend is bound and intact, and frees the
	// engine's resources. The store calls it once, when no other call is under way, the
	// backend is broken, or a call has not returned for Host.Stall: a read that the
	// operating system does not answer. A caller that opens a backend and never binds it
	// closes it. Close returns in bounded time, even when broken. After it the store
	// makes no more calls, except Read if Binding.Direct is set; other engines answer
	// late calls with ErrClosed.
	Close() error
}

// Host is what a store gives its engine.
type Host struct {
	// Meta returns what to save with the current commit.
	Meta func() Meta
	// Broken tells the store that the engine can no longer be trusted. err wraps
	// ErrBroken and the cause; only the first call counts. If the cause was a panic, an
	// error in err may have the method Stack() string. Broken may be called from any
	// goroutine, under any lock, and returns at once.
	Broken func(err error)
	// Group reports a commit that became durable: how many operations shared it and how
	// long it took. It calls the user's observer, which may be slow or may call the
	// store. So hold no lock when calling it, and use no goroutine that a commit waits
	// for. The goroutine of a caller that has its answer will do.
	Group func(ops int, took time.Duration)
	// Clock is the store's.
	Clock Clock
	// Stall is how long a commit may take; zero or less: no bound. It is real time, not
	// Clock's. Measure it in short pieces, to count only time in which the process was
	// running: a stopped process is not stuck.
	Stall time.Duration
	// KeyHash returns the hash that stands for a key in messages. Messages never contain
	// the key itself.
	KeyHash func(key string) string
	// Within returns the context for a function that runs in a commit, made from its
	// caller's. Calls to the store with that context would wait for the commit, so they
	// are refused.
	Within func(ctx context.Context) context.Context
}

// Clock is idem.Clock.
type Clock interface {
	// Now returns the wall clock, which may step, and the time elapsed since some fixed
	// point, which never goes back.
	Now() (wall time.Time, elapsed time.Duration)
	// AfterFunc calls f in its own goroutine once d has elapsed. stop cancels the call
	// and reports whether it did.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Binding is what an engine tells its store.
type Binding struct {
	// Saved is the Meta of the last commit; zero if there was none.
	Saved Meta
	// Direct: Read is as fast as a cache of entries would be. The store then keeps no
	// cache and may call Read during and after Close, which must be harmless.
	Direct bool
	// ReadOnly: the engine was opened for reading only. The store then refuses every
	// change itself and starts no sweeper. Close saves nothing.
	ReadOnly bool
}
