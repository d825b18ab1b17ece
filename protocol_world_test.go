package idem

import (
	"math/bits"

	"github.com/idemkv/idem/engine"
)

// The protocol in small: one key, one process that is killed and started again,
// two callers whose tokens outlive it, and a sweeper. The state machine is the
// real one; around it stands a model of what carries it: look-ups through cache
// and gate, what they and earlier commits bring to a commit, the commit in its
// steps, and time. explore (protocol_explore_test.go) walks through everything that
// can happen, in every order, and holds it against the rules
// (protocol_rules_test.go).

// pRec is an Entry cut down to what can matter here, with two ghosts: what no
// code can see and only the rules look at.
type pRec struct {
	state               State // 0: no record
	hold                bool
	old                 bool // its lease was given in an earlier opening
	fence               uint8
	lease, expires, due int8  // instants; pNever, pUnset
	grant               uint8 // ghost: the grant it is of; a fence may repeat, a grant does not
	ver                 uint8 // ghost: the change that made it
}

const (
	pNever = int8(127)
	pUnset = int8(-128)
	pLease = 1 // and so is the retention, in ticks
	pBase  = engine.Instant(1000)
)

func pAt(t int8) engine.Instant {
	switch t {
	case pNever:
		return engine.Never
	case pUnset:
		return 0
	}
	return pBase + engine.Instant(t)
}

func pTick(t engine.Instant) int8 {
	switch t {
	case engine.Never:
		return pNever
	case 0:
		return pUnset
	}
	return int8(t - pBase)
}

const (
	pOldOpening = 1
	pOpening    = 2
)

func (r pRec) entry() *engine.Entry {
	if r.state == 0 {
		return nil
	}
	e := &engine.Entry{
		State: r.state, HoldUnknown: r.hold, Attempt: 1, Fence: uint64(r.fence), Epoch: pOpening,
		LeaseUntil: pAt(r.lease), ExpiresAt: pAt(r.expires), Due: pAt(r.due), Lease: pLease, Retention: pLease,
	}
	if r.old {
		e.Epoch = pOldOpening
	}
	return e
}

// become is what e makes of the record r; the ghosts are not e's business.
func (r pRec) become(e *engine.Entry) pRec {
	if e == nil {
		return pRec{ver: r.ver}
	}
	return pRec{
		state: e.State, hold: e.HoldUnknown, old: e.Epoch == pOldOpening, fence: uint8(e.Fence),
		lease: pTick(e.LeaseUntil), expires: pTick(e.ExpiresAt), due: pTick(e.Due), grant: r.grant, ver: r.ver,
	}
}

func (r pRec) live(now int8) bool { return r.state != 0 && now < r.expires }

// pAsk is what a caller asks.
type pAsk uint8

const (
	askNothing pAsk = iota
	askClaim
	askWait
	askComplete
	askExtend
	askRelease
	askUnclaim
	askHold
	askForget
	askSweep
	askDo // claim and complete, with a function in the same commit
)

var pKinds = [...]actionKind{
	askClaim: actClaim, askComplete: actComplete, askExtend: actExtend, askRelease: actRelease, askUnclaim: actUnclaim,
	askHold: actHold, askForget: actForget, askSweep: actSweep, askDo: actClaim,
}

// pAnswer is what it hears.
type pAnswer uint8

const (
	heardNothing pAnswer = iota
	heardNil
	heardCompleted
	heardInFlight
	heardHeld
	heardFenced
	heardNotFound
	heardReleased // of Wait
	heardFailed   // the function's own error
)

var pAnswers = map[error]pAnswer{
	nil: heardNil, ErrCompleted: heardCompleted, ErrInFlight: heardInFlight, ErrHeld: heardHeld, ErrFenced: heardFenced,
}

// pStage is how far a call has come.
type pStage uint8

const (
	stageAsked   pStage = iota + 1 // begun
	stageCounted                   // the count was loaded
	stageMissed                    // the cache did not have it
	stageRead                      // the engine was read, the gate not looked at yet
	stageWaiting                   // Wait: in flight
	stageQueued                    // in the queue or in the group of a commit
)

type pCaller struct {
	fence, grant uint8 // the token it holds; 0: none
	// promised (ghost): no other is to own the key before; pUnset if nothing is.
	promised int8
	// left is what the last commit that left the token's claim in flight kept for
	// its holder, and leaves whether the count is where it was then.
	left   pRec
	leaves bool

	ask       pAsk
	stage     pStage
	seen      pRec  // stageRead: what the engine showed; stageQueued: what the call brings
	known     bool  // the count was loaded under no change, and is where it was
	told      pRec  // Wait: what a commit handed over; ver 0: nothing
	waits     uint8 // Wait: the fence of the claim that it saw in flight
	low       uint8 // ghost: the newest change anybody had heard of when the call began
	forgotten bool  // ghost: a Forget was under way at some time of the call
	late      bool  // ghost: begun on a broken store
}

func (c *pCaller) idle() bool { return c.ask == askNothing }

func (c *pCaller) end() {
	*c = pCaller{fence: c.fence, grant: c.grant, promised: c.promised, left: c.left, leaves: c.leaves}
}

// pOp is an operation in the queue or, run, in the group.
type pOp struct {
	who          uint8
	ask          pAsk
	fence, grant uint8
	due          int8
	answer       pAnswer
	rec          pRec // after it was run: what the answer rests on
	changed      bool
	counted      bool  // it was to change the record, in this pass or one that was spoiled
	rejected     bool  // its function failed
	ended        uint8 // the fence of the claim that it ended, if it did
}

const (
	pCallers = 2
	pSweeper = uint8(pCallers)
)

// pPhase is the commit's.
type pPhase uint8

const (
	phaseNone      pPhase = iota
	phaseRunning          // the first of the group have run
	phaseSpoiled          // a function spoiled the transaction: all are to run again
	phaseRun              // the transition was run on each, the gate is up
	phaseShown            // the engine shows it
	phaseSynced           // durable
	phaseWithdrawn        // the gate is down
)

// pWorld is everything at one moment. It is comparable: two paths that lead to
// the same world are explored on as one.
type pWorld struct {
	now int8

	// What a crash leaves.
	disk      pRec
	diskFence uint8

	// The process.
	shown  pRec // as the engine shows it
	fence  uint8
	broken bool
	gated  bool
	gate   pRec
	cache  pRec  // state 0: nothing
	under  uint8 // changes under way
	queue  [pCallers + 1]pOp
	nQueue uint8
	phase  pPhase
	group  [pCallers + 1]pOp
	nGroup uint8
	ran    uint8 // how many of the group have run in this pass
	told   uint8 // of how many cache and waiters were told
	next   pRec  // what those that ran make of the record
	wrote  bool
	found  int8 // the sweeper's place, not queued yet

	callers [pCallers]pCaller

	// Ghosts.
	heard      uint8 // the newest change that any answer rests on
	finalUntil int8  // somebody was told "completed"; it must stay so until then
	finalGrant uint8
}

func pStart() pWorld {
	w := pWorld{found: pUnset, finalUntil: pUnset}
	w.disk.ver, w.shown.ver, w.heard = 1, 1, 1
	for i := range w.callers {
		w.callers[i].promised = pUnset
	}
	return w
}

// brings is how many operations in the queue bring what is of use to the commit.
func (w *pWorld) brings() (n int) {
	for _, op := range w.queue[:w.nQueue] {
		if op.who != pSweeper && w.callers[op.who].known {
			n++
		}
	}
	return n
}

// recs calls f with every record the world holds.
func (w *pWorld) recs(f func(*pRec)) {
	held := func(r *pRec) {
		if r.ver != 0 {
			f(r)
		}
	}
	held(&w.disk)
	held(&w.shown)
	held(&w.gate)
	held(&w.cache)
	held(&w.next)
	for i := range w.callers {
		held(&w.callers[i].seen)
		held(&w.callers[i].left)
		held(&w.callers[i].told)
	}
	for i := range w.nGroup {
		held(&w.group[i].rec)
	}
}

func (w *pWorld) vers(f func(*uint8)) {
	w.recs(func(r *pRec) { f(&r.ver) })
	f(&w.heard)
	for i := range w.callers {
		f(&w.callers[i].low)
	}
}

func (w *pWorld) grants(f func(*uint8)) {
	w.recs(func(r *pRec) { f(&r.grant) })
	f(&w.finalGrant)
	for i := range w.callers {
		f(&w.callers[i].grant)
	}
	for i := range w.nQueue {
		f(&w.queue[i].grant)
	}
	for i := range w.nGroup {
		f(&w.group[i].grant)
	}
}

func (w *pWorld) fences(f func(*uint8)) {
	w.recs(func(r *pRec) { f(&r.fence) })
	f(&w.diskFence)
	f(&w.fence)
	for i := range w.callers {
		f(&w.callers[i].fence)
		f(&w.callers[i].waits)
	}
	for i := range w.nQueue {
		f(&w.queue[i].fence)
	}
	for i := range w.nGroup {
		f(&w.group[i].fence)
		f(&w.group[i].ended)
	}
}

func pMax(each func(func(*uint8))) (most uint8) {
	each(func(n *uint8) { most = max(most, *n) })
	return most
}

// rank replaces numbers, of which only order matters, by the least that keep it.
func rank(each func(func(*uint8))) {
	var used uint64 // there are never as many as that
	each(func(n *uint8) { used |= 1 << *n })
	each(func(n *uint8) {
		if *n != 0 {
			*n = uint8(bits.OnesCount64(used &^ 1 & (2<<*n - 1)))
		}
	})
}

// canonical makes numbers and times that cannot be told apart equal: now is 0, a
// lapsed lease ends now, and so on. What follows is the same.
func (w *pWorld) canonical() {
	rank(w.vers)
	rank(w.grants)
	if w.fence == pMax(w.fences) { // else the next one may be one of those that exist
		rank(w.fences)
	}
	sweeping := w.found != pUnset
	for i := range w.queue {
		sweeping = sweeping || w.queue[i].ask == askSweep || w.group[i].ask == askSweep
	}
	shift := func(t *int8, clamp bool) {
		if *t == pNever || *t == pUnset {
			return
		}
		if *t -= w.now; clamp {
			*t = max(*t, 0)
		}
	}
	w.recs(func(r *pRec) {
		if r.state == 0 {
			return
		}
		shift(&r.lease, true)
		if r.state != InFlight {
			r.lease = 0 // nothing asks for it any more
		}
		shift(&r.expires, true)
		shift(&r.due, !sweeping) // an overdue place matters only to a sweep that found one
	})
	shift(&w.found, false)
	for i := range w.queue {
		if w.queue[i].ask == askSweep {
			shift(&w.queue[i].due, false)
		}
		if w.group[i].ask == askSweep {
			shift(&w.group[i].due, false)
		}
	}
	over := func(t *int8) bool { // a promise that is over is none
		if *t != pUnset && *t <= w.now {
			*t = pUnset
		}
		shift(t, false)
		return *t == pUnset
	}
	if over(&w.finalUntil) {
		w.finalGrant = 0
	}
	for i := range w.callers {
		over(&w.callers[i].promised)
	}
	w.now = 0
}

// mirror changes the callers over: they are alike.
func (w *pWorld) mirror() {
	w.callers[0], w.callers[1] = w.callers[1], w.callers[0]
	for i := range w.queue {
		if i < int(w.nQueue) && w.queue[i].who != pSweeper {
			w.queue[i].who = 1 - w.queue[i].who
		}
		if i < int(w.nGroup) && w.group[i].who != pSweeper {
			w.group[i].who = 1 - w.group[i].who
		}
	}
}
