package engine

// Op is one operation on one key on its way through an engine: it holds what is asked
// and, after Run, the answer. The store makes it; Backend.Apply says when an engine calls
// what. It belongs to the engine until Apply returns.
type Op interface {
	// Key returns the key the operation is on.
	Key() string
	// Size returns how many bytes of payload the operation brings along.
	Size() int
	// Due returns the place in the expiry index that led to this operation, zero if
	// none did.
	Due() Instant
	// Current returns the entry that is current for this operation, nil for none, if the
	// store knows it without asking the engine; known is false if it does not. It may be
	// called where Run may, and in place of the read that Run needs.
	Current() (e *Entry, known bool)
	// Run decides what becomes of the entry current (nil: none). readErr is the error of
	// reading it: the op then changes nothing, unless it is to forget whatever the key
	// has. next == nil with changed means that the entry is to be removed.
	Run(current *Entry, readErr error) (next *Entry, changed bool)
	// Grants reports, after Run, whether the op is a claim that would be granted and
	// needs room: the only one that may be refused for capacity. A takeover does not:
	// the claim that it takes over had its room.
	Grants() bool
	// Refuse answers the op with err in place of the change that Run asked for.
	Refuse(err error)
	// Effect returns, after Run, the caller's function that is to be run in the same
	// commit before the op can change anything; nil if there is none or the op was
	// refused. Its type is the engine's own (see Store.DoEffect). The engine runs it and
	// goes on with Finish.
	Effect() any
	// Finish decides, in place of Run, what becomes of the entry now that the effect has
	// returned result or err. If err is not nil the engine undoes what the effect wrote,
	// and the op need not be run again; changed is then true if the failure itself is to
	// be recorded, before anything else of the key.
	Finish(result []byte, err error) (next *Entry, changed bool)
	// Committed tells the store that the op's change is durable and can be read.
	Committed()
}
