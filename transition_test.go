package idem

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
)

// The rows of the state machine's table, one subtest each, on a record that was
// claimed at t0. Nothing else is involved: no engine, no clock, no store.
const (
	t0        = engine.Instant(1000)
	lease     = 10 * time.Nanosecond
	retention = 100 * time.Nanosecond
	leaseEnd  = t0 + engine.Instant(lease)
	inLease   = t0 + 5
	goneAt    = leaseEnd + engine.Instant(retention) // of a record in flight
	fence     = 7
	newFence  = 8
)

var (
	fpA = Fingerprint{'a'}
	fpB = Fingerprint{'b'}
)

// row is one line of the table: what is asked of cur at now, and the answer.
type row struct {
	name string
	cur  *engine.Entry
	act  action
	now  engine.Instant
	err  error
	want *engine.Entry // what the record becomes; ignored if same
	same bool          // nothing changes
}

func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			var before *engine.Entry
			if r.cur != nil {
				before = with(r.cur)
			}
			next, err := transition(r.cur, &r.act, r.now)
			require.Equal(t, r.err, err)
			assert.Equal(t, before, r.cur, "the record given in was modified")
			if r.same {
				assert.Same(t, r.cur, next, "something changed")
				return
			}
			assert.Equal(t, r.want, next)
		})
	}
}

// with returns a copy of e with changes.
func with(e *engine.Entry, changes ...func(*engine.Entry)) *engine.Entry {
	c := *e
	for _, change := range changes {
		change(&c)
	}
	return &c
}

// flying is a record in flight, claimed at t0.
func flying(changes ...func(*engine.Entry)) *engine.Entry {
	return with(&engine.Entry{
		State: InFlight, Attempt: 1, Fence: fence, Opening: 1, Fingerprint: fpA,
		ClaimedAt: t0, LeaseUntil: leaseEnd, ExpiresAt: goneAt, Due: t0 + engine.Instant(retention),
		Lease: lease, Retention: retention,
	}, changes...)
}

// ended is flying, settled at inLease.
func ended(s State, changes ...func(*engine.Entry)) *engine.Entry {
	e := flying(func(e *engine.Entry) {
		e.State = s
		e.ExpiresAt = inLease + engine.Instant(retention)
		if s.Final() {
			e.FinishedAt, e.Result = inLease, []byte("result")
		}
		if s == Held {
			e.ExpiresAt, e.Due, e.Result = engine.Never, 0, []byte("note")
		}
	})
	return with(e, changes...)
}

func holdUnknown(e *engine.Entry) { e.HoldUnknown, e.ExpiresAt, e.Due = true, engine.Never, 0 }
func saved(e *engine.Entry)       { e.Checkpoint = []byte("point") }
func zeroPrint(e *engine.Entry)   { e.Fingerprint = Fingerprint{} }

func claimOf(changes ...func(*action)) action {
	a := action{kind: actClaim, fence: newFence, fingerprint: fpA, lease: lease, retention: retention, opening: 1}
	for _, change := range changes {
		change(&a)
	}
	return a
}

func asking(f Fingerprint) func(*action) { return func(a *action) { a.fingerprint = f } }
func attempts(n uint32) func(*action)    { return func(a *action) { a.maxAttempts = n } }

// grantedAt is the record of a claim of claimOf that was granted at now, first of
// its operation.
func grantedAt(now engine.Instant, changes ...func(*engine.Entry)) *engine.Entry {
	return with(&engine.Entry{
		State: InFlight, Attempt: 1, Fence: newFence, Opening: 1, Fingerprint: fpA, ClaimedAt: now,
		LeaseUntil: now + engine.Instant(lease), ExpiresAt: now + engine.Instant(lease+retention), Due: now + engine.Instant(retention),
		Lease: lease, Retention: retention,
	}, changes...)
}

func second(e *engine.Entry)                      { e.Attempt = 2 }
func due(at engine.Instant) func(e *engine.Entry) { return func(e *engine.Entry) { e.Due = at } }

func TestTransitionClaimGranted(t *testing.T) {
	t.Parallel()
	runRows(t, []row{
		{name: "none: a first attempt", act: claimOf(), now: t0, want: grantedAt(t0)},
		{
			name: "expired in flight: a new operation, whatever was asked before",
			cur:  flying(saved), act: claimOf(asking(fpB)), now: goneAt,
			want: grantedAt(goneAt, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{
			name: "expired completed: attempt 1, no checkpoint, no result",
			cur:  ended(Completed), act: claimOf(), now: inLease + engine.Instant(retention),
			want: grantedAt(inLease+engine.Instant(retention), due(t0+engine.Instant(retention))),
		},
		{
			name: "expired beats MaxAttempts",
			cur:  ended(Released, func(e *engine.Entry) { e.Attempt = 9 }), act: claimOf(attempts(3)), now: inLease + engine.Instant(retention),
			want: grantedAt(inLease+engine.Instant(retention), due(t0+engine.Instant(retention))),
		},
		{
			name: "released, another fingerprint, no checkpoint: a new operation",
			cur:  ended(Released, second), act: claimOf(asking(fpB)), now: leaseEnd,
			want: grantedAt(leaseEnd, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{
			name: "and as a new operation it has all its attempts",
			cur:  ended(Released, second), act: claimOf(asking(fpB), attempts(2)), now: leaseEnd,
			want: grantedAt(leaseEnd, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{
			name: "released: attempt 2, new fence, checkpoint kept",
			cur:  ended(Released, saved), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, second, saved, due(t0+engine.Instant(retention))),
		},
		{
			name: "released within the lease that was: claimable at once",
			cur:  ended(Released), act: claimOf(), now: inLease,
			want: grantedAt(inLease, second, due(t0+engine.Instant(retention))),
		},
		{
			name: "in flight, lease ends now: takeover, attempt 2, checkpoint kept",
			cur:  flying(saved), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, second, saved, due(t0+engine.Instant(retention))),
		},
		{
			name: "lapsed, one attempt left",
			cur:  flying(second), act: claimOf(attempts(3)), now: leaseEnd,
			want: grantedAt(leaseEnd, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Attempt = 3 }),
		},
		{
			name: "granted before the openings that count: claimable at once",
			cur:  flying(), act: claimOf(func(a *action) { a.opening, a.leasesFrom = 2, 2 }), now: inLease,
			want: grantedAt(inLease, second, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Opening = 2 }),
		},
		{
			name: "a zero fingerprint agrees with any, and the stored one stays",
			cur:  flying(), act: claimOf(asking(Fingerprint{})), now: leaseEnd,
			want: grantedAt(leaseEnd, second, due(t0+engine.Instant(retention))),
		},
		{
			name: "any agrees with a stored zero, and is stored",
			cur:  flying(zeroPrint), act: claimOf(asking(fpB)), now: leaseEnd,
			want: grantedAt(leaseEnd, second, due(t0+engine.Instant(retention)), func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{
			name: "a new operation with a zero fingerprint stores zero",
			cur:  flying(), act: claimOf(asking(Fingerprint{})), now: goneAt,
			want: grantedAt(goneAt, zeroPrint, due(t0+engine.Instant(retention))),
		},
		{
			name: "HoldUnknown is the request's, not the record's",
			cur:  ended(Released, func(e *engine.Entry) { e.HoldUnknown = true }), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, second, due(t0+engine.Instant(retention))),
		},
		{
			name: "HoldUnknown never expires",
			act:  claimOf(func(a *action) { a.holdUnknown = true }), now: t0,
			want: grantedAt(t0, holdUnknown),
		},
		{
			name: "a lease near the largest duration saturates",
			act:  claimOf(func(a *action) { a.lease = Forever - 1 }), now: t0,
			want: grantedAt(t0, func(e *engine.Entry) {
				e.Lease, e.LeaseUntil, e.ExpiresAt, e.Due = Forever-1, engine.Never, engine.Never, 0
			}),
		},
		{
			name: "retention Forever never expires",
			act:  claimOf(func(a *action) { a.retention = Forever }), now: t0,
			want: grantedAt(t0, func(e *engine.Entry) { e.Retention, e.ExpiresAt, e.Due = Forever, engine.Never, 0 }),
		},
		{
			name: "lease and retention that only together pass the end of time",
			act:  claimOf(func(a *action) { a.retention = time.Duration(engine.Never - t0 - 1) }), now: t0,
			want: grantedAt(t0, func(e *engine.Entry) {
				e.Retention, e.ExpiresAt, e.Due = time.Duration(engine.Never-t0-1), engine.Never, 0
			}),
		},
	})
}

func TestTransitionClaimRefused(t *testing.T) {
	t.Parallel()
	exhausting := claimOf(attempts(1))
	lapsing := claimOf(func(a *action) { a.leasesFrom = 2 })
	rows := []row{
		{name: "mismatch beats in flight", cur: flying(), act: claimOf(asking(fpB)), now: inLease, err: ErrMismatch},
		{name: "mismatch beats replay", cur: ended(Completed), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{name: "mismatch beats failed", cur: ended(Failed), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{name: "mismatch beats held", cur: ended(Held), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{name: "mismatch beats takeover", cur: flying(), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{name: "mismatch beats exhausted", cur: flying(), act: claimOf(asking(fpB), attempts(1)), now: leaseEnd, err: ErrMismatch},
		{name: "mismatch beats lapsed and held", cur: flying(holdUnknown), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{name: "released with a checkpoint: mismatch", cur: ended(Released, saved), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch},
		{
			name: "an empty checkpoint is one",
			cur:  ended(Released, func(e *engine.Entry) { e.Checkpoint = []byte{} }), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch,
		},
		{name: "completed", cur: ended(Completed), act: claimOf(), now: leaseEnd, err: ErrCompleted},
		{name: "completed, 1 ns before it expires", cur: ended(Completed), act: claimOf(), now: inLease + engine.Instant(retention) - 1, err: ErrCompleted},
		{name: "completed beats exhausted", cur: ended(Completed), act: exhausting, now: leaseEnd, err: ErrCompleted},
		{name: "failed", cur: ended(Failed), act: claimOf(), now: leaseEnd, err: ErrFailed},
		{name: "failed beats exhausted", cur: ended(Failed), act: exhausting, now: leaseEnd, err: ErrFailed},
		{name: "held", cur: ended(Held), act: claimOf(), now: inLease, err: ErrHeld},
		{name: "held, long after", cur: ended(Held), act: claimOf(), now: engine.Never - 1, err: ErrHeld},
		{name: "held beats exhausted", cur: ended(Held), act: exhausting, now: leaseEnd, err: ErrHeld},
		{name: "held before the openings that count", cur: ended(Held), act: lapsing, now: inLease, err: ErrHeld},
		{name: "in flight", cur: flying(), act: claimOf(), now: t0, err: ErrInFlight},
		{name: "in flight, 1 ns before the lease ends", cur: flying(), act: claimOf(), now: leaseEnd - 1, err: ErrInFlight},
		{name: "in flight beats exhausted", cur: flying(), act: exhausting, now: inLease, err: ErrInFlight},
		{name: "in flight with HoldUnknown", cur: flying(holdUnknown), act: claimOf(), now: leaseEnd - 1, err: ErrInFlight},
		{name: "lapsed with HoldUnknown", cur: flying(holdUnknown), act: claimOf(), now: leaseEnd, err: ErrHeld},
		{name: "lapsed with HoldUnknown beats exhausted", cur: flying(holdUnknown), act: exhausting, now: leaseEnd, err: ErrHeld},
		{name: "lapsed with HoldUnknown, long after", cur: flying(holdUnknown), act: claimOf(), now: engine.Never - 1, err: ErrHeld},
		{name: "lapsed by opening with HoldUnknown", cur: flying(holdUnknown), act: lapsing, now: inLease, err: ErrHeld},
		{name: "lapsed, no attempt left", cur: flying(), act: exhausting, now: leaseEnd, err: ErrExhausted},
		{name: "MaxAttempts lowered since", cur: flying(func(e *engine.Entry) { e.Attempt = 5 }), act: exhausting, now: leaseEnd, err: ErrExhausted},
		{name: "released, no attempt left", cur: ended(Released), act: exhausting, now: leaseEnd, err: ErrExhausted},
		{
			name: "released with a checkpoint, no attempt left",
			cur:  ended(Released, saved), act: exhausting, now: leaseEnd, err: ErrExhausted,
		},
		{name: "lapsed by opening, no attempt left", cur: flying(), act: claimOf(attempts(1), func(a *action) { a.leasesFrom = 2 }), now: inLease, err: ErrExhausted},
		{
			name: "extended in an opening that counts: in flight",
			cur:  flying(func(e *engine.Entry) { e.Opening = 2 }), act: lapsing, now: inLease, err: ErrInFlight,
		},
	}
	for i := range rows {
		rows[i].same = true
	}
	runRows(t, rows)
}

// A claim that knows when its request was made, and meets no live record.
func TestTransitionClaimTooLate(t *testing.T) {
	t.Parallel()
	const wall = int64(5000)
	issued := func(at, lost int64) action {
		return claimOf(func(a *action) { a.issuedAt, a.wall, a.lostUntil = at, wall, lost })
	}
	edge := wall - int64(retention)
	rows := []row{
		{name: "none, as old as its retention", act: issued(edge, 0), now: t0, err: ErrTooLate, same: true},
		{name: "none, older", act: issued(1, 0), now: t0, err: ErrTooLate, same: true},
		{name: "expired, as old as its retention", cur: ended(Completed), act: issued(edge, 0), now: engine.Never - 1, err: ErrTooLate, same: true},
		{name: "none, from when records were lost", act: issued(wall-1, wall-1), now: t0, err: ErrTooLate, same: true},
		{name: "none, from the future counts as now", act: issued(wall+50, wall), now: t0, err: ErrTooLate, same: true},
		{name: "none, 1 ns younger than its retention", act: issued(edge+1, 0), now: t0, want: grantedAt(t0)},
		{name: "none, after records were lost", act: issued(wall-1, wall-2), now: t0, want: grantedAt(t0)},
		{name: "none, from the future", act: issued(wall+50, 0), now: t0, want: grantedAt(t0)},
		{name: "none, it is not known when", act: claimOf(func(a *action) { a.wall, a.lostUntil = wall, wall }), now: t0, want: grantedAt(t0)},
		{name: "a live record answers as ever", cur: ended(Completed), act: issued(1, wall), now: leaseEnd, err: ErrCompleted, same: true},
		{
			name: "a released one is granted", cur: ended(Released), act: issued(1, wall), now: leaseEnd,
			want: grantedAt(leaseEnd, second, due(t0+engine.Instant(retention))),
		},
	}
	forever := issued(1, 0)
	forever.retention = Forever
	rows = append(rows, row{
		name: "none, kept for ever: never too old", act: forever, now: t0,
		want: grantedAt(t0, func(e *engine.Entry) { e.Retention, e.ExpiresAt, e.Due = Forever, engine.Never, 0 }),
	})
	runRows(t, rows)
}

func bound(e *engine.Entry)                { e.Bound = true }
func because(e *engine.Entry)              { e.Result = []byte("why") }
func counted(n uint32) func(*engine.Entry) { return func(e *engine.Entry) { e.Attempt = n } }

// What Release and Unclaim leave to the claim after them.
func TestTransitionClaimOfReleased(t *testing.T) {
	t.Parallel()
	place := due(t0 + engine.Instant(retention))
	runRows(t, []row{
		{
			name: "the reason of the release stays until the record is final", cur: ended(Released, because), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, second, because, place),
		},
		{
			name: "and over a takeover", cur: flying(because, second), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, because, counted(3), place),
		},
		{
			name: "not for a new operation", cur: ended(Released, because), act: claimOf(asking(fpB)), now: leaseEnd,
			want: grantedAt(leaseEnd, place, func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{
			name: "bound, the same request: granted, and bound no more", cur: ended(Released, bound), act: claimOf(), now: leaseEnd,
			want: grantedAt(leaseEnd, second, place),
		},
		{
			name: "bound, without an attempt that counts", cur: ended(Released, bound, saved, counted(0)), act: claimOf(attempts(1)), now: leaseEnd,
			want: grantedAt(leaseEnd, saved, place),
		},
		{name: "bound, another request", cur: ended(Released, bound), act: claimOf(asking(fpB)), now: leaseEnd, err: ErrMismatch, same: true},
		{
			name: "bound, a zero fingerprint agrees", cur: ended(Released, bound), act: claimOf(asking(Fingerprint{})), now: leaseEnd,
			want: grantedAt(leaseEnd, second, place),
		},
		{
			name: "bound and expired: another request", cur: ended(Released, bound, because), act: claimOf(asking(fpB)), now: inLease + engine.Instant(retention),
			want: grantedAt(inLease+engine.Instant(retention), place, func(e *engine.Entry) { e.Fingerprint = fpB }),
		},
		{name: "bound, no attempt left", cur: ended(Released, bound), act: claimOf(attempts(1)), now: leaseEnd, err: ErrExhausted, same: true},
	})
}

// A refusal is answered from the cache too, so it must cost nothing.
func TestRefuseClaimAllocatesNothing(t *testing.T) {
	cur, a := ended(Completed), claimOf()
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if refuseClaim(cur, &a, leaseEnd) != ErrCompleted {
			panic("not refused")
		}
	}))
}

func TestTransitionForget(t *testing.T) {
	t.Parallel()
	a := action{kind: actForget}
	of := func(f uint64) action { return action{kind: actForget, fence: f} }
	runRows(t, []row{
		{name: "none: nil", act: a, now: t0},
		{name: "by fence: none: nil", act: of(fence), now: t0},
		{name: "by fence: in flight: gone", cur: flying(), act: of(fence), now: inLease},
		{name: "by fence: completed: gone", cur: ended(Completed), act: of(fence), now: leaseEnd},
		{name: "by fence: held: gone", cur: ended(Held), act: of(fence), now: leaseEnd},
		{name: "by fence: another's", cur: flying(), act: of(fence - 1), now: inLease, err: ErrFenced, same: true},
		{name: "by fence: another's, completed", cur: ended(Completed), act: of(fence + 1), now: leaseEnd, err: ErrFenced, same: true},
		{name: "by fence: another's that has expired: nil", cur: ended(Failed), act: of(fence - 1), now: engine.Never - 1, same: true},
		{name: "in flight: gone", cur: flying(), act: a, now: inLease},
		{name: "completed: gone", cur: ended(Completed), act: a, now: leaseEnd},
		{name: "held: gone", cur: ended(Held), act: a, now: leaseEnd},
		{name: "expired: gone", cur: ended(Failed), act: a, now: engine.Never - 1},
	})
}

func TestTransitionSweep(t *testing.T) {
	t.Parallel()
	found := func(at engine.Instant) action { return action{kind: actSweep, due: at} }
	runRows(t, []row{
		{name: "none", act: found(t0), now: t0, same: true},
		{name: "expired: gone", cur: ended(Completed), act: found(t0 + engine.Instant(retention)), now: inLease + engine.Instant(retention)},
		{name: "expired, found at a place it left", cur: ended(Completed), act: found(t0), now: inLease + engine.Instant(retention)},
		{
			name: "1 ns before it expires: put back",
			cur:  ended(Completed), act: found(t0 + engine.Instant(retention)), now: inLease + engine.Instant(retention) - 1,
			want: ended(Completed, due(inLease+engine.Instant(retention))),
		},
		{
			name: "in flight past its place: put back",
			cur:  flying(), act: found(t0 + engine.Instant(retention)), now: t0 + engine.Instant(retention),
			want: flying(due(goneAt)),
		},
		{name: "claimed anew meanwhile", cur: grantedAt(leaseEnd), act: found(t0), now: leaseEnd, same: true},
		{name: "its place is not due", cur: flying(), act: found(t0 + engine.Instant(retention)), now: inLease, same: true},
		{name: "held, its old place", cur: ended(Held), act: found(t0 + engine.Instant(retention)), now: engine.Never - 1, same: true},
		{name: "lapsed with HoldUnknown", cur: flying(holdUnknown), act: found(t0), now: engine.Never - 1, same: true},
	})
}
