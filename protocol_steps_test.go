package idem

// pProtocol is the protocol, and the ways it is broken on purpose.
type pProtocol struct {
	asks        []pAsk
	lapseOnOpen bool
	hold        bool // claims are HoldUnknown

	// transition is the state machine.
	transition func(cur *Entry, a *action, now Instant) (*Entry, error)

	noGate          bool // readers do not look for pre-images
	withdrawEarly   bool // they are withdrawn before the sync
	answerEarly     bool // callers are answered before the sync
	withdrawFailed  bool // a failed commit takes its pre-images along
	answerFailed    bool // a failed commit is answered like any other
	goOnFailed      bool // a store whose commit failed goes on
	decideEarly     bool // a claim is granted by what its look-up saw, not by the commit
	tellWhatWas     bool // a waiter is told of a claim that ended before the one it saw
	fillOvertaken   bool // the cache takes a fill that a commit overtook
	noPins          bool // the cache drops nothing when a commit begins
	fenceNotSaved   bool // the commit does not save the fence
	fenceSavedLater bool // the fence is saved by the next commit
}

// pStepKind is one step of one party. Between any two the process can be killed.
type pStepKind uint8

const (
	stepAsk pStepKind = iota
	stepRead
	stepLook
	stepTake
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
	kind pStepKind
	who  uint8
	ask  pAsk
}

// steps appends what can happen next in w.
func (p *pProtocol) steps(w *pWorld, can []pStep) []pStep {
	add := func(kind pStepKind, who int, ask pAsk) { can = append(can, pStep{kind, uint8(who), ask}) }
	for i := range w.callers {
		c := &w.callers[i]
		switch {
		case c.idle() && w.broken && !p.goOnFailed: // ErrBroken, and nothing changes
		case c.idle():
			for _, ask := range p.asks {
				if c.fence != 0 || ask == askClaim || ask == askWait || ask == askForget {
					add(stepAsk, i, ask)
				}
			}
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
			add(stepTake, 0, 0)
		}
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
	case stepRead:
		c.seen, c.stage = w.shown, stageRead
	case stepLook:
		return p.look(w, s.who)
	case stepTake:
		return p.take(w)
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
				c.stage, c.overtaken, c.waits = stageMissed, false, 0
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
		if op.ask == askClaim && op.changed {
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
	case askClaim, askWait:
		if w.cache.state != 0 {
			return p.decide(w, who, w.cache)
		}
		c.stage = stageMissed
		return nil
	case askForget: // its caller takes every promise back
		for i := range w.callers {
			w.callers[i].promised = pUnset
			w.callers[i].forgotten = true
		}
		w.finalUntil, w.finalGrant = pUnset, 0
	case askComplete, askRelease: // so is the claim's own
		c.promised = pUnset
	}
	c.stage = stageQueued
	w.enqueue(pOp{who: who, ask: ask, fence: c.fence, grant: c.grant})
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
	if value.state.Final() && w.cache.state == 0 && (p.fillOvertaken || !w.pinned && !c.overtaken) {
		w.cache = value
	}
	return p.decide(w, who, value)
}

func (p *pProtocol) action(ask pAsk, fence uint8, due int8) *action {
	a := &action{
		kind: pKinds[ask], fence: uint64(fence), lease: pLease, retention: pLease, holdUnknown: p.hold,
		opening: pOpening, due: pAt(due),
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
	if c.ask == askClaim {
		if refusal := refuseClaim(e, p.action(askClaim, 0, pUnset), now); refusal != nil {
			return p.answerLookup(w, who, pAnswers[refusal], value)
		}
		if p.decideEarly {
			c.seen = value
		}
		c.stage = stageQueued
		w.enqueue(pOp{who: who, ask: askClaim})
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
	c.stage, c.waits, c.told = stageWaiting, value.fence, pRec{}
	return nil
}

// waited is Wait's answer over a record, and whether it has one.
func waited(e *Entry, r pRec, now Instant, leasesFrom uint64) (pAnswer, bool) {
	switch {
	case !e.live(now):
		return heardNotFound, true
	case r.state != InFlight:
		return map[State]pAnswer{Released: heardReleased, Held: heardHeld, Completed: heardCompleted}[r.state], true
	case e.lapsed(now, leasesFrom):
		return heardInFlight, true
	}
	return 0, false
}

// take begins a commit: it runs the queue in order, and publishes pre-images.
func (p *pProtocol) take(w *pWorld) error {
	w.group, w.nGroup = w.queue, w.nQueue
	w.queue, w.nQueue = [pCallers + 1]pOp{}, 0
	cur := w.shown
	w.wrote = false
	for i := range w.nGroup {
		op := &w.group[i]
		if err := p.run(w, op, &cur); err != nil {
			return err
		}
		w.wrote = w.wrote || op.changed
	}
	w.next, w.phase = cur, phaseRun
	if !w.wrote {
		w.phase = phaseWithdrawn // nothing to commit
		return nil
	}
	w.gate, w.gated = w.shown, true
	if !p.noPins {
		w.pinned, w.cache = true, pRec{}
		w.overtake()
	}
	return nil
}

// run is Op.Run.
func (p *pProtocol) run(w *pWorld, op *pOp, cur *pRec) error {
	now := pAt(w.now)
	e := cur.entry()
	if p.decideEarly && op.ask == askClaim {
		e = w.callers[op.who].seen.entry()
	}
	a := p.action(op.ask, op.fence, op.due)
	if op.ask == askClaim {
		if refusal := refuseClaim(e, a, now); refusal != nil {
			op.answer, op.rec = pAnswers[refusal], *cur
			return nil
		}
		w.fence++
		a.fence = uint64(w.fence)
	}
	next, answer := p.transition(e, a, now)
	op.answer, op.changed = pAnswers[answer], next != e
	if !op.changed {
		op.rec = *cur
		return nil
	}
	if err := p.mayChange(w, op, *cur); err != nil {
		return err
	}
	after := cur.become(next)
	op.ended = max(cur.fence, after.fence)
	after.ver = max(pMax(w.vers), cur.ver) + 1
	if op.ask == askClaim {
		after.grant = max(pMax(w.grants), cur.grant) + 1
		op.fence, op.grant = after.fence, after.grant
	}
	*cur, op.rec = after, after
	return nil
}

func (w *pWorld) overtake() {
	for i := range w.callers {
		if c := &w.callers[i]; c.stage == stageMissed || c.stage == stageRead {
			c.overtaken = true
		}
	}
}

// tell ends a commit that went well: cache, waiters, callers.
func (p *pProtocol) tell(w *pWorld) error {
	if w.wrote {
		if w.pinned {
			w.pinned = false
			w.overtake()
		}
		if w.next.state.Final() && w.cache.state == 0 {
			w.cache = w.next
		}
		for _, op := range w.group[:w.nGroup] {
			if op.changed {
				if err := p.wake(w, op); err != nil {
					return err
				}
			}
		}
	}
	group := w.group[:w.nGroup]
	ops := append([]pOp(nil), group...)
	if w.phase != phaseShown { // answering early leaves the commit to go on
		p.endCommit(w)
	} else {
		w.group, w.nGroup = [pCallers + 1]pOp{}, 0
	}
	for _, op := range ops {
		if op.who == pSweeper {
			continue
		}
		if err := p.answerOp(w, op); err != nil {
			return err
		}
	}
	return nil
}

func (p *pProtocol) endCommit(w *pWorld) {
	w.phase, w.group, w.nGroup, w.next, w.wrote = phaseNone, [pCallers + 1]pOp{}, 0, pRec{}, false
}

// wake tells the waiters what op made of the record. The last one counts.
func (p *pProtocol) wake(w *pWorld, op pOp) error {
	for i := range w.callers {
		c := &w.callers[i]
		if c.ask != askWait {
			continue
		}
		if op.rec.state != InFlight {
			c.told = op.rec
			c.told.fence = op.ended
		}
		if c.stage != stageWaiting {
			continue
		}
		if op.rec.state == InFlight || c.told.fence < c.waits && !p.tellWhatWas {
			c.stage, c.overtaken, c.told, c.waits = stageMissed, false, pRec{}, 0 // it looks again
			continue
		}
		answer, _ := waited(c.told.entry(), c.told, pAt(w.now), 0)
		if err := p.answerLookup(w, uint8(i), answer, c.told); err != nil {
			return err
		}
	}
	return nil
}

// fail is a commit that fails: lost, or on disk all the same.
func (p *pProtocol) fail(w *pWorld, kept bool) error {
	if kept {
		w.disk = w.next
		p.saveFence(w)
	}
	w.broken = true
	if p.withdrawFailed || p.goOnFailed {
		w.gated, w.gate = false, pRec{}
	}
	if p.answerFailed {
		w.phase = phaseWithdrawn
		return p.tell(w)
	}
	p.endCommit(w)
	w.pinned = false
	w.overtake()
	for i := range w.callers { // of this group, of the next, and waiters: ErrBroken
		if c := &w.callers[i]; c.stage == stageQueued || c.stage == stageWaiting {
			c.end()
		}
	}
	w.queue, w.nQueue = [pCallers + 1]pOp{}, 0
	return nil
}

// crash kills the process and starts it again. The tokens outlive it.
func (p *pProtocol) crash(w *pWorld, kept bool) {
	if kept {
		w.disk = w.next
		p.saveFence(w)
	}
	fresh := pStart()
	fresh.now, fresh.disk, fresh.diskFence = w.now, w.disk, w.diskFence
	fresh.disk.old = p.lapseOnOpen && fresh.disk.state == InFlight
	fresh.shown, fresh.fence = fresh.disk, fresh.diskFence
	fresh.heard, fresh.finalUntil, fresh.finalGrant = w.heard, w.finalUntil, w.finalGrant
	for i := range w.callers {
		c := &w.callers[i]
		c.end()
		if p.lapseOnOpen && !p.hold {
			c.promised = pUnset // their process is gone, and with it their leases
		}
		fresh.callers[i] = *c
	}
	*w = fresh
}
