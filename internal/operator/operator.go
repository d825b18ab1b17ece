// Package operator holds what the tools of the person on call share: the admin pages and
// the command line. It says what is stuck and what would settle it, shows a record without
// disclosing more than it may, and carries out what the operator decides. The types with
// JSON names are the wire format of the admin API and of the command line's -json.
package operator

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/idemkv/idem"
)

// Reveal says what of a record may be shown in the clear. The zero value shows neither
// keys nor payloads.
type Reveal struct {
	// Keys shows keys, and with them tokens and fingerprints.
	Keys bool
	// Payloads shows results, reasons, notes and checkpoints.
	Payloads bool
}

// View is how records are shown.
type View struct {
	// KeyHash is Store.KeyHash.
	KeyHash func(key string) string
	// MaxAttempts is the bound that decides what is exhausted, usually that of the
	// store's options. Zero: nothing is.
	MaxAttempts int
	// Now is the wall clock of the store when the record was read.
	Now time.Time
	// Reveal says what may be shown.
	Reveal Reveal
	// Limit bounds the bytes shown of each payload. Zero means DefaultLimit.
	Limit int
}

// ViewOf returns the view of store as its clock reads now.
func ViewOf(store *idem.Store, reveal Reveal) View {
	o := store.Options()
	now, _ := o.Clock.Now()
	return View{KeyHash: store.KeyHash, MaxAttempts: o.MaxAttempts, Now: now, Reveal: reveal}
}

// Record is a record as tools show it. What it hides is absent; the sizes of payloads
// are always there.
type Record struct {
	// KeyHash stands for the key.
	KeyHash string `json:"key_hash"`
	// Key is the key; absent if it is hidden or not UTF-8.
	Key string `json:"key,omitempty"`
	// KeyHex is the key in hexadecimal, where it is not UTF-8.
	KeyHex string `json:"key_hex,omitempty"`
	// Token is the text form of the token. It discloses the key.
	Token string `json:"token,omitempty"`
	// State is the stored state.
	State string `json:"state,omitempty"`
	// Lapsed: in flight, and the lease no longer holds.
	Lapsed bool `json:"lapsed,omitempty"`
	// Unsettled: a claim gets ErrHeld until someone settles the operation.
	Unsettled bool `json:"unsettled,omitempty"`
	// Fence is the latest claim's, in decimal.
	Fence string `json:"fence,omitempty"`
	// Attempt counts the claims granted, from 1.
	Attempt int `json:"attempt,omitempty"`
	// HoldUnknown is the latest claim's Request.HoldUnknown.
	HoldUnknown bool `json:"hold_unknown,omitempty"`
	// Fingerprint is the request's in hexadecimal. It is hidden with the key, because
	// guessable requests could be found by trying.
	Fingerprint string `json:"fingerprint,omitempty"`
	// The times are as in idem.Record; zero ones are absent.
	ClaimedAt  time.Time `json:"claimed_at,omitzero"`
	LeaseUntil time.Time `json:"lease_until,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	// Result is the result, the reason or the note; absent if there is none.
	Result *Payload `json:"result,omitempty"`
	// ResultDropped: the record is final and its result was not kept.
	ResultDropped bool `json:"result_dropped,omitempty"`
	// Checkpoint is what the latest attempt saved part-way.
	Checkpoint *Payload `json:"checkpoint,omitempty"`
	// Stuck says why the operation waits for someone; absent if it does not.
	Stuck *Stuck `json:"stuck,omitempty"`
	// Actions are what an operator may do now.
	Actions []Action `json:"actions,omitempty"`
	// Error says why the record cannot be read. Besides it only the names of the key and
	// Actions are set, and Fence is "0".
	Error string `json:"error,omitempty"`
}

// Record returns rec as v shows it.
func (v View) Record(rec idem.Record) Record {
	r := Record{
		State: rec.State.String(), Fence: strconv.FormatUint(rec.Fence, 10), Attempt: rec.Attempt,
		Lapsed: rec.Lapsed, HoldUnknown: rec.HoldUnknown, ResultDropped: rec.ResultDropped,
		ClaimedAt: rec.ClaimedAt, LeaseUntil: rec.LeaseUntil, FinishedAt: rec.FinishedAt, ExpiresAt: rec.ExpiresAt,
		Result: v.payload(rec.Result), Checkpoint: v.payload(rec.Checkpoint),
		Actions: ActionsOn(rec.State),
	}
	v.name(&r, rec.Key)
	if v.Reveal.Keys {
		if text, err := rec.Token().MarshalText(); err == nil {
			r.Token = string(text)
		}
		if !rec.Fingerprint.IsZero() {
			r.Fingerprint = hex.EncodeToString(rec.Fingerprint[:])
		}
	}
	if stuck, ok := StuckBy(rec, v.MaxAttempts, v.Now); ok {
		r.Stuck = &stuck
		r.Unsettled = stuck.Reason == ReasonHeld || stuck.Reason == ReasonUnknown
	}
	return r
}

// Unreadable returns the record of key, which cannot be read because of err.
func (v View) Unreadable(key string, err error) Record {
	r := Record{Error: err.Error(), Fence: "0", Actions: []Action{Forget}}
	v.name(&r, key)
	return r
}

func (v View) name(r *Record, key string) {
	r.KeyHash = v.KeyHash(key)
	switch {
	case !v.Reveal.Keys:
	case utf8.ValidString(key):
		r.Key = key
	default:
		r.KeyHex = hex.EncodeToString([]byte(key))
	}
}

func (v View) payload(b []byte) *Payload {
	if b == nil {
		return nil
	}
	if !v.Reveal.Payloads {
		return &Payload{Kind: KindHidden, Bytes: len(b)}
	}
	p := Decode(b, v.Limit)
	return &p
}
