package idemhttp

import "net/http"

// Result is what came of a request with a key, for Options.OnResult.
type Result struct {
	// KeyHash stands for the key (Store.KeyHash of the StoreKey), as in the events of the
	// store. It is empty if the request was refused before its key was known.
	KeyHash string
	// Replayed: the request got the stored answer of an earlier one.
	Replayed bool
	// Outcome is what became of the handler's run, and Stored for a replay. It is zero if
	// the request was refused or the outcome could not be recorded. Options.WriteProblem
	// then gets the Problem, and so does Options.OnError if the server is at fault.
	Outcome Outcome
	// Attempt is the number of this run of the handler, from 1. If the handler did not run,
	// it is that of the record's latest attempt; zero if there is no record.
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
