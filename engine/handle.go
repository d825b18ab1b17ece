package engine

// Handle ties a store to its Backend. *idem.Store embeds it, and Of looks it up.
type Handle struct{ backend Backend }

// HandleOf returns the Handle of a store on b.
func HandleOf(b Backend) Handle { return Handle{b} }

func (h Handle) bound() Backend { return h.backend }

// Bound is a store: an *idem.Store, or a type that embeds one.
type Bound interface{ bound() Backend }

// Of returns the Backend that a store was given. The engine packages use it in From, Do
// and Update, which need their own engine.
func Of(store Bound) Backend { return store.bound() }
