package idemhttp

import "net/http"

// Result is what came of a request with a key, for Options.OnResult.
type Result struct {
	// KeyHash stands for the key (Store.KeyHash of the StoreKey), as in what the store's
	// Observer hears. It is empty where the request was refused before its key was known.
	KeyHash string
	// Replayed: the request was answered with the stored answer of an earlier one.
	Replayed bool
	// Outcome is what became of the handler's run, and Stored for a replay. It is zero if
	// the request was refused, or if the outcome could not be recorded: Options.OnError and
	// Options.WriteProblem are given the Problem.
	Outcome Outcome
	// Attempt is which run of the handler this was, from 1. Of a request for which the
	// handler was not run, it is the last one of the record that was found, if any.
	Attempt int
}

// report tells Options.OnResult what came of a request. key is the StoreKey, "" if it is
// not known.
func (m *middleware) report(r *http.Request, key string, res Result) {
	if m.o.OnResult == nil {
		return
	}
	defer func() { _ = recover() }()
	if key != "" {
		res.KeyHash = m.store.KeyHash(key)
	}
	m.o.OnResult(r, res)
}
