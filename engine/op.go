package engine

// Op is one operation on one key as it passes through an engine. It holds the request
// and, after Run, the answer. The store makes it. Backend.Apply documents which method
// an engine calls when. The op belongs to the engine until Apply returns.
type Op interface {
	// Key returns the key the operation is on: 1 to idem.MaxKey bytes of any kind, not
	// necessarily text.
	Key() string
	// Size returns how many bytes of payload the operation carries.
	Size() int
	// Due returns the place in the expiry index that led to this operation; zero if none
	// did.
	Due() Instant
	// Current returns the current entry, nil for none, if the store knows it without
	// asking the engine. known is false if it does not. It may be called wherever Run
	// may, in place of the read that Run needs.
	Current() (e *Entry, known bool)
	// Run decides what becomes of the entry current (nil: none). readErr is the error
	// from reading it. With an error the op changes nothing, unless it is to forget
	// whatever the key has. next == nil with changed means that the entry is to be
	// removed. changed may be true although next is current, or both are nil: the place
	// that led to the op (Due) is then stale and is to be removed.
	Run(current *Entry, readErr error) (next *Entry, changed bool)
	// Grants reports, after Run, whether the op is a claim that would be granted, or
	// brings a record from another store, and needs room. Only such an op may be refused
	// for capacity. A takeover needs none: the claim it takes over had its room.
	Grants() bool
	// Refuse answers the op with err instead of making the change that Run asked for.
	Refuse(err error)
	// Effect returns, after Run, the caller's function to run in the same commit before
	// the op can change anything. It is nil if there is none or the op was refused. Its
	// type is the engine's own (see Store.DoEffect). The engine runs it with a context from
	// Host.Within, and then calls Finish. A panic or Goexit of the function is an error to
	// Finish; the engine's own Do repeats it in the caller.
	Effect() any
	// Finish decides, in place of Run, what becomes of the entry after the effect has
	// returned result or err. If err is not nil, the engine undoes what the effect wrote
	// and need not run the op again. changed is then true if the failure itself must be
	// recorded, before any other change of the key.
	Finish(result []byte, err error) (next *Entry, changed bool)
	// Committed tells the store that the op's change is durable and can be read.
	Committed()
}
