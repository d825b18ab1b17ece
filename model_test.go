package idem

import (
	"bytes"
	"fmt"
	"math"

	"github.com/idemkv/idem/engine"
)

// A second model of the state machine, written from the table and not from
// transition.go: records are plain values, times unsigned, and the rules a list of
// which the first that fits decides. The two are compared in
// transition_model_test.go and fuzz_test.go.

// mForever is the time that never comes.
const mForever = math.MaxUint64

// mNone is the text of no bytes at all, which empty bytes are not.
const mNone = "(none)"

type mRecord struct {
	State                               string // "" is no record
	Print                               string // "" agrees with any
	Point, Result                       string
	Attempt                             int
	Fence, Opening                      uint64
	Hold, Dropped, Bound                bool
	Claimed, LeaseEnd, Finished, GoneAt uint64
	Lease, Retention                    uint64
}

// mAsk is one operation, with the time at which it is asked.
type mAsk struct {
	op               string
	now              uint64
	fence            uint64
	print            string
	lease, retention uint64
	hold             bool
	max              int
	opening, from    uint64
	body             string
	dropped          bool
	ending           bool   // the work has returned: what it held by itself stays
	issued           uint64 // 0: unknown
	wall, lost       uint64
}

// mRule is one line of the model: if it fits, it gives the record and the answer.
type mRule struct {
	fits bool
	then func() (mRecord, string)
}

func model(r mRecord, q mAsk) (mRecord, string) {
	answer := func(s string) func() (mRecord, string) { return func() (mRecord, string) { return r, s } }
	become := func(s string, change func(*mRecord)) func() (mRecord, string) {
		return func() (mRecord, string) {
			n := r
			change(&n)
			return n, s
		}
	}
	gone := r.State == "" || q.now >= r.GoneAt
	differ := r.Print != "" && q.print != "" && r.Print != q.print
	holds := q.now < r.LeaseEnd && r.Opening >= q.from
	usedUp := q.max > 0 && r.Attempt >= q.max
	in := func(states ...string) bool {
		for _, s := range states {
			if r.State == s {
				return true
			}
		}
		return false
	}
	issued := min(q.issued, q.wall)
	late := q.issued != 0 && (issued <= q.lost || mSum(issued, q.retention) <= q.wall)
	granted := func(attempt int, point, reason, print string) func() (mRecord, string) {
		return func() (mRecord, string) {
			n := mRecord{
				State: "in_flight", Print: print, Point: point, Result: reason, Attempt: attempt, Fence: q.fence,
				Opening: q.opening, Hold: q.hold, Claimed: q.now, LeaseEnd: mSum(q.now, q.lease),
				Lease: q.lease, Retention: q.retention,
			}
			n.GoneAt = mSum(n.LeaseEnd, n.Retention)
			if n.Hold {
				n.GoneAt = mForever
			}
			return n, ""
		}
	}
	anew, again := granted(1, mNone, mNone, q.print), granted(r.Attempt+1, r.Point, r.Result, r.Print)
	if q.print != "" {
		again = granted(r.Attempt+1, r.Point, r.Result, q.print)
	}

	var rules []mRule
	switch q.op {
	case "claim":
		rules = []mRule{
			{gone && late, answer("too_late")},
			{gone, anew},
			{in("released") && differ && r.Point == mNone && !r.Bound, anew},
			{differ, answer("mismatch")},
			{in("completed", "failed", "held"), answer(r.State)},
			{in("in_flight") && holds, answer("in_flight")},
			{in("in_flight") && r.Hold, answer("held")},
			{usedUp, answer("exhausted")},
			{true, again},
		}
	case "forget":
		rules = []mRule{
			{q.fence == 0 || r.Fence == q.fence, func() (mRecord, string) { return mRecord{}, "" }},
			{gone, answer("")},
			{true, answer("fenced")},
		}
	case "sweep":
		rules = []mRule{
			{gone, func() (mRecord, string) { return mRecord{}, "" }},
			{true, answer("")},
		}
	default:
		final := map[string]string{"complete": "completed", "fail": "failed"}[q.op]
		tooLarge := ""
		if q.dropped {
			tooLarge = "too_large"
		}
		sameBytes := r.Dropped == q.dropped && mBytes(r.Result) == mBytes(q.body)
		rules = []mRule{
			{gone && q.op == "unclaim", answer("")},
			{gone || r.Fence != q.fence, answer("fenced")},
			{q.op == "unclaim" && in("in_flight") && r.Attempt == 1 && r.Point == mNone, func() (mRecord, string) { return mRecord{}, "" }},
			{q.op == "unclaim" && in("in_flight"), become("", func(n *mRecord) {
				n.State, n.Bound, n.Attempt, n.GoneAt = "released", true, r.Attempt-1, mSum(q.now, n.Retention)
			})},
			{q.op == "unclaim" && in("released"), answer("")},
			{q.ending && in("held") && q.op != "hold", answer("held")},
			{final != "" && in("in_flight", "held"), become(tooLarge, func(n *mRecord) {
				n.State, n.Point, n.Result, n.Dropped, n.Finished = final, mNone, q.body, q.dropped, q.now
				n.GoneAt = mSum(q.now, n.Retention)
			})},
			{final != "" && in(final) && sameBytes, answer(tooLarge)},
			{q.op == "release" && in("in_flight", "held"), become("", func(n *mRecord) {
				n.State, n.Result, n.GoneAt = "released", q.body, mSum(q.now, n.Retention)
			})},
			{q.op == "release" && in("released"), answer("")},
			{q.op == "hold" && in("in_flight"), become("", func(n *mRecord) {
				n.State, n.Result, n.GoneAt = "held", q.body, mForever
			})},
			{q.op == "hold" && in("held"), answer("")},
			{q.op == "extend" && in("in_flight"), become("", func(n *mRecord) {
				by := q.lease
				if by == 0 {
					by = n.Lease
				}
				if end := mSum(q.now, by); end > n.LeaseEnd {
					n.LeaseEnd = end
				}
				n.Opening = q.opening
				if !n.Hold {
					n.GoneAt = mSum(n.LeaseEnd, n.Retention)
				}
			})},
			{q.op == "checkpoint" && in("in_flight"), become("", func(n *mRecord) { n.Point = q.body })},
			{in("held", "completed", "failed"), answer(r.State)},
			{true, answer("fenced")},
		}
	}
	for _, rule := range rules {
		if rule.fits {
			return rule.then()
		}
	}
	panic("no rule fits")
}

// mSum adds a duration to a time: what reaches the end of time is forever.
func mSum(t, d uint64) uint64 {
	if t == mForever || d == mForever || t+d >= math.MaxInt64 {
		return mForever
	}
	return t + d
}

func mBytes(text string) string {
	if text == mNone {
		return ""
	}
	return text
}

// What follows turns the one model's words into the other's.

func mTime(t engine.Instant) uint64 {
	if t == engine.Never {
		return mForever
	}
	return uint64(t)
}

func mText(b []byte) string {
	if b == nil {
		return mNone
	}
	return string(b)
}

func mPrint(f Fingerprint) string {
	if f == (Fingerprint{}) {
		return ""
	}
	return string(f[:])
}

func modelOf(e *engine.Entry) mRecord {
	if e == nil {
		return mRecord{}
	}
	return mRecord{
		State: e.State.String(), Print: mPrint(e.Fingerprint), Point: mText(e.Checkpoint), Result: mText(e.Result),
		Attempt: int(e.Attempt), Fence: e.Fence, Opening: e.Epoch, Hold: e.HoldUnknown, Dropped: e.ResultDropped, Bound: e.Bound,
		Claimed: mTime(e.ClaimedAt), LeaseEnd: mTime(e.LeaseUntil), Finished: mTime(e.FinishedAt), GoneAt: mTime(e.ExpiresAt),
		Lease: mTime(engine.Instant(e.Lease)), Retention: mTime(engine.Instant(e.Retention)),
	}
}

var mOps = map[actionKind]string{
	actClaim: "claim", actComplete: "complete", actFail: "fail", actRelease: "release", actUnclaim: "unclaim", actHold: "hold",
	actExtend: "extend", actCheckpoint: "checkpoint", actForget: "forget", actSweep: "sweep",
}

func askOf(a *action, now engine.Instant) mAsk {
	return mAsk{
		op: mOps[a.kind], now: mTime(now), fence: a.fence, print: mPrint(a.fingerprint),
		lease: mTime(engine.Instant(a.lease)), retention: mTime(engine.Instant(a.retention)), hold: a.holdUnknown,
		max: int(a.maxAttempts), opening: a.epoch, from: a.leasesFrom, body: mText(a.bytes), dropped: a.dropped, ending: a.unlessHeld,
		issued: uint64(a.issuedAt), wall: uint64(a.wall), lost: uint64(a.lostUntil),
	}
}

var mAnswers = map[error]string{
	nil: "", ErrCompleted: "completed", ErrFailed: "failed", ErrInFlight: "in_flight", ErrHeld: "held",
	ErrMismatch: "mismatch", ErrExhausted: "exhausted", ErrFenced: "fenced", ErrTooLarge: "too_large",
	ErrTooLate: "too_late",
}

// machine is transition, or a mutant of it.
type machine func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error)

// compareStep asks a of cur of both models, and checks what the model does not
// speak of. It returns what became of the record.
func compareStep(m machine, cur *engine.Entry, a action, now engine.Instant) (*engine.Entry, error) {
	asked := a
	var before engine.Entry
	if cur != nil {
		before = *cur
	}
	was := modelOf(cur)
	next, err := m(cur, &a, now)
	if cur != nil && (modelOf(cur) != was || cur.Due != before.Due) {
		return nil, fmt.Errorf("the record given in was modified: %+v", *cur)
	}
	answer, known := mAnswers[err]
	if !known {
		return nil, fmt.Errorf("answer %v is not one of the table", err)
	}
	want, wantAnswer := model(was, askOf(&asked, now))
	got := modelOf(next)
	if got != want || answer != wantAnswer {
		return nil, fmt.Errorf("%s of\n%+v\nat %d with %+v\ngot  %q %+v\nwant %q %+v",
			mOps[asked.kind], was, now, asked, answer, got, wantAnswer, want)
	}
	if next != nil && next != cur && got == was && next.Due == before.Due && a.kind != actExtend && a.kind != actCheckpoint {
		return nil, fmt.Errorf("%s: a record that stays as it is was written again: %+v", mOps[asked.kind], *cur)
	}
	if a.kind == actComplete && !a.unlessHeld {
		// Before its result is computed, a completion is answered as one with another
		// result than any that was recorded.
		ask := askOf(&asked, now)
		ask.body, ask.dropped = "not computed yet", false
		if _, want := model(was, ask); mAnswers[refuseEffect(cur, &asked, now)] != want {
			return nil, fmt.Errorf("a completion to be computed, of\n%+v\nat %d with %+v\nwant %q", was, now, asked, want)
		}
	}
	return next, checkStep(cur, next, &asked, err, now)
}

// checkStep holds what is true of every step, whatever the rules.
func checkStep(cur, next *engine.Entry, a *action, answer error, now engine.Instant) error {
	fail := func(what string) error {
		return fmt.Errorf("%s: %s of %+v at %d made %+v", what, mOps[a.kind], cur, now, next)
	}
	if answer != nil && answer != ErrTooLarge && next != cur {
		return fail("a refusal changed the record")
	}
	if next == nil {
		return nil
	}
	switch {
	case next.Due > next.ExpiresAt:
		return fail("the sweeper would come after the record expires")
	case (next.Due == 0) != (next.ExpiresAt == engine.Never):
		return fail("Due must be zero exactly when the record never expires")
	case next.Bound && next.State != Released:
		return fail("a record is bound that nobody unclaimed")
	case next.State == 0 || next.Attempt == 0 && !next.Bound || next.Fence == 0:
		return fail("state, attempt or fence is zero")
	case next.State.Final() && next.Checkpoint != nil:
		return fail("a final record kept its checkpoint")
	case next.ResultDropped && (!next.State.Final() || next.Result != nil):
		return fail("a dropped result is not of a final record without one")
	case next.State == Held && next.ExpiresAt != engine.Never:
		return fail("a held record expires")
	}
	if cur == nil {
		return nil
	}
	switch {
	case next.Fence < cur.Fence:
		return fail("the fence went back")
	case next.Fence != cur.Fence && a.kind != actClaim:
		return fail("the fence changed without a claim")
	case live(cur, now) && cur.State.Final() && next != cur && a.kind != actSweep:
		return fail("a live final record changed")
	case live(cur, now) && next.Fence == cur.Fence && next.LeaseUntil < cur.LeaseUntil:
		return fail("the lease was shortened")
	case a.kind == actSweep && (next != cur) != (cur.Due == a.due && cur.Due <= now):
		return fail("the sweep puts back what it found at a place that is due, and nothing else")
	case a.kind == actSweep && next != cur && next.Due != next.ExpiresAt:
		return fail("the sweep did not put the record back at its time")
	case a.kind != actSweep && cur.Due != 0 && next.Due > cur.Due:
		return fail("a place in the index was moved back, which costs a write for nothing")
	case a.kind != actSweep && next.Due != cur.Due && next.Due != 0 && next.Due != now.Add(next.Retention):
		return fail("a new place in the index is not the earliest at which the record can expire")
	}
	if next != cur && cur.State.Final() && !bytes.Equal(next.Result, cur.Result) && a.kind != actClaim {
		return fail("a final result changed")
	}
	return nil
}
