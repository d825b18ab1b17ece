package idem

import "fmt"

// take begins a commit, goes on with it or begins it again: it runs the group in
// order, with the functions that fails says failing, and publishes pre-images.
func (p *pProtocol) take(w *pWorld, fails uint8) error {
	if w.phase != phaseRunning {
		p.begin(w)
	}
	until := w.nGroup
	if p.fine {
		until = w.ran + 1
	}
	if err := p.runUntil(w, until, fails); err != nil {
		return err
	}
	if w.phase = phaseRunning; w.ran < w.nGroup {
		return nil
	}
	w.phase = phaseRun
	if !w.wrote {
		w.phase = phaseWithdrawn // nothing to commit
	}
	for _, op := range w.group[:w.nGroup] {
		if op.who != pSweeper { // what it brought was used, or was not
			c := &w.callers[op.who]
			c.known, c.seen = false, pRec{}
		}
	}
	return nil
}

// begin is the beginning of a pass.
func (p *pProtocol) begin(w *pWorld) {
	if w.phase == phaseNone {
		w.group, w.nGroup = w.queue, w.nQueue
		w.queue, w.nQueue = [pCallers + 1]pOp{}, 0
	}
	if w.phase == phaseNone || !p.keepsSpoiled {
		w.next = w.shown
	}
	w.ran, w.wrote = 0, false
}

func (p *pProtocol) runUntil(w *pWorld, n, fails uint8) error {
	for ; w.ran < n; w.ran++ {
		op := &w.group[w.ran]
		if op.rejected {
			continue
		}
		if err := p.run(w, op, fails>>w.ran&1 != 0); err != nil {
			return err
		}
		w.wrote = w.wrote || op.changed
	}
	return nil
}

// spoil is a pass of which n operations ran when a function failed: of another
// caller, or the last of the n itself. Nothing of it is left but what has begun, and
// who failed.
func (p *pProtocol) spoil(w *pWorld, n, fails uint8) error {
	before, under := w.callers, w.under
	p.begin(w)
	if err := p.runUntil(w, n, fails); err != nil {
		return err
	}
	for i := range w.group[:w.nGroup] {
		op := &w.group[i]
		again := pOp{who: op.who, ask: op.ask, fence: op.fence, grant: op.grant, due: op.due, counted: op.counted}
		if op.ask == askClaim || op.ask == askDo {
			again.fence, again.grant = 0, 0
		}
		if again.rejected = op.rejected; op.rejected {
			again.answer = op.answer
		}
		*op = again
	}
	if !p.keepsSpoiled {
		w.next = pRec{}
	}
	w.phase, w.ran, w.wrote, w.gated, w.gate = phaseSpoiled, 0, false, false, pRec{}
	if p.countTakenBack {
		w.under = under
		for i := range w.callers {
			w.callers[i].known, w.callers[i].seen = before[i].known, before[i].seen
		}
	}
	return nil
}

// run is Op.Run, and Finish.
func (p *pProtocol) run(w *pWorld, op *pOp, fails bool) error {
	found, err := p.current(w, op)
	if err != nil {
		return err
	}
	now := pAt(w.now)
	e := found.entry()
	a := p.action(op.ask, op.fence, op.due)
	if a.kind == actClaim {
		if refusal := refuseClaim(e, a, now); refusal != nil {
			op.answer, op.rec = pAnswers[refusal], found
			return nil
		}
		w.fence++
		a.fence = uint64(w.fence)
	}
	if op.ask == askDo && fails {
		op.rejected, op.answer = true, heardFailed
		return nil
	}
	next, answer := p.transition(e, a, now)
	if op.ask == askDo {
		next, answer = p.transition(next, p.action(askComplete, w.fence, pUnset), now)
	}
	op.answer, op.changed = pAnswers[answer], next != e
	if !op.changed {
		op.rec = found
		return nil
	}
	if err := p.mayChange(w, op, w.next); err != nil {
		return err
	}
	after := found.become(next)
	op.ended = max(found.fence, after.fence)
	after.ver = max(pMax(w.vers), found.ver) + 1
	if a.kind == actClaim {
		after.grant = max(pMax(w.grants), found.grant) + 1
		op.fence, op.grant = after.fence, after.grant
	}
	if !op.counted {
		op.counted = true
		p.beginChange(w, a.kind == actForget || e != nil && e.State.Final())
	}
	if !w.gated {
		w.gate, w.gated = found, true
	}
	w.next, op.rec = after, after
	return nil
}

// current is the record that op is decided on: what its call brings, if that is
// still of use, or what the commit finds.
func (p *pProtocol) current(w *pWorld, op *pOp) (pRec, error) {
	if op.who == pSweeper {
		return w.next, nil
	}
	c := &w.callers[op.who]
	if !c.known && !(p.decideEarly && op.ask == askClaim) {
		return w.next, nil
	}
	if c.known && c.seen != w.next && !p.mistakes {
		return pRec{}, fmt.Errorf("mistaken: %s brings %v, and there is %v", pNames[op.who], c.seen, w.next)
	}
	return c.seen, nil
}

// beginChange is tracker.begin: an op is about to change the record, of which the
// cache may hold a copy.
func (p *pProtocol) beginChange(w *pWorld, mayBeCached bool) {
	w.under++
	if !p.noCountBefore {
		p.count(w)
	}
	if mayBeCached && !p.keepsCached && !p.emptiesLate {
		w.cache = pRec{}
	}
}

// endChange is what tracker.end and tracker.abandon do to the count.
func (p *pProtocol) endChange(w *pWorld) {
	w.under--
	if !p.noCountAfter {
		p.count(w)
	}
	if p.emptiesLate {
		w.cache = pRec{}
	}
}

// counts reports whether a count that is loaded now is of use.
func (p *pProtocol) counts(w *pWorld) bool {
	return w.under == 0 || p.noCountAfter || p.countsUnder
}

// count makes the count go up. Nobody's count can come back to where it is, so that
// all that needs to be known of one is whether it is still there.
func (p *pProtocol) count(w *pWorld) {
	for i := range w.callers {
		c := &w.callers[i]
		if p.leftUnchecked {
			if c.stage == stageQueued && c.fence != 0 && c.ask != askClaim {
				continue
			}
		} else {
			c.left, c.leaves = pRec{}, false
		}
		c.known = false
		if c.stage == stageQueued && !p.decideEarly {
			c.seen = pRec{}
		}
	}
}

// tell ends a commit that went well: counts, cache, waiters, callers.
func (p *pProtocol) tell(w *pWorld) error {
	for w.told < w.nGroup {
		op := w.group[w.told]
		w.told++
		if !op.changed {
			continue
		}
		if err := p.committed(w, op); err != nil || p.fine {
			return err
		}
	}
	ops := append([]pOp(nil), w.group[:w.nGroup]...)
	for _, op := range ops {
		if op.counted && !op.changed { // in a pass that was spoiled: its caller abandons it
			p.endChange(w)
		}
	}
	if w.phase != phaseShown { // answering early leaves the commit to go on
		p.endCommit(w)
	} else {
		w.group, w.nGroup, w.told = [pCallers + 1]pOp{}, 0, 0
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

// committed is tracker.end of op.
func (p *pProtocol) committed(w *pWorld, op pOp) error {
	p.endChange(w)
	for i := range w.callers {
		c := &w.callers[i]
		holds := c.fence != 0 && c.fence == op.ended
		if op.ask == askClaim {
			holds = op.who == uint8(i)
		}
		switch {
		case !holds:
		case op.rec.state == InFlight:
			c.left, c.leaves = op.rec, p.counts(w)
			if !c.leaves {
				c.left = pRec{}
			}
		default:
			c.left, c.leaves = pRec{}, false
		}
	}
	return p.wake(w, op)
}

func (p *pProtocol) endCommit(w *pWorld) {
	w.phase, w.group, w.nGroup, w.ran, w.told = phaseNone, [pCallers + 1]pOp{}, 0, 0, 0
	w.next, w.wrote = pRec{}, false
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
			c.told = pRec{}
			p.lookAgain(w, c)
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
	p.count(w)
	w.under = 0
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
		c.left, c.leaves = pRec{}, false
		if p.lapseOnOpen && !p.hold {
			c.promised = pUnset // their process is gone, and with it their leases
		}
		fresh.callers[i] = *c
	}
	*w = fresh
}
