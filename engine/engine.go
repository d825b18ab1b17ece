// Package engine is what a storage engine implements, and what the store above it gives
// and asks. It is for those who write engines; users of a store need none of it.
//
// A [Backend] keeps an [Entry] under each key and runs operations ([Op]) on them
// atomically and durably. It holds no rule of who may do what: Op.Run, which the store
// brings along, decides. An engine that passes idemtest.Run is an engine. The interfaces
// [Scanner], [Expirer], [Checker] and [Sizer] are optional.
package engine

import (
	"context"
	"time"
)

// Backend is what an engine implements.
//
//   - Keep an Entry and a Meta whole. Every field comes back as it was given, with nil
//     and empty slices told apart, or the entry does not come back at all.
//   - Let one Backend at a time have the file, directory or address. A second Open of it,
//     in this process or another, returns ErrLocked. Take the lock when opening, before
//     anything is read, and keep it while a write may still be under way.
//   - Let one store have the Backend. A second Bind is refused.
//   - When a commit fails, when the engine panics, or when its files cannot be read,
//     nobody knows what it holds. Call Host.Broken before anything else sees that state,
//     and answer everything with that error from then on. Never end the process, and let
//     no panic or memory fault out.
//   - Expect Read, Apply and the optional methods from many goroutines at once, until
//     Close.
//
// Without Scanner, Store.Records and Stats return ErrInvalid. Without Expirer nothing
// that has expired is ever removed, though it is absent to every reader; who frees room
// then is up to the engine's owner. An engine that runs no same-commit functions has
// nothing to do for them: it never asks Op.Effect, and an op that has an effect reports
// no change, so the store tells its caller that the engine runs none.
type Backend interface {
	// Bind makes the backend host's and returns the Meta of the last commit. It is
	// called once, by idem.New, before any other method. ErrInvalid is returned when the
	// backend is bound already, ErrClosed when it is closed.
	Bind(host Host) (Binding, error)

	// Read returns the entry of key, nil if there is none. It never returns what a crash
	// could undo: while a commit of the key is under way it returns what was there before,
	// and it never waits for the commit. It returns expired entries like others. The
	// entry and its slices are shared and never changed.
	//
	// An engine that waits for something other than its own disk, such as a network,
	// returns ctx's error when ctx ends first. Others may ignore ctx. ErrCorrupt or
	// ErrVersion is returned when the entry is there and cannot be read. ErrBroken is
	// returned once the engine is broken.
	Read(ctx context.Context, key string) (*Entry, error)

	// Apply runs ops in one commit, in their order, together with those of other callers
	// as it likes. For each op it passes the entry that is current at that point of the
	// commit, where ops before it in the same commit count:
	//
	//	next, changed := op.Run(current, readErr)
	//
	// If changed, it stores next under op.Key(), or removes the entry if next is nil.
	// From Run until the commit is done no other commit can change the key, and until
	// then nobody can read the change. An engine that has to begin the commit again calls
	// Run again.
	//
	// Op.Current may save reading the current entry. It is asked right before Run: an op
	// before it in the same commit that changed the key makes it know nothing.
	//
	// Where the engine's capacity is bounded it may answer an op with Op.Refuse and
	// ErrFull instead of storing its change, if Op.Grants is true. No other op may be
	// refused. The store then sweeps through Expirer, which is how room comes back, and
	// applies the op once more if anything was removed.
	//
	// An op with an Effect takes two steps. The engine runs the caller's function and
	// goes on with Op.Finish in place of Run. If the function failed, the engine undoes
	// what it wrote and stores what Finish asks for, if anything, before any other change
	// of the key.
	//
	// With the changes it saves Host.Meta(), called after every Run of the commit. If
	// nothing changed it need save nothing. When all is durable, when Read returns the
	// new state, and before another commit can change one of the keys, it calls
	// Op.Committed for every op that changed something. Then Apply returns nil. The
	// answers are in the ops.
	//
	// Apply may return ctx's error only if none of ops was or will be stored. Once they
	// have joined a commit it returns that commit's answer, whatever becomes of ctx. Any
	// error means that no op was answered. A failed commit returns the error given to
	// Host.Broken. So does one that takes longer than Host.Stall, whatever becomes of it:
	// Apply leaves it behind, with the ops, which nobody else uses then.
	Apply(ctx context.Context, ops []Op) error

	// Close saves Host.Meta(), if the backend is bound and whole, and frees what the
	// engine holds. It is called once, when no other call is under way, unless the
	// backend is broken. Who opened a backend and never bound it closes it. Close returns
	// in bounded time, also when broken. After it the store makes no more calls, except
	// Read where Binding.Direct is set; other engines answer late calls with ErrClosed.
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
	// Group reports a commit that became durable: how many operations shared it and how
	// long it took. It calls the user's observer, which may take its time or call the
	// store. So call it under no lock and from no goroutine that a commit waits for; the
	// goroutine of a caller that has its answer will do.
	Group func(ops int, took time.Duration)
	// Clock is the store's.
	Clock Clock
	// Stall is how long a commit may take; zero or less: no bound. Count it in pieces
	// that the process was there for: one that was stopped is not stuck.
	Stall time.Duration
	// KeyHash returns what stands for a key in messages. Keys themselves never appear
	// there.
	KeyHash func(key string) string
	// Within marks a context that is given to a function which runs in a commit: calls
	// of the store with it, which would wait for the commit, are refused.
	Within func(ctx context.Context) context.Context
}

// Clock is idem.Clock.
type Clock interface {
	// Now returns the wall clock, which may step, and the time elapsed since some fixed
	// point, which never goes back.
	Now() (wall time.Time, elapsed time.Duration)
	// AfterFunc calls f in a goroutine of its own once d has elapsed. stop cancels the
	// call and reports whether it did.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Binding is what an engine tells its store.
type Binding struct {
	// Saved is the Meta of the last commit; zero if there was none.
	Saved Meta
	// Direct: Read is as fast as a cache of entries would be. The store keeps none, and
	// may call Read during and after Close, which must be harmless.
	Direct bool
}
