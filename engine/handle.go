package engine

// Handle ties a store to its Backend. *idem.Store embeds it, and Of looks it up.
type Handle struct{ backend Backend }

// HandleOf returns the Handle of a store on b.
func HandleOf(b Backend) Handle { return Handle{b} }

func (h Handle) bound() Backend { return h.backend }

// Bound is a store: an *idem.Store or what embeds one.
type Bound interface{ bound() Backend }

// Of returns the Backend that a store was given. Packages of engines use it for their
// own From, Do and Update, which need their part of the engine.
func Of(store Bound) Backend { return store.bound() }
