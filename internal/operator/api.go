package operator

import (
	"context"
	"errors"
	"time"

	"github.com/idemkv/idem"
)

// The admin API, below the path that it is mounted at. Errors are Problem values.
//
//	GET  api/stats                                 Stats
//	GET  api/health                                Health
//	GET  api/records?state=&prefix=&hash=&unsettled=&stuck=&limit=&after=   List
//	GET  api/records/{hash}[?fence=&after=]        Record
//	POST api/find                                  FindRequest, Record
//	POST api/records/{hash}/{fence}/{action}       SettleRequest, Settled
//
// stuck is a reason, or "any". A list ends where Next is empty. A part of it may be empty
// before that: only so many records are looked at for one answer. A search by hash that
// ends before the store does answers TypeNotReached; go on with its Next as after. Bodies
// are application/json. A record that cannot be read has fence 0, and can be forgotten.

// Stats is idem.Stats as tools show it.
type Stats struct {
	// At is the wall clock of the store when it was counted.
	At        time.Time `json:"at"`
	InFlight  int       `json:"in_flight"`
	Released  int       `json:"released"`
	Held      int       `json:"held"`
	Completed int       `json:"completed"`
	Failed    int       `json:"failed"`
	Lapsed    int       `json:"lapsed"`
	// Unsettled is how many of Held and Lapsed refuse claims until someone settles them.
	Unsettled int `json:"unsettled"`
	Expired   int `json:"expired"`
	Corrupt   int `json:"corrupt"`
	// OldestInFlightSeconds is the age of the oldest claim in flight.
	OldestInFlightSeconds float64 `json:"oldest_in_flight_seconds"`
	CacheEntries          int     `json:"cache_entries"`
	CacheBytes            int64   `json:"cache_bytes"`
	CacheHits             uint64  `json:"cache_hits"`
	CacheMisses           uint64  `json:"cache_misses"`
	Commits               uint64  `json:"commits"`
	CommittedOps          uint64  `json:"committed_ops"`
	EngineBytes           int64   `json:"engine_bytes"`
}

// StatsOf converts s, counted at at.
func StatsOf(s idem.Stats, at time.Time) Stats {
	return Stats{
		At: at, InFlight: s.InFlight, Released: s.Released, Held: s.Held, Completed: s.Completed, Failed: s.Failed,
		Lapsed: s.Lapsed, Unsettled: s.Unsettled, Expired: s.Expired, Corrupt: s.Corrupt, OldestInFlightSeconds: s.OldestInFlight.Seconds(),
		CacheEntries: s.CacheEntries, CacheBytes: s.CacheBytes, CacheHits: s.CacheHits, CacheMisses: s.CacheMisses,
		Commits: s.Commits, CommittedOps: s.CommittedOps, EngineBytes: s.EngineBytes,
	}
}

// Health is what Store.Health answered.
type Health struct {
	// Ready: a claim of a new key would be granted.
	Ready bool `json:"ready"`
	// Cause is why not, in a word: see Cause. Empty if ready.
	Cause string `json:"cause,omitempty"`
	// Error is the error.
	Error string `json:"error,omitempty"`
}

// HealthOf returns what err, from Store.Health, says.
func HealthOf(err error) Health {
	if err == nil {
		return Health{Ready: true}
	}
	return Health{Cause: Cause(err), Error: err.Error()}
}

// Cause returns a word for what is wrong with a store that answers err: closed, broken,
// full, timeout, corrupt, version, locked, invalid or other. It is fit for a label.
func Cause(err error) string {
	for _, c := range []struct {
		err  error
		word string
	}{
		{idem.ErrClosed, "closed"},
		{idem.ErrBroken, "broken"},
		{idem.ErrFull, "full"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "timeout"},
		{idem.ErrVersion, "version"},
		{idem.ErrCorrupt, "corrupt"},
		{idem.ErrLocked, "locked"},
		{idem.ErrInvalid, "invalid"},
	} {
		if errors.Is(err, c.err) {
			return c.word
		}
	}
	return "other"
}

// List is a part of a list of records.
type List struct {
	// Records are in no particular order. Those of a damaged record have Error set.
	Records []Record `json:"records"`
	// Looked is how many stored records were looked at for this part.
	Looked int `json:"looked"`
	// Next continues the list when given as after; empty at the end.
	Next string `json:"next,omitempty"`
}

// FindRequest names a record by one of its fields. A key in the body is in no access log.
type FindRequest struct {
	// Key is the key.
	Key string `json:"key,omitempty"`
	// KeyHex is the key in hexadecimal.
	KeyHex string `json:"key_hex,omitempty"`
	// Token is the text form of a token. A record with another fence is not found.
	Token string `json:"token,omitempty"`
}

// SettleRequest is the body of a settling request. It may be empty for forget.
type SettleRequest struct {
	// Format says how Payload is written; see ParsePayload.
	Format Format `json:"format,omitempty"`
	// Payload is the result, reason or note.
	Payload string `json:"payload,omitempty"`
	// State is the state that the operator saw. Forget refuses a record in another
	// state; empty: whatever the state.
	State string `json:"state,omitempty"`
}

// Settled says that an order was carried out.
type Settled struct {
	// Action is what was done.
	Action Action `json:"action"`
	// KeyHash and Fence name the operation.
	KeyHash string `json:"key_hash"`
	Fence   string `json:"fence"`
	// Record is what is there now; absent if nothing is.
	Record *Record `json:"record,omitempty"`
}

// ParseState returns the state named text, as State.String writes it. "" is zero.
// idem.ErrInvalid is returned when there is none.
func ParseState(text string) (idem.State, error) {
	if text == "" {
		return 0, nil
	}
	for _, s := range States() {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, invalid("the state is %q; in_flight, released, held, completed and failed are possible", Line(text, 40))
}

// States lists the stored states.
func States() []idem.State {
	return []idem.State{idem.InFlight, idem.Released, idem.Held, idem.Completed, idem.Failed}
}

// ParseReason returns the reason named text. "" and "any" are "". idem.ErrInvalid is
// returned when there is none.
func ParseReason(text string) (Reason, error) {
	if text == "" || text == "any" {
		return "", nil
	}
	for _, r := range Reasons() {
		if string(r) == text {
			return r, nil
		}
	}
	return "", invalid("the reason is %q; any, held, unknown, exhausted, lapsed and released are possible", Line(text, 40))
}
