package oracle

import "github.com/idemkv/idem"

// step returns the possible states of a key after op took effect in state s, if it
// could then have answered a. A nil answer is that of an operation that a crash cut
// off: it may have done anything possible.
func (w *world) step(s state, op *call, a *Answer, now span) []state {
	states := w.exactly(s, op, a, now)
	for i := range states {
		states[i] = w.loosened(states[i])
	}
	return states
}

// loosened returns s without an upper bound on when anything lapses or expires, for a
// store that may count less time. Even a deadline that was seen to be over may not be,
// after an opening that saved nothing.
func (w *world) loosened(s state) state {
	if w.loose && s.state != 0 {
		s.lease.hi = never
		if s.state != idem.InFlight {
			s.expires.hi = never
		}
	}
	return s
}

// exactly is step for a store that counts all the time that passes.
func (w *world) exactly(s state, op *call, a *Answer, now span) []state {
	switch {
	case a == nil || a.Err != Context && a.Err != Closed && a.Err != Own:
	case a.Err == Context && op.Kind.settles():
		return nil
	case a.Err == Own && op.Kind == Do:
		return w.fails(s, op, now)
	case a.Err == Own && (op.Final || op.Doubt):
		return one(w.token(s, op, a, now))
	case op.Kind == Undo:
	case op.Kind == Run && a.Err == Context: // perhaps granted; see Undo
		return append(w.grants(s, &op.Op, op.life, now), s)
	default:
		return []state{s} // nothing has changed
	}
	switch op.Kind {
	case Claim, Run, Do:
		return w.claim(s, op, a, now)
	case Get, Wait:
		return one(w.look(s, op, a, now))
	case Forget:
		return one(s.nothing(), a == nil || a.Err == OK)
	case Undo:
		return undo(s, op, a, now)
	case Unclaim:
		return w.unclaim(s, op, a, now)
	}
	return one(w.token(s, op, a, now))
}

// fails returns the states after Do's function has failed. It failed for good, or the
// attempt counts because attempts are limited, or nothing has changed.
func (w *world) fails(s state, op *call, now span) (out []state) {
	for _, g := range w.grants(s, &op.Op, op.life, now) {
		switch {
		case op.Final:
			out = append(out, g.finish(idem.Failed, &op.Op, now))
		case op.Doubt:
			out = append(out, g.held(TextOf([]byte(errOwn.Error()))))
		case w.most(&op.Op, op.life) > 0:
			out = append(out, g.released(TextOf([]byte(errOwn.Error())), now))
		default:
			return []state{s}
		}
	}
	return out
}

// undo undoes the claim of a Run, if it was granted and is still the Run's own.
func undo(s state, op *call, a *Answer, now span) []state {
	if a != nil && a.Err != Context || s.run != op.Of || s.state != idem.InFlight {
		return []state{s}
	}
	return []state{s, s.unclaimed(now)}
}

// unclaim leaves two states where the record may have been live or expired. A record that
// has expired stays as it is, and it may be there again after an opening that counts less
// time.
func (w *world) unclaim(s state, op *call, a *Answer, now span) (out []state) {
	switch {
	case s.state == 0:
		return one(s, a == nil || a.Err == OK)
	case s.fence == op.Fence:
		if live, ok := s.live(now); ok {
			next, want := live, OK
			switch s.state {
			case idem.InFlight:
				next = live.unclaimed(now)
			case idem.Held, idem.Completed, idem.Failed:
				want = map[idem.State]Code{idem.Held: Held, idem.Completed: Completed, idem.Failed: Failed}[s.state]
			}
			out = one(next, a == nil || a.Err == want)
		}
	case a == nil:
		return []state{s}
	case a.Err == Fenced:
		return one(s.live(now))
	}
	if gone, ok := s.gone(now); ok && a != nil && a.Err == OK {
		out = append(out, gone)
	}
	return out
}

func one(s state, ok bool) []state {
	if !ok {
		return nil
	}
	return []state{s}
}

func (w *world) claim(s state, op *call, a *Answer, now span) []state {
	if a != nil && a.Replayed {
		return one(w.replayed(s, op, a, now))
	}
	granted := a == nil || a.Err == OK || op.Kind == Do && a.Err == TooLarge
	if !granted {
		return one(w.refused(s, &op.Op, op.life, a.Err, a.Record, op.Kind == Claim, now))
	}
	grants := w.grants(s, &op.Op, op.life, now)
	var out []state
	if op.Why != "" { // the function fails
		if a != nil { // the answer is not the function's
			return nil
		}
		return w.fails(s, op, now)
	}
	for _, g := range grants {
		ok := true
		switch {
		case op.Kind == Do:
			g = g.finish(idem.Completed, &op.Op, now)
			ok = a == nil || (a.Err == TooLarge) == op.TooLarge && (op.TooLarge || a.Bytes == op.Bytes)
		case a != nil:
			if a.Record == nil || a.Record.Fence <= g.floor {
				return nil
			}
			g.fence, g.by = a.Record.Fence, 0
			g, ok = w.shown(g, a.Record, now)
			// The lease is the request's own, counted from the grant.
			ok = ok && a.Record.LeaseUntil == later(a.Record.ClaimedAt, op.Lease)
		}
		if ok {
			out = append(out, g)
		}
	}
	return out
}

// replayed handles the answer of a duplicate of Run or Do.
func (w *world) replayed(s state, op *call, a *Answer, now span) (state, bool) {
	s, ok := s.live(now)
	if !ok || !agree(s.print, op.Print) {
		return s, false
	}
	switch a.Err {
	case OK:
		return s, s.state == idem.Completed && !s.dropped && s.result == a.Bytes
	case TooLarge:
		return s, s.state == idem.Completed && s.dropped
	case Failed:
		return s, s.state == idem.Failed
	}
	return s, false
}

// look handles Get and Wait.
func (w *world) look(s state, op *call, a *Answer, now span) (state, bool) {
	if a == nil {
		return s, true
	}
	if a.Err == NotFound {
		return s.gone(now)
	}
	if a.Err != OK {
		return s, false
	}
	s, ok := w.shown(s, a.Record, now)
	if ok && op.Kind == Wait && s.state == idem.InFlight {
		return w.lapsed(s, op.life, now)
	}
	return s, ok
}

// token handles every operation with a token.
func (w *world) token(s state, op *call, a *Answer, now span) (state, bool) {
	if op.TooLarge && op.Kind == Checkpoint {
		return s, a == nil || a.Err == TooLarge // refused before looking at anything
	}
	if s.state == 0 || s.fence != op.Fence {
		return s, a == nil || a.Err == Fenced
	}
	if a != nil && a.Err == Fenced {
		if s.state == idem.Released && op.Kind != Release {
			return s, true
		}
		return s.gone(now)
	}
	s, ok := s.live(now)
	if !ok {
		return s, false
	}
	next, want := w.settle(s, op, now)
	if a == nil {
		return next, want == OK || want == TooLarge || want == Own
	}
	if op.Ends && op.Kind != Complete && (want == Held || want == Completed || want == Failed) {
		want = OK // Run's function has failed, and Run returns only its error
	}
	return next, a.Err == want
}

// settle returns what becomes of a live record of the token's own claim, and the
// answer.
func (w *world) settle(s state, op *call, now span) (state, Code) {
	open := s.state == idem.InFlight || s.state == idem.Held && !op.Ends
	switch op.Kind {
	case Complete, CompleteTx, Fail:
		as, done := idem.Completed, OK
		if op.Kind == Fail || op.Final {
			as = idem.Failed
		}
		switch {
		case op.Final && open:
			done = Own
		case op.Doubt && s.state == idem.Held: // it stays held, with its note
			return s, Own
		case op.Doubt && open:
			return s.held(op.Why), Own
		case op.Why != "": // and the record stays as it is, or refuses to have it run
			open = false
		case op.TooLarge:
			done = TooLarge
		}
		if open {
			return s.finish(as, &op.Op, now), done
		}
		// A same-commit completion does not run its function just to see its result.
		if s.state == as && op.Kind != CompleteTx && s.dropped == op.TooLarge && (op.TooLarge || s.result.same(op.Bytes)) {
			return s, done
		}
	case Release:
		if open {
			s = s.released(op.Bytes, now)
		}
		if s.state == idem.Released {
			return s, OK
		}
	case Hold:
		if s.state == idem.InFlight {
			s = s.held(op.Bytes)
		}
		if s.state == idem.Held {
			return s, OK
		}
	case Extend:
		if s.state == idem.InFlight {
			lease := op.Lease
			if lease == 0 {
				lease = s.ownLease
			}
			end := now.plus(lease)
			s.lease = span{max(s.lease.lo, end.lo), max(s.lease.hi, end.hi)}
			s.life = op.life
			return s, OK
		}
	case Checkpoint:
		if s.state == idem.InFlight {
			s.checkpoint = op.Bytes
			return s, OK
		}
	}
	return s, map[idem.State]Code{idem.Held: Held, idem.Completed: Completed, idem.Failed: Failed, idem.Released: Fenced}[s.state]
}
