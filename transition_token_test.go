package idem

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idemkv/idem/engine"
)

func token(kind actionKind, changes ...func(*action)) action {
	a := action{kind: kind, fence: fence, opening: 1}
	for _, change := range changes {
		change(&a)
	}
	return a
}

func saying(s string) func(*action) { return func(a *action) { a.bytes = []byte(s) } }
func dropping(a *action)            { a.dropped = true }

func forLease(d time.Duration) func(*action) { return func(a *action) { a.lease = d } }

func TestTransitionCompleteAndFail(t *testing.T) {
	t.Parallel()
	final := func(s State, now engine.Instant, result string) func(*engine.Entry) {
		return func(e *engine.Entry) {
			e.State, e.Result, e.Checkpoint, e.FinishedAt = s, []byte(result), nil, now
			e.ExpiresAt = now + engine.Instant(retention)
		}
	}
	const late = leaseEnd + 50
	runRows(t, []row{
		{
			name: "Complete in flight", cur: flying(saved), act: token(actComplete, saying("r")), now: inLease,
			want: flying(final(Completed, inLease, "r")),
		},
		{
			name: "Fail in flight", cur: flying(saved), act: token(actFail, saying("why")), now: inLease,
			want: flying(final(Failed, inLease, "why")),
		},
		{
			name: "Complete lapsed, not taken over", cur: flying(), act: token(actComplete, saying("r")), now: late,
			want: flying(final(Completed, late, "r")),
		},
		{
			name: "Fail lapsed, not taken over", cur: flying(), act: token(actFail, saying("r")), now: late,
			want: flying(final(Failed, late, "r")),
		},
		{
			name: "Complete 1 ns before the record expires", cur: flying(), act: token(actComplete, saying("r")), now: goneAt - 1,
			want: flying(final(Completed, goneAt-1, "r")),
		},
		{
			name: "Complete lapsed with HoldUnknown", cur: flying(holdUnknown), act: token(actComplete, saying("r")), now: late,
			want: flying(func(e *engine.Entry) { e.HoldUnknown = true }, final(Completed, late, "r"), due(late+engine.Instant(retention))),
		},
		{
			name: "Complete held: the note makes way", cur: ended(Held, saved), act: token(actComplete, saying("r")), now: late,
			want: flying(final(Completed, late, "r"), due(late+engine.Instant(retention))),
		},
		{
			name: "Fail held", cur: ended(Held, saved), act: token(actFail, saying("r")), now: late,
			want: flying(final(Failed, late, "r"), due(late+engine.Instant(retention))),
		},
		{
			name: "nil stays nil", cur: flying(), act: token(actComplete), now: inLease,
			want: flying(final(Completed, inLease, ""), func(e *engine.Entry) { e.Result = nil }),
		},
		{
			name: "empty stays empty", cur: flying(), act: token(actComplete, saying("")), now: inLease,
			want: flying(final(Completed, inLease, "")),
		},
		{
			name: "Complete over MaxResult: recorded, result dropped", cur: flying(), act: token(actComplete, dropping), now: inLease,
			err:  ErrTooLarge,
			want: flying(final(Completed, inLease, ""), func(e *engine.Entry) { e.Result, e.ResultDropped = nil, true }),
		},
		{
			name: "Fail over MaxResult: recorded, reason dropped", cur: flying(), act: token(actFail, dropping), now: inLease,
			err:  ErrTooLarge,
			want: flying(final(Failed, inLease, ""), func(e *engine.Entry) { e.Result, e.ResultDropped = nil, true }),
		},
		{
			name: "and again", cur: ended(Failed, func(e *engine.Entry) { e.Result, e.ResultDropped = nil, true }),
			act: token(actFail, dropping), now: leaseEnd, err: ErrTooLarge, same: true,
		},
		{
			name: "the same again", cur: ended(Completed, func(e *engine.Entry) { e.Result, e.ResultDropped = nil, true }),
			act: token(actComplete, dropping), now: leaseEnd, err: ErrTooLarge, same: true,
		},
		{
			name: "a small result after one that was dropped", cur: ended(Completed, func(e *engine.Entry) { e.Result, e.ResultDropped = nil, true }),
			act: token(actComplete), now: leaseEnd, err: ErrCompleted, same: true,
		},
		{
			name: "a result over MaxResult after a small one", cur: ended(Completed, func(e *engine.Entry) { e.Result = nil }),
			act: token(actComplete, dropping), now: leaseEnd, err: ErrCompleted, same: true,
		},
		{name: "Complete again, same bytes", cur: ended(Completed), act: token(actComplete, saying("result")), now: leaseEnd, same: true},
		{name: "Complete again, other bytes", cur: ended(Completed), act: token(actComplete, saying("other")), now: leaseEnd, err: ErrCompleted, same: true},
		{name: "Fail again, same bytes", cur: ended(Failed), act: token(actFail, saying("result")), now: leaseEnd, same: true},
		{name: "Fail again, other bytes", cur: ended(Failed), act: token(actFail, saying("other")), now: leaseEnd, err: ErrFailed, same: true},
		{name: "Complete of failed, same bytes", cur: ended(Failed), act: token(actComplete, saying("result")), now: leaseEnd, err: ErrFailed, same: true},
		{name: "Fail of completed, same bytes", cur: ended(Completed), act: token(actFail, saying("result")), now: leaseEnd, err: ErrCompleted, same: true},
		{
			name: "Complete again 1 ns before it expires", cur: ended(Completed), act: token(actComplete, saying("result")),
			now: inLease + engine.Instant(retention) - 1, same: true,
		},
		{
			name: "Complete again, expired", cur: ended(Completed), act: token(actComplete, saying("result")),
			now: inLease + engine.Instant(retention), err: ErrFenced, same: true,
		},
		{
			name: "retention counts from completion, however late",
			cur:  flying(func(e *engine.Entry) { e.Retention = 3 }), act: token(actComplete), now: leaseEnd + 2,
			want: flying(final(Completed, leaseEnd+2, ""), func(e *engine.Entry) {
				e.Retention, e.Result, e.ExpiresAt, e.Due = 3, nil, leaseEnd+5, leaseEnd+5
			}),
		},
		{
			name: "retention Forever",
			cur:  flying(func(e *engine.Entry) { e.Retention, e.ExpiresAt, e.Due = Forever, engine.Never, 0 }), act: token(actComplete), now: inLease,
			want: flying(final(Completed, inLease, ""), func(e *engine.Entry) {
				e.Retention, e.Result, e.ExpiresAt, e.Due = Forever, nil, engine.Never, 0
			}),
		},
	})
}

func TestTransitionReleaseAndHold(t *testing.T) {
	t.Parallel()
	const late = leaseEnd + 50
	released := func(now engine.Instant) func(*engine.Entry) {
		return func(e *engine.Entry) { e.State, e.ExpiresAt = Released, now+engine.Instant(retention) }
	}
	runRows(t, []row{
		{
			name: "Release with a reason", cur: flying(), act: token(actRelease, saying("why")), now: inLease,
			want: flying(released(inLease), because),
		},
		{
			name: "Release in place of an earlier reason", cur: flying(because), act: token(actRelease), now: inLease,
			want: flying(released(inLease)),
		},
		{name: "Release again: the first reason stays", cur: ended(Released, because), act: token(actRelease, saying("other")), now: leaseEnd, same: true},
		{
			name: "Hold in place of a release's reason", cur: flying(because), act: token(actHold, saying("note")), now: inLease,
			want: ended(Held),
		},
		{name: "Release in flight: checkpoint kept", cur: flying(saved), act: token(actRelease), now: inLease, want: flying(saved, released(inLease))},
		{name: "Release lapsed", cur: flying(), act: token(actRelease), now: late, want: flying(released(late))},
		{
			name: "Release held: the note goes", cur: ended(Held, saved), act: token(actRelease), now: late,
			want: flying(saved, released(late), due(late+engine.Instant(retention))),
		},
		{
			name: "Release with HoldUnknown: free, and it expires", cur: flying(holdUnknown), act: token(actRelease), now: inLease,
			want: flying(func(e *engine.Entry) { e.HoldUnknown = true }, released(inLease), due(inLease+engine.Instant(retention))),
		},
		{name: "Release again", cur: ended(Released), act: token(actRelease), now: leaseEnd, same: true},
		{name: "Release again, expired", cur: ended(Released), act: token(actRelease), now: inLease + engine.Instant(retention), err: ErrFenced, same: true},
		{
			name: "Hold in flight: checkpoint kept, never expires", cur: flying(saved), act: token(actHold, saying("note")), now: inLease,
			want: ended(Held, saved),
		},
		{name: "Hold lapsed", cur: flying(), act: token(actHold, saying("note")), now: late, want: ended(Held)},
		{name: "Hold again: the first note stays", cur: ended(Held), act: token(actHold, saying("other")), now: late, same: true},
		{name: "Hold of lapsed with HoldUnknown", cur: flying(holdUnknown), act: token(actHold, saying("note")), now: late, want: ended(Held, func(e *engine.Entry) { e.HoldUnknown = true })},
	})
}

func TestTransitionUnclaim(t *testing.T) {
	t.Parallel()
	const late = leaseEnd + 50
	undone := func(now engine.Instant, attempt uint32) func(*engine.Entry) {
		return func(e *engine.Entry) {
			e.State, e.Bound, e.Attempt, e.ExpiresAt = Released, true, attempt, now+engine.Instant(retention)
		}
	}
	a := token(actUnclaim)
	runRows(t, []row{
		{name: "a first attempt: gone", cur: flying(), act: a, now: inLease},
		{name: "a first attempt that has lapsed: gone", cur: flying(), act: a, now: late},
		{name: "a first attempt with HoldUnknown: gone", cur: flying(holdUnknown), act: a, now: late},
		{name: "a first attempt with a checkpoint: kept, and not counted", cur: flying(saved), act: a, now: inLease, want: flying(saved, undone(inLease, 0))},
		{name: "with an empty checkpoint", cur: flying(func(e *engine.Entry) { e.Checkpoint = []byte{} }), act: a, now: inLease, want: flying(func(e *engine.Entry) { e.Checkpoint = []byte{} }, undone(inLease, 0))},
		{name: "a second attempt: the reason of the release before it stays", cur: flying(second, because), act: a, now: inLease, want: flying(because, undone(inLease, 1))},
		{name: "a takeover, lapsed", cur: flying(counted(3)), act: a, now: late, want: flying(undone(late, 2))},
		{
			name: "with HoldUnknown: free, and it expires", cur: flying(second, holdUnknown), act: a, now: inLease,
			want: flying(func(e *engine.Entry) { e.HoldUnknown = true }, undone(inLease, 1), due(inLease+engine.Instant(retention))),
		},
		{name: "again", cur: ended(Released, bound), act: a, now: leaseEnd, same: true},
		{name: "released", cur: ended(Released), act: a, now: leaseEnd, same: true},
		{name: "none", act: a, now: inLease, same: true},
		{name: "expired", cur: flying(), act: a, now: goneAt, same: true},
		{name: "another's, expired", cur: flying(), act: token(actUnclaim, func(a *action) { a.fence-- }), now: goneAt, same: true},
		{name: "another's", cur: flying(), act: token(actUnclaim, func(a *action) { a.fence-- }), now: inLease, err: ErrFenced, same: true},
		{name: "held", cur: ended(Held), act: a, now: inLease, err: ErrHeld, same: true},
		{name: "completed", cur: ended(Completed), act: a, now: inLease, err: ErrCompleted, same: true},
		{name: "failed", cur: ended(Failed), act: a, now: inLease, err: ErrFailed, same: true},
	})
}

// What a same-commit function's error makes of the record.
func TestEffectFailure(t *testing.T) {
	t.Parallel()
	claim, limited := claimOf(), claimOf(attempts(2))
	complete := token(actComplete)
	for _, a := range []*action{&claim, &limited, &complete} {
		assert.Equal(t, actFail, effectFailure(a, permanent))
		assert.Equal(t, actHold, effectFailure(a, unknown))
	}
	for _, m := range []mark{unmarked, retryable} {
		assert.Equal(t, actRelease, effectFailure(&limited, m), "the attempt counts")
		assert.Zero(t, effectFailure(&claim, m), "what it wrote is undone")
		assert.Zero(t, effectFailure(&complete, m), "the claim's holder says how it goes on")
	}
}

// The work has returned: what it has held by itself stays held.
func TestTransitionOfWorkThatHeldItsClaim(t *testing.T) {
	t.Parallel()
	ending := func(k actionKind) action {
		return token(k, func(a *action) { a.unlessHeld, a.bytes = true, []byte("r") })
	}
	var rows []row
	for name, k := range map[string]actionKind{"complete": actComplete, "fail": actFail, "release": actRelease} {
		rows = append(rows, row{name: name, cur: ended(Held), act: ending(k), now: inLease, err: ErrHeld, same: true})
	}
	rows = append(rows, row{name: "hold", cur: ended(Held), act: ending(actHold), now: inLease, same: true})
	runRows(t, rows)
}

func TestTransitionExtendAndCheckpoint(t *testing.T) {
	t.Parallel()
	until := func(end engine.Instant) func(*engine.Entry) {
		return func(e *engine.Entry) { e.LeaseUntil, e.ExpiresAt = end, end+engine.Instant(retention) }
	}
	runRows(t, []row{
		{name: "Extend", cur: flying(), act: token(actExtend, forLease(20)), now: inLease, want: flying(until(inLease + 20))},
		{name: "Extend by the claim's own lease", cur: flying(), act: token(actExtend), now: inLease, want: flying(until(inLease + engine.Instant(lease)))},
		{name: "Extend never shortens", cur: flying(), act: token(actExtend, forLease(1)), now: inLease, want: flying()},
		{name: "Extend lapsed", cur: flying(), act: token(actExtend), now: leaseEnd, want: flying(until(leaseEnd + engine.Instant(lease)))},
		{name: "Extend 1 ns before the record expires", cur: flying(), act: token(actExtend), now: goneAt - 1, want: flying(until(goneAt - 1 + engine.Instant(lease)))},
		{
			name: "Extend lapsed with HoldUnknown", cur: flying(holdUnknown), act: token(actExtend), now: leaseEnd,
			want: flying(holdUnknown, func(e *engine.Entry) { e.LeaseUntil = leaseEnd + engine.Instant(lease) }),
		},
		{
			name: "Extend in a later opening makes the lease its own", cur: flying(), now: inLease,
			act: token(actExtend, func(a *action) { a.opening = 4 }), want: flying(until(inLease+engine.Instant(lease)), func(e *engine.Entry) { e.Opening = 4 }),
		},
		{
			name: "Extend by the largest duration saturates", cur: flying(), act: token(actExtend, forLease(Forever)), now: inLease,
			want: flying(func(e *engine.Entry) { e.LeaseUntil, e.ExpiresAt, e.Due = engine.Never, engine.Never, 0 }),
		},
		{
			name: "Checkpoint", cur: flying(), act: token(actCheckpoint, saying("point")), now: inLease,
			want: flying(saved),
		},
		{
			name: "Checkpoint in place of one, lapsed", cur: flying(saved), act: token(actCheckpoint, saying("next")), now: leaseEnd,
			want: flying(func(e *engine.Entry) { e.Checkpoint = []byte("next") }),
		},
		{name: "Checkpoint nil: none", cur: flying(saved), act: token(actCheckpoint), now: inLease, want: flying()},
	})
}

// Token operations that a record's state does not allow, and tokens that are not
// of the record: every operation against every state.
func TestTransitionTokenRefused(t *testing.T) {
	t.Parallel()
	ops := map[string]action{
		"Complete": token(actComplete, saying("x")), "Fail": token(actFail, saying("x")), "Release": token(actRelease),
		"Hold": token(actHold, saying("x")), "Extend": token(actExtend), "Checkpoint": token(actCheckpoint, saying("x")),
	}
	states := map[State]*engine.Entry{
		InFlight: flying(), Released: ended(Released), Held: ended(Held), Completed: ended(Completed), Failed: ended(Failed),
	}
	own := map[State]struct {
		err     error
		allowed string
	}{
		Released:  {ErrFenced, "Release"},
		Held:      {ErrHeld, "Complete Fail Release Hold"},
		Completed: {ErrCompleted, ""},
		Failed:    {ErrFailed, ""},
	}
	var rows []row
	for name, a := range ops {
		for s, e := range states {
			if want, ok := own[s]; ok && !strings.Contains(want.allowed, name) {
				rows = append(rows, row{name: "" + name + " of one's own " + s.String(), cur: e, act: a, now: inLease, err: want.err, same: true})
			}
			stale := a
			stale.fence = fence - 1
			rows = append(rows, row{name: "" + name + " with an older fence, " + s.String(), cur: e, act: stale, now: inLease, err: ErrFenced, same: true})
			ahead := a
			ahead.fence = fence + 1
			rows = append(rows, row{name: "" + name + " with a fence not given out, " + s.String(), cur: e, act: ahead, now: inLease, err: ErrFenced, same: true})
			if e.ExpiresAt != engine.Never {
				rows = append(rows, row{name: "" + name + " of expired " + s.String(), cur: e, act: a, now: e.ExpiresAt, err: ErrFenced, same: true})
			}
		}
		rows = append(rows, row{name: "" + name + " of none", act: a, now: inLease, err: ErrFenced, same: true})
	}
	runRows(t, rows)
}

// The same-commit function of Complete runs only if the record is there to be
// completed; nothing is said of bytes, because there are none yet.
func TestRefuseEffect(t *testing.T) {
	t.Parallel()
	stale := func(a *action) { a.fence-- }
	for _, r := range []row{
		{name: "none", act: token(actComplete), now: inLease, err: ErrFenced},
		{name: "another fence", cur: flying(), act: token(actComplete, stale), now: inLease, err: ErrFenced},
		{name: "another fence, completed", cur: ended(Completed), act: token(actComplete, stale), now: inLease, err: ErrFenced},
		{name: "expired", cur: flying(), act: token(actComplete), now: goneAt, err: ErrFenced},
		{name: "released", cur: ended(Released), act: token(actComplete), now: inLease, err: ErrFenced},
		{name: "in flight", cur: flying(), act: token(actComplete), now: inLease},
		{name: "lapsed", cur: flying(), act: token(actComplete), now: leaseEnd},
		{name: "held", cur: ended(Held), act: token(actComplete), now: leaseEnd},
		{name: "completed", cur: ended(Completed), act: token(actComplete), now: inLease, err: ErrCompleted},
		{name: "failed", cur: ended(Failed), act: token(actComplete), now: inLease, err: ErrFailed},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, r.err, refuseEffect(r.cur, &r.act, r.now))
		})
	}
}
