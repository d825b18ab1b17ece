package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/idemkv/idem"
)

// Event is one line of a journal. Exactly one of its pointers is set.
type Event struct {
	T      int64   `json:"t"` // Unix nanoseconds, of the Clock
	Life   *Life   `json:"life,omitempty"`
	Call   *Op     `json:"call,omitempty"`
	Return *Answer `json:"return,omitempty"`
	Audit  *Audit  `json:"audit,omitempty"`
	Note   string  `json:"note,omitempty"` // for people
}

// Life begins an opening of the store. What was under way before it has crashed.
type Life struct {
	N           int  `json:"n"` // larger than in all lives before
	LapseOnOpen bool `json:"lapseOnOpen,omitempty"`
	MaxAttempts int  `json:"maxAttempts,omitempty"`
}

// Kind is what an operation asks.
type Kind string

// The kinds of operations. Update and Sweep have an empty key.
const (
	Claim      Kind = "claim"
	Complete   Kind = "complete"
	Fail       Kind = "fail"
	Release    Kind = "release"
	Unclaim    Kind = "unclaim"
	Hold       Kind = "hold"
	Extend     Kind = "extend"
	Checkpoint Kind = "checkpoint"
	Get        Kind = "get"
	Wait       Kind = "wait"
	Forget     Kind = "forget"
	Sweep      Kind = "sweep"
	Run        Kind = "run"            // idem.Do: a claim, or a replay
	Undo       Kind = "undo"           // what Run does when its context ended in the claim's commit
	Do         Kind = "do"             // same-commit
	CompleteTx Kind = "completeEffect" // same-commit
	Update     Kind = "update"         // the caller's own writes
)

// settles reports whether operations of the kind ignore the end of a context.
func (k Kind) settles() bool {
	return k == Complete || k == Fail || k == Release || k == Unclaim || k == Hold
}

// effect reports whether operations of the kind run a same-commit function.
func (k Kind) effect() bool { return k == Do || k == CompleteTx || k == Update }

// enters reports whether o writes to the ledger if it takes effect. A function that
// fails does not.
func (o *Op) enters() bool { return o.Kind.effect() && o.Why == "" }

// Op is an operation that is about to be called.
type Op struct {
	ID        int64  `json:"id"` // unique over all lives
	Worker    int    `json:"worker"`
	Kind      Kind   `json:"kind"`
	Key       string `json:"key,omitempty"`
	Fence     uint64 `json:"fence,omitempty"` // of the token shown
	Print     uint8  `json:"print,omitempty"` // fingerprint: 0 is none
	Lease     int64  `json:"lease,omitempty"`
	Retention int64  `json:"retention,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"`  // HoldUnknown
	Attempts  int    `json:"attempts,omitempty"` // MaxAttempts; 0: that of the store
	Bytes     Text   `json:"bytes,omitempty"`    // result, reason, note or checkpoint
	TooLarge  bool   `json:"tooLarge,omitempty"` // Bytes are over MaxResult
	Amount    int64  `json:"amount,omitempty"`   // of the ledger entry
	Of        int64  `json:"of,omitempty"`       // Undo: the Run that it is of
	Why       Text   `json:"why,omitempty"`      // same-commit: the text of the error of a function that fails
	Final     bool   `json:"final,omitempty"`    // and it is Permanent
	Doubt     bool   `json:"doubt,omitempty"`    // or it is Unknown
	Ends      bool   `json:"ends,omitempty"`     // of a Run: what was held or settled by then stays, and is no error
}

// Answer is what an operation returned.
type Answer struct {
	ID       int64   `json:"id"`
	Err      Code    `json:"err"`
	Replayed bool    `json:"replayed,omitempty"` // Run and Do
	Bytes    Text    `json:"bytes,omitempty"`    // Run and Do
	Record   *Record `json:"record,omitempty"`   // Claim, Get, Wait
	Detail   string  `json:"detail,omitempty"`   // of Other
}

// Audit is what was found right after an opening, before any other operation.
type Audit struct {
	// Records are what Store.Records yielded. Began is when it was called.
	Began   int64             `json:"began"`
	Records map[string]Record `json:"records"`
	// Ledger holds every entry: the amount by the ID of the operation that wrote it.
	Ledger map[int64]int64 `json:"ledger"`
	// Balances holds the accounts by number.
	Balances map[int64]int64 `json:"balances"`
}

// Text stands for bytes: their length and the start of a digest. Nil and empty slices
// differ.
type Text string

// TextOf returns the Text of b.
func TextOf(b []byte) Text {
	if b == nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return Text(fmt.Sprintf("%d:%s", len(b), hex.EncodeToString(sum[:6])))
}

// same is equality as in bytes.Equal: nil equals empty.
func (t Text) same(u Text) bool { return t.empty() && u.empty() || t == u }

func (t Text) empty() bool { return t == "" || t == TextOf([]byte{}) }

// Record is an idem.Record with times as Unix nanoseconds, 0 for none.
type Record struct {
	State      idem.State `json:"state"`
	Print      uint8      `json:"print,omitempty"`
	Fence      uint64     `json:"fence"`
	Attempt    int        `json:"attempt"`
	Unknown    bool       `json:"unknown,omitempty"`
	Dropped    bool       `json:"dropped,omitempty"`
	Checkpoint Text       `json:"checkpoint,omitempty"`
	Result     Text       `json:"result,omitempty"`
	ClaimedAt  int64      `json:"claimed"`
	LeaseUntil int64      `json:"lease"`
	FinishedAt int64      `json:"finished,omitempty"`
	ExpiresAt  int64      `json:"expires,omitempty"`
}

const never = int64(math.MaxInt64)

// RecordOf returns what the oracle keeps of r; nil if r is zero except for its key.
func RecordOf(r idem.Record) *Record {
	if r.State == 0 && r.Fence == 0 && r.Attempt == 0 && r.Fingerprint.IsZero() && r.Result == nil && r.Checkpoint == nil {
		return nil
	}
	nanos := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixNano()
	}
	return &Record{
		State: r.State, Print: numberOf(r.Fingerprint), Fence: r.Fence, Attempt: r.Attempt,
		Unknown: r.HoldUnknown, Dropped: r.ResultDropped, Checkpoint: TextOf(r.Checkpoint), Result: TextOf(r.Result),
		ClaimedAt: nanos(r.ClaimedAt), LeaseUntil: nanos(r.LeaseUntil), FinishedAt: nanos(r.FinishedAt), ExpiresAt: nanos(r.ExpiresAt),
	}
}

// prints are the fingerprints of requests, by number; 0 is none.
var prints = [...]idem.Fingerprint{{}, idem.FingerprintOf([]byte("one request")), idem.FingerprintOf([]byte("another"))}

// unknownPrint is the number of a fingerprint that no request gave.
const unknownPrint = 255

func numberOf(f idem.Fingerprint) uint8 {
	for i, p := range prints {
		if f == p {
			return uint8(i)
		}
	}
	return unknownPrint
}

// Code is an error in one word.
type Code string

// The codes. Own is the error of a same-commit function. Context is that of a context
// that ended. Other is an error that should never be returned.
const (
	OK        Code = "ok"
	Completed Code = "completed"
	Failed    Code = "failed"
	InFlight  Code = "inFlight"
	Held      Code = "held"
	Mismatch  Code = "mismatch"
	Exhausted Code = "exhausted"
	Fenced    Code = "fenced"
	NotFound  Code = "notFound"
	TooLarge  Code = "tooLarge"
	Closed    Code = "closed"
	Broken    Code = "broken"
	Context   Code = "context"
	Own       Code = "own"
	Other     Code = "other"
)

var codes = []struct {
	err  error
	code Code
}{
	{errOwn, Own},
	{context.Canceled, Context},
	{context.DeadlineExceeded, Context},
	{idem.ErrClosed, Closed},
	{idem.ErrCompleted, Completed},
	{idem.ErrFailed, Failed},
	{idem.ErrInFlight, InFlight},
	{idem.ErrHeld, Held},
	{idem.ErrMismatch, Mismatch},
	{idem.ErrExhausted, Exhausted},
	{idem.ErrFenced, Fenced},
	{idem.ErrNotFound, NotFound},
	{idem.ErrTooLarge, TooLarge},
}

// errOwn is the error with which the workload's same-commit functions fail.
var errOwn = errors.New("a same-commit function's own error")

// codeOf returns err's code and, for Other, its text.
func codeOf(err error) (Code, string) {
	switch {
	case err == nil:
		return OK, ""
	case errors.Is(err, idem.ErrBroken): // closed or not
		return Broken, err.Error()
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code, ""
		}
	}
	return Other, err.Error()
}

func (e *Event) String() string {
	b, err := json.Marshal(e)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
