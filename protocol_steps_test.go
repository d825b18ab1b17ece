package idem

import "github.com/idemkv/idem/engine"

// pProtocol is the protocol, and the ways it is broken on purpose.
type pProtocol struct {
	asks        []pAsk
	lapseOnOpen bool
	hold        bool // claims are HoldUnknown
	spoils      bool // functions of other callers spoil commits
	further     int  // steps that it is explored further than others
	// fine takes apart what is one step without it: the beginning of a look-up, and
	// what a commit does for each operation of its group. One step loses nothing:
	// whoever looks in between finds the count moved when its operation is run, and
	// is as if it had brought nothing; and what is brought is held to be what the
	// commit would read (mistakes), so that to bring nothing makes no other world.
	fine bool

	// transition is the state machine.
	transition func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error)

	noGate          bool // readers do not look for pre-images
	withdrawEarly   bool // they are withdrawn before the sync
	answerEarly     bool // callers are answered before the sync
	withdrawFailed  bool // a failed commit takes its pre-images along
	answerFailed    bool // a failed commit is answered like any other
	goOnFailed      bool // a store whose commit failed goes on
	decideEarly     bool // a claim is granted by what its look-up saw, not by the commit
	tellWhatWas     bool // a waiter is told of a claim that ended before the one it saw
	fillOvertaken   bool // the cache takes a fill that a commit overtook
	keepsCached     bool // the cache keeps what a change begins on
	emptiesLate     bool // it lets go of that when the change has ended
	fenceNotSaved   bool // the commit does not save the fence
	fenceSavedLater bool // the fence is saved by the next commit

	noCountBefore  bool // the count does not go up when a commit decides to change the record
	noCountAfter   bool // nor when the change can be read, nor does it tell that one is under way
	countsUnder    bool // it does not tell that one is under way
	countLate      bool // it is loaded after the read
	leftUnchecked  bool // what a claim left is used whatever the count is
	countTakenBack bool // a pass that is spoiled takes its counts back
	keepsSpoiled   bool // the next pass goes on from what the spoiled one made

	// mistakes lets a commit use what is not there any more, to see a rule broken;
	// without it that is an error at once.
	mistakes bool
}

// pStepKind is one step of one party. Between any two the process can be killed.
type pStepKind uint8

const (
	stepAsk pStepKind = iota
	stepCount
	stepCache
	stepRead
	stepLook
	stepTake
	stepSpoil
	stepShow
	stepSync
	stepWithdraw
	stepTell
	stepFailLost
	stepFailKept
	stepFind
	stepSweep
	stepTick
	stepCrashLost
	stepCrashKept
)

type pStep struct {
	kind  pStepKind
	who   uint8
	ask   pAsk
	n     uint8 // stepSpoil: how many of the group run before
	fails uint8 // the places in the group whose functions fail, as bits
}

// steps appends what can happen next in w.
func (p *pProtocol) steps(w *pWorld, can []pStep) []pStep {
	add := func(kind pStepKind, who int, ask pAsk) {
		can = append(can, pStep{kind: kind, who: uint8(who), ask: ask})
	}
	for i := range w.callers {
		c := &w.callers[i]
		switch {
		case c.idle() && w.broken && !p.goOnFailed: // ErrBroken, and nothing changes
		case c.idle():
			for _, ask := range p.asks {
				if c.fence != 0 || ask == askClaim || ask == askWait || ask == askForget || ask == askDo {
					add(stepAsk, i, ask)
				}
			}
		case c.stage == stageAsked:
			add(stepCount, i, 0)
		case c.stage == stageCounted:
			add(stepCache, i, 0)
		case c.stage == stageMissed:
			add(stepRead, i, 0)
		case c.stage == stageRead:
			add(stepLook, i, 0)
		}
	}
	sweeping := w.found != pUnset
	for i := range w.nQueue {
		sweeping = sweeping || w.queue[i].ask == askSweep
	}
	for i := range w.nGroup {
		sweeping = sweeping || w.group[i].ask == askSweep
	}
	runs := !w.broken || p.goOnFailed
	switch {
	case w.found != pUnset:
		add(stepSweep, 0, 0)
	case !sweeping && runs && w.shown.state != 0 && w.shown.due != pUnset && w.shown.due <= w.now:
		add(stepFind, 0, 0)
	}
	switch w.phase {
	case phaseNone:
		if w.nQueue > 0 && runs {
			can = p.takes(w, can)
		}
	case phaseRunning, phaseSpoiled:
		can = p.takes(w, can)
	case phaseRun:
		add(stepShow, 0, 0)
		add(stepFailLost, 0, 0)
	case phaseShown:
		add(stepSync, 0, 0)
		add(stepFailLost, 0, 0)
		add(stepFailKept, 0, 0)
	case phaseSynced:
		add(stepWithdraw, 0, 0)
	case phaseWithdrawn:
		add(stepTell, 0, 0)
	}
	add(stepTick, 0, 0)
	add(stepCrashLost, 0, 0)
	if w.phase == phaseShown {
		add(stepCrashKept, 0, 0)
	}
	return can
}

// takes appends how a commit can begin or go on: each function in it fails or does
// not, and one that fails, or another caller's, may spoil the transaction. That
// happens once in a commit here; once more would run the same again.
func (p *pProtocol) takes(w *pWorld, can []pStep) []pStep {
	ops, first := w.group[:w.nGroup], w.phase == phaseNone
	if first {
		ops = w.queue[:w.nQueue]
	}
	var functions uint8
	for i, op := range ops {
		if op.ask == askDo && i >= int(w.ran) && !op.rejected {
			functions |= 1 << i
		}
		if op.ask == askDo && first {
			can = append(can, pStep{kind: stepSpoil, n: uint8(i + 1), fails: 1 << i})
		}
		if p.spoils && first {
			can = append(can, pStep{kind: stepSpoil, n: uint8(i + 1)})
		}
	}
	for fails := functions; ; fails = (fails - 1) & functions {
		can = append(can, pStep{kind: stepTake, fails: fails})
		if fails == 0 {
			return can
		}
	}
}

// do takes the step s. The error is the rule that it breaks.
func (p *pProtocol) do(w *pWorld, s pStep) error {
	err := p.step(w, s)
	if err == nil {
		err = p.check(w)
	}
	return err
}

func (p *pProtocol) step(w *pWorld, s pStep) error {
	c := &w.callers[s.who]
	switch s.kind {
	case stepAsk:
		return p.ask(w, s.who, s.ask)
	case stepCount:
		p.loadCount(w, c)
	case stepCache:
		return p.lookCache(w, s.who)
	case stepRead:
		c.seen, c.stage = w.shown, stageRead
	case stepLook:
		return p.look(w, s.who)
	case stepTake:
		return p.take(w, s.fails)
	case stepSpoil:
		return p.spoil(w, s.n, s.fails)
	case stepShow:
		w.phase, w.shown = phaseShown, w.next
		if p.withdrawEarly {
			w.gated = false
		}
		if p.answerEarly {
			return p.tell(w)
		}
	case stepSync:
		w.phase, w.disk = phaseSynced, w.next
		p.saveFence(w)
	case stepWithdraw:
		w.phase, w.gated, w.gate = phaseWithdrawn, false, pRec{}
	case stepTell:
		return p.tell(w)
	case stepFailLost, stepFailKept:
		return p.fail(w, s.kind == stepFailKept)
	case stepFind:
		w.found = w.shown.due
	case stepSweep:
		if !w.broken || p.goOnFailed {
			w.enqueue(pOp{who: pSweeper, ask: askSweep, due: w.found})
		}
		w.found = pUnset
	case stepTick:
		w.now++
		for i := range w.callers { // a waiter's timer: it looks again
			if c := &w.callers[i]; c.stage == stageWaiting {
				p.lookAgain(w, c)
			}
		}
	case stepCrashLost, stepCrashKept:
		p.crash(w, s.kind == stepCrashKept)
	}
	return nil
}

func (p *pProtocol) saveFence(w *pWorld) {
	switch {
	case p.fenceNotSaved:
	case p.fenceSavedLater:
		w.diskFence = max(w.diskFence, w.fence-min(w.fence, w.claimsGranted()))
	default:
		w.diskFence = w.fence
	}
}

func (w *pWorld) claimsGranted() (n uint8) {
	for _, op := range w.group[:w.nGroup] {
		if (op.ask == askClaim || op.ask == askDo) && op.changed {
			n++
		}
	}
	return n
}

// enqueue puts op into the group that is forming. Each party has one call under
// way, so there is room.
func (w *pWorld) enqueue(op pOp) {
	w.queue[w.nQueue] = op
	w.nQueue++
}

func (p *pProtocol) ask(w *pWorld, who uint8, ask pAsk) error {
	c := &w.callers[who]
	c.end()
	c.ask, c.low, c.late, c.forgotten = ask, w.heard, w.broken, w.forgetting()
	switch ask {
	case askClaim, askWait, askDo:
		c.stage = stageAsked
		if p.fine {
			return nil
		}
		p.loadCount(w, c)
		return p.lookCache(w, who)
	case askForget: // its caller takes every promise back
		for i := range w.callers {
			w.callers[i].promised = pUnset
			w.callers[i].forgotten = true
		}
		w.finalUntil, w.finalGrant = pUnset, 0
	case askComplete, askRelease, askUnclaim: // so is the claim's own
		c.promised = pUnset
	}
	if ask != askForget && c.leaves {
		c.known, c.seen = true, c.left
	}
	c.stage = stageQueued
	w.enqueue(pOp{who: who, ask: ask, fence: c.fence, grant: c.grant})
	return nil
}

// loadCount begins a look-up that may have to go on to a commit.
func (p *pProtocol) loadCount(w *pWorld, c *pCaller) {
	c.known = !p.countLate && p.counts(w)
	c.stage = stageCounted
}

// lookAgain is a waiter's next look-up, from where it has missed the cache.
func (p *pProtocol) lookAgain(w *pWorld, c *pCaller) {
	p.loadCount(w, c)
	c.stage, c.waits = stageMissed, 0
}

func (p *pProtocol) lookCache(w *pWorld, who uint8) error {
	if w.cache.state != 0 {
		return p.decide(w, who, w.cache)
	}
	w.callers[who].stage = stageMissed
	return nil
}

func (w *pWorld) forgetting() bool {
	for i := range w.nQueue {
		if w.queue[i].ask == askForget {
			return true
		}
	}
	for i := range w.nGroup {
		if w.group[i].ask == askForget {
			return true
		}
	}
	return false
}

// look ends a look-up: what the gate holds outranks what the engine showed.
func (p *pProtocol) look(w *pWorld, who uint8) error {
	c := &w.callers[who]
	value := c.seen
	if w.gated && !p.noGate {
		value = w.gate
	}
	c.seen = pRec{}
	if value.state.Final() && w.cache.state == 0 && (p.fillOvertaken || c.known) {
		w.cache = value
	}
	return p.decide(w, who, value)
}

func (p *pProtocol) action(ask pAsk, fence uint8, due int8) *action {
	a := &action{
		kind: pKinds[ask], fence: uint64(fence), lease: pLease, retention: pLease, holdUnknown: p.hold,
		epoch: pOpening, due: pAt(due),
	}
	if p.lapseOnOpen {
		a.leasesFrom = pOpening
	}
	return a
}

// decide goes on with what a look-up found.
func (p *pProtocol) decide(w *pWorld, who uint8, value pRec) error {
	c := &w.callers[who]
	now := pAt(w.now)
	e := value.entry()
	if c.ask != askWait {
		if refusal := refuseClaim(e, p.action(askClaim, 0, pUnset), now); refusal != nil {
			return p.answerLookup(w, who, pAnswers[refusal], value)
		}
		c.known = c.known || p.countLate
		if c.known || p.decideEarly {
			c.seen = value
		}
		c.stage = stageQueued
		w.enqueue(pOp{who: who, ask: c.ask})
		return nil
	}
	answer, ended := waited(e, value, now, p.action(askClaim, 0, pUnset).leasesFrom)
	switch {
	case ended:
		return p.answerLookup(w, who, answer, value)
	case c.told.ver != 0 && (c.told.fence >= value.fence || p.tellWhatWas):
		answer, _ := waited(c.told.entry(), c.told, now, 0)
		return p.answerLookup(w, who, answer, c.told)
	}
	c.stage, c.waits, c.told, c.known = stageWaiting, value.fence, pRec{}, false
	return nil
}

// waited is Wait's answer over a record, and whether it has one.
func waited(e *engine.Entry, r pRec, now engine.Instant, leasesFrom uint64) (pAnswer, bool) {
	switch {
	case !live(e, now):
		return heardNotFound, true
	case r.state != InFlight:
		return map[State]pAnswer{Released: heardReleased, Held: heardHeld, Completed: heardCompleted}[r.state], true
	case lapsed(e, now, leasesFrom):
		return heardInFlight, true
	}
	return 0, false
}
