package idem

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

// The small world that is explored whole: a lease and a retention that end at the
// instants and one before them, three fences, two fingerprints and none, two
// openings.
var (
	worldInstants = []engine.Instant{100, 109, 110, 120}
	worldLease    = 10 * time.Nanosecond
	worldFences   = uint64(3)
	worldFloor    = 25_000 // states; fewer means that the exploration collapsed
)

var (
	fpA = Fingerprint{'a'}
	fpB = Fingerprint{'b'}
)

// world is a state of it: a record, and what has happened so far.
type world struct {
	rec     mRecord
	due     engine.Instant
	now     int    // index of the last operation's instant
	granted uint64 // fences given out
	opening uint64
}

type node struct {
	world
	e *engine.Entry
}

// worldActions lists every operation that can be asked in n's world at an instant
// and from an opening. What looks at neither is asked in n's own alone.
func worldActions(n node, at int, opening uint64) []action {
	later, reopened := at > n.now, opening > n.opening
	var as []action
	for _, f := range []Fingerprint{{}, fpA, fpB} {
		for from := uint64(0); from <= opening; from += 2 {
			claim := action{
				kind: actClaim, fence: n.granted + 1, fingerprint: f, lease: worldLease, retention: worldLease,
				epoch: opening, leasesFrom: from,
			}
			holding, limited := claim, claim
			holding.holdUnknown, holding.retention = true, Forever
			limited.maxAttempts = 2
			as = append(as, claim, holding, limited)
			if f == fpA && from == 0 {
				as = append(as, issuedClaims(claim, int64(worldInstants[at]))...)
			}
		}
	}
	for fence := uint64(1); fence <= worldFences; fence++ {
		if fence != n.rec.Fence && (later || reopened) {
			continue // another's token is as stale as it was
		}
		token := func(k actionKind, bytes []byte, change ...func(*action)) {
			a := action{kind: k, fence: fence, epoch: opening, bytes: bytes}
			for _, c := range change {
				c(&a)
			}
			as = append(as, a)
		}
		token(actExtend, nil)
		token(actExtend, nil, func(a *action) { a.lease = 1 })
		if reopened {
			continue
		}
		token(actComplete, []byte("r"))
		token(actComplete, nil, func(a *action) { a.dropped = true })
		token(actFail, []byte("r"))
		token(actFail, nil)
		token(actFail, nil, func(a *action) { a.dropped = true })
		token(actRelease, []byte("w"))
		ends := func(a *action) { a.unlessHeld = true }
		token(actComplete, []byte("r"), ends)
		token(actFail, []byte("r"), ends)
		token(actRelease, []byte("w"), ends)
		token(actHold, []byte("n"), ends)
		token(actUnclaim, nil)
		token(actForget, nil)
		token(actHold, []byte("n"))
		token(actCheckpoint, []byte{})
	}
	if reopened {
		return as
	}
	as = append(as, action{kind: actForget})
	for _, at := range []engine.Instant{n.due, 1} {
		if at != 0 {
			as = append(as, action{kind: actSweep, due: at})
		}
	}
	return as
}

// issuedClaims is claim, issued at and around each time that counts, when the wall clock
// reads wall.
func issuedClaims(claim action, wall int64) (as []action) {
	for _, issued := range []int64{wall - int64(worldLease), wall - int64(worldLease) + 1, wall, wall + 50} {
		a := claim
		a.issuedAt, a.wall = issued, wall
		lost, kept := a, a
		lost.lostUntil, kept.lostUntil = min(issued, wall), min(issued, wall)-1
		as = append(as, a, lost, kept)
	}
	return as
}

// explore walks breadth-first from "none" to the fixpoint and calls visit with
// every state and every operation asked in it, until visit says that it has seen
// enough. It returns how many states there were.
func explore(visit func(n node, a action, now engine.Instant) (next *engine.Entry, more bool)) (states int) {
	seen := map[world]bool{}
	queue := []node{{world: world{opening: 1}}}
	seen[queue[0].world] = true
	for ; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		states++
		for at := n.now; at < len(worldInstants); at++ {
			for opening := n.opening; opening <= 2; opening++ {
				for _, a := range worldActions(n, at, opening) {
					next, more := visit(n, a, worldInstants[at])
					if !more {
						return states
					}
					if next == n.e {
						continue // what can be asked later can be asked from n
					}
					m := node{e: next, world: world{rec: modelOf(next), now: at, granted: n.granted, opening: opening}}
					if next != nil {
						m.due = next.Due
						m.granted = max(n.granted, next.Fence)
					}
					if m.granted <= worldFences && !covered(seen, m.world) {
						seen[m.world] = true
						queue = append(queue, m)
					}
				}
			}
		}
	}
	return states
}

// covered reports whether w was seen, or was seen earlier: what can be asked at w
// could all be asked then.
func covered(seen map[world]bool, w world) bool {
	for at := w.now; at >= 0; at-- {
		for opening := w.opening; opening > 0; opening-- {
			earlier := w
			earlier.now, earlier.opening = at, opening
			if seen[earlier] {
				return true
			}
		}
	}
	return false
}

// Every reachable record of the small world times every operation, against the
// second model.
func TestTransitionAgainstModel(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	steps := 0
	answers := map[string]int{}
	states := explore(func(n node, a action, now engine.Instant) (*engine.Entry, bool) {
		steps++
		next, err := compareStep(func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			next, err := transition(cur, a, now)
			answers[mOps[a.kind]+"/"+mAnswers[err]]++
			return next, err
		}, n.e, a, now)
		if err != nil {
			t.Fatal(err)
		}
		return next, true
	})
	t.Logf("%d states, %d steps", states, steps)
	require.Greater(t, states, worldFloor)
	for _, want := range []string{
		"claim/", "claim/mismatch", "claim/completed", "claim/failed", "claim/held", "claim/in_flight", "claim/exhausted", "claim/too_late",
		"complete/", "complete/too_large", "complete/completed", "complete/failed", "complete/fenced",
		"fail/", "fail/completed", "fail/failed", "fail/fenced", "fail/too_large", "release/", "release/completed", "release/fenced",
		"unclaim/", "unclaim/held", "unclaim/completed", "unclaim/failed", "unclaim/fenced",
		"hold/", "hold/failed", "hold/fenced", "extend/", "extend/held", "extend/completed", "extend/fenced",
		"checkpoint/", "checkpoint/held", "checkpoint/failed", "checkpoint/fenced", "forget/", "forget/fenced", "sweep/",
	} {
		assert.Positive(t, answers[want], "no step was answered %s", want)
	}
}

// The comparison finds mistakes: each of these is one, and each is found.
func TestTransitionModelFindsMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	changed := func(change func(cur, next *engine.Entry, a *action, now engine.Instant)) machine {
		return func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			next, err := transition(cur, a, now)
			if next == nil || next == cur {
				return next, err
			}
			n := *next
			change(cur, &n, a, now)
			return &n, err
		}
	}
	seenAs := func(change func(cur *engine.Entry, a *action, now *engine.Instant)) machine {
		return func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			if cur == nil {
				return transition(cur, a, now)
			}
			c := *cur
			change(&c, a, &now)
			next, err := transition(&c, a, now)
			if next == &c {
				next = cur
			}
			return next, err
		}
	}
	asked := func(change func(a *action)) machine {
		return func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			b := *a
			change(&b)
			return transition(cur, &b, now)
		}
	}
	again := func(cur, next *engine.Entry, now engine.Instant) bool {
		return live(cur, now) && next.Fence != cur.Fence
	}
	mutants := map[string]machine{
		"a lease ends early": seenAs(func(c *engine.Entry, _ *action, _ *engine.Instant) { c.LeaseUntil-- }),
		"a lease holds at its end": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actClaim {
				c.LeaseUntil++
			}
		}),
		"a record lives at its end": seenAs(func(c *engine.Entry, _ *action, now *engine.Instant) {
			if *now == c.ExpiresAt {
				*now--
			}
		}),
		"no fence check": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind != actClaim {
				a.fence = c.Fence
			}
		}),
		"no fingerprint check": seenAs(func(c *engine.Entry, _ *action, _ *engine.Instant) { c.Fingerprint = Fingerprint{} }),
		"replay before mismatch": seenAs(func(c *engine.Entry, _ *action, _ *engine.Instant) {
			if c.State.Final() {
				c.Fingerprint = Fingerprint{}
			}
		}),
		"in flight before mismatch": seenAs(func(c *engine.Entry, a *action, now *engine.Instant) {
			if c.State == InFlight && !lapsed(c, *now, a.leasesFrom) {
				c.Fingerprint = Fingerprint{}
			}
		}),
		"released binds its fingerprint": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if c.State == Released && c.Checkpoint == nil && a.kind == actClaim {
				c.Checkpoint = []byte{}
			}
		}),
		"zero replaces the stored fingerprint": changed(func(_, next *engine.Entry, a *action, _ engine.Instant) {
			if a.kind == actClaim {
				next.Fingerprint = a.fingerprint
			}
		}),
		"HoldUnknown is forgotten": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actClaim {
				c.HoldUnknown = false
			}
		}),
		"one attempt too many": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.maxAttempts > 0 {
				a.maxAttempts++
			}
		}),
		"attempts of one before MaxAttempts": seenAs(func(c *engine.Entry, _ *action, _ *engine.Instant) { c.Attempt++ }),
		"openings do not count":              seenAs(func(_ *engine.Entry, a *action, _ *engine.Instant) { a.leasesFrom = 0 }),
		"held expires": changed(func(_, next *engine.Entry, _ *action, now engine.Instant) {
			if next.State == Held {
				next.ExpiresAt, next.Due = now+10, now+10
			}
		}),
		"a takeover loses the checkpoint": changed(func(_, next *engine.Entry, _ *action, _ engine.Instant) {
			if next.State == InFlight && next.Attempt > 1 && next.ClaimedAt != 0 {
				next.Checkpoint = nil
			}
		}),
		"Release loses the checkpoint": changed(func(_, next *engine.Entry, _ *action, _ engine.Instant) {
			if next.State == Released {
				next.Checkpoint = nil
			}
		}),
		"attempts start over": changed(func(cur, next *engine.Entry, _ *action, now engine.Instant) {
			if again(cur, next, now) {
				next.Attempt = 1
			}
		}),
		"a fence is given out twice": changed(func(cur, next *engine.Entry, _ *action, now engine.Instant) {
			if again(cur, next, now) {
				next.Fence = cur.Fence
			}
		}),
		"the second Complete wins": seenAs(func(c *engine.Entry, a *action, now *engine.Instant) {
			if a.kind == actComplete && c.State == Completed && a.fence == c.Fence && live(c, *now) {
				c.State = InFlight
			}
		}),
		"Fail after Complete of the same bytes is nil": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actFail && c.State == Completed {
				c.State = Failed
			}
		}),
		"Complete needs a lease that holds": seenAs(func(c *engine.Entry, a *action, now *engine.Instant) {
			if c.State == InFlight && lapsed(c, *now, 0) && a.kind == actComplete {
				c.Fence = 0
			}
		}),
		"Extend shortens": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actExtend {
				c.LeaseUntil = 0
			}
		}),
		"retention counts from the claim": changed(func(_, next *engine.Entry, _ *action, _ engine.Instant) {
			if next.State.Final() && next.ExpiresAt != engine.Never {
				next.ExpiresAt = next.ClaimedAt.Add(next.Retention)
				next.Due = min(next.Due, next.ExpiresAt)
			}
		}),
		"the sweep removes what is live": seenAs(func(c *engine.Entry, a *action, now *engine.Instant) {
			if a.kind == actSweep && c.Due == a.due && c.Due <= *now {
				c.ExpiresAt = *now
			}
		}),
		"the sweep comes too late": changed(func(_, next *engine.Entry, a *action, _ engine.Instant) {
			if a.kind == actComplete && next.Due != 0 {
				next.Due = next.ExpiresAt + 1
			}
		}),
		"a dropped result is kept": changed(func(_, next *engine.Entry, _ *action, _ engine.Instant) { next.ResultDropped = false }),
		"a claim loses the last release's reason": changed(func(cur, next *engine.Entry, a *action, now engine.Instant) {
			if a.kind == actClaim {
				next.Result = nil
			}
		}),
		"Unclaim counts the attempt": changed(func(_, next *engine.Entry, a *action, _ engine.Instant) {
			if a.kind == actUnclaim {
				next.Attempt++
			}
		}),
		"Unclaim does not bind": changed(func(_, next *engine.Entry, _ *action, _ engine.Instant) { next.Bound = false }),
		"what is bound takes another request": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actClaim {
				c.Bound = false
			}
		}),
		"what is bound stays bound": changed(func(cur, next *engine.Entry, _ *action, _ engine.Instant) {
			next.Bound = next.Bound || cur != nil && cur.Bound
		}),
		"Unclaim drops a first attempt's checkpoint": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actUnclaim && c.Attempt == 1 {
				c.Checkpoint = nil
			}
		}),
		"Unclaim leaves a first attempt behind": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actUnclaim && c.Checkpoint == nil {
				c.Checkpoint = []byte{}
			}
		}),
		"Unclaim takes what is held": seenAs(func(c *engine.Entry, a *action, _ *engine.Instant) {
			if a.kind == actUnclaim && c.State == Held {
				c.State = InFlight
			}
		}),
		"what is too late is granted": asked(func(a *action) { a.issuedAt = 0 }),
		"what is too late by nothing is granted": asked(func(a *action) {
			if a.issuedAt != 0 {
				a.issuedAt++
			}
		}),
		"what was lost is granted":     asked(func(a *action) { a.lostUntil = 0 }),
		"a future IssuedAt is trusted": asked(func(a *action) { a.lostUntil = min(a.lostUntil, a.issuedAt-1) }),
		"Forget looks at no fence": asked(func(a *action) {
			if a.kind == actForget {
				a.fence = 0
			}
		}),
		"Forget forgets nothing": func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			if a.kind == actForget {
				return cur, nil
			}
			return transition(cur, a, now)
		},
		"the record given in is modified": func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
			next, err := transition(cur, a, now)
			if cur != nil && a.kind == actExtend && err == nil {
				cur.LeaseUntil = next.LeaseUntil
			}
			return next, err
		},
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := false
			explore(func(n node, a action, now engine.Instant) (*engine.Entry, bool) {
				e := n.e
				if e != nil {
					damaged := *e // by the mutant, perhaps
					e = &damaged
				}
				_, err := compareStep(mutant, e, a, now)
				found = err != nil
				next, _ := transition(n.e, &a, now)
				return next, !found
			})
			assert.True(t, found, "the comparison found nothing")
		})
	}
}
