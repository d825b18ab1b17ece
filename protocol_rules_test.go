package idem

import "fmt"

// The rules, as far as this world can break them:
//
//  1. One owner: never two tokens that can both change the record; and while a
//     granted lease holds, no other is granted.
//  2. Fenced: what a stale token asks changes nothing.
//  3. Durable before visible: whatever anybody was told is so on the disk, and
//     stays so over a crash. Nobody is told what was before something already told.
//  4. After a failed commit nothing is granted or replayed.

// check holds the rules against a world that stands still.
func (p *pProtocol) check(w *pWorld) error {
	if w.heard > w.disk.ver {
		return fmt.Errorf("rule 3: an answer was given that a crash would undo")
	}
	if w.finalUntil != pUnset && w.finalUntil > w.now && (!w.disk.state.Final() || w.disk.grant != w.finalGrant) {
		return fmt.Errorf("rule 3: a caller was told that the operation is completed, and what a crash leaves does not say so")
	}
	owners := 0
	for i := range w.callers {
		c := &w.callers[i]
		if c.promised != pUnset && c.promised > w.now {
			open := w.disk.state == InFlight || w.disk.state == Held
			if !open || w.disk.grant != c.grant {
				return fmt.Errorf("rule 1: %s was granted the key and its lease holds, and what a crash leaves has no such claim", pNames[i])
			}
		}
		if c.fence != 0 && (i == 0 || c.grant != w.callers[0].grant) {
			next, _ := p.transition(w.disk.entry(), p.action(askRelease, c.fence, pUnset), pAt(w.now))
			if cur := w.disk; cur.state != 0 && (next == nil || next.State != cur.state) {
				owners++
			}
		}
	}
	if owners > 1 {
		return fmt.Errorf("rule 1: the tokens of %s and %s can both change the record", pNames[0], pNames[1])
	}
	return nil
}

// mayChange holds the rules against a change that a commit is about to make.
func (p *pProtocol) mayChange(w *pWorld, op *pOp, cur pRec) error {
	if w.broken {
		return fmt.Errorf("rule 4: a change after a failed commit")
	}
	switch op.ask {
	case askClaim, askForget, askSweep, askDo:
		return nil
	}
	if op.grant != cur.grant || !cur.live(w.now) {
		return fmt.Errorf("rule 2: the stale token of %s (fence %d) changes the record", pNames[op.who], op.fence)
	}
	return nil
}

// answerLookup ends a call that needed no commit.
func (p *pProtocol) answerLookup(w *pWorld, who uint8, answer pAnswer, rec pRec) error {
	c := &w.callers[who]
	if c.late {
		return fmt.Errorf("rule 4: %s asked a broken store and is told %s", pNames[who], pAnswerNames[answer])
	}
	if rec.ver < c.low {
		return fmt.Errorf("rule 3: %s is told %s, which was over before it asked", pNames[who], pAnswerNames[answer])
	}
	if answer == heardCompleted && !c.forgotten {
		w.promiseFinal(rec)
	}
	w.heard = max(w.heard, rec.ver)
	c.end()
	return nil
}

// answerOp ends a call that took part in a commit.
func (p *pProtocol) answerOp(w *pWorld, op pOp) error {
	c := &w.callers[op.who]
	forgotten, low := c.forgotten, c.low
	c.end()
	if w.broken {
		return fmt.Errorf("rule 4: the commit failed and %s is told %s", pNames[op.who], pAnswerNames[op.answer])
	}
	if op.answer == heardFailed { // which says nothing of the record
		return nil
	}
	if op.rec.ver < low {
		return fmt.Errorf("rule 3: %s is told %s, which was over before it asked", pNames[op.who], pAnswerNames[op.answer])
	}
	w.heard = max(w.heard, op.rec.ver)
	switch {
	case op.answer == heardCompleted, (op.ask == askComplete || op.ask == askDo) && op.answer == heardNil:
		if !forgotten {
			w.promiseFinal(op.rec)
		}
	case op.answer != heardNil:
	case op.ask == askClaim:
		for i := range w.callers {
			if w.callers[i].fence >= op.fence {
				return fmt.Errorf("rule 2: fence %d is granted to %s, and %s has a token with fence %d",
					op.fence, pNames[op.who], pNames[i], w.callers[i].fence)
			}
		}
		c.fence, c.grant, c.promised = op.fence, op.grant, pUnset
		if !forgotten {
			c.promise(op.rec)
		}
	case op.ask == askExtend && !forgotten, op.ask == askHold && !forgotten:
		c.promise(op.rec)
	}
	return nil
}

func (c *pCaller) promise(r pRec) {
	c.promised = r.lease
	if r.hold || r.state == Held {
		c.promised = pNever
	}
}

func (w *pWorld) promiseFinal(r pRec) {
	if r.live(w.now) {
		w.finalUntil, w.finalGrant = r.expires, r.grant
	}
}

var (
	pNames       = [...]string{"A", "B", "the sweeper"}
	pAnswerNames = [...]string{
		heardNil: "yes", heardCompleted: "completed", heardInFlight: "in flight", heardHeld: "held",
		heardFenced: "stale token", heardNotFound: "not found", heardReleased: "released",
		heardFailed: "the function failed",
	}
)
