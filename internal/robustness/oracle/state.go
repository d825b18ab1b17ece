package oracle

import "github.com/idemkv/idem"

// state is a possible state of a key. It is compared with ==. If the field state is
// zero, there is no record, and everything but floor is zero too.
type state struct {
	state      idem.State
	print      uint8
	fence      uint64 // 0: unknown
	by         int64  // if fence is unknown, the operation that was granted it
	run        int64  // the Run that was granted it, if it was one
	floor      uint64 // an earlier fence of the key; later ones are larger
	attempt    int
	unknown    bool
	dropped    bool
	bound      bool // released by Unclaim
	life       int  // the one in which the lease was granted or extended
	ownLease   int64
	retention  int64
	claimed    span
	lease      span // its end
	expires    span // of all but in flight
	result     Text
	checkpoint Text
}

// span is a time with known bounds: the first and the last possible value.
type span struct{ lo, hi int64 }

func at(t int64) span { return span{t, t} }

func (s span) plus(d int64) span { return span{later(s.lo, d), later(s.hi, d)} }

func later(t, d int64) int64 {
	if t > never-d {
		return never
	}
	return t + d
}

func (s span) has(t int64) bool { return s.lo <= t && t <= s.hi }

// ahead narrows s to what lies after some instant of now; false if nothing does.
func (s span) ahead(now span) (span, bool) {
	return span{max(s.lo, now.lo+1), s.hi}, now.lo < s.hi
}

// over narrows s to what lies at or before some instant of now.
func (s span) over(now span) (span, bool) { return span{s.lo, min(s.hi, now.hi)}, s.lo <= now.hi }

// world is what holds for all keys.
type world struct {
	lives map[int]*Life
	// loose: the store may count less time than the journal does, and show other times.
	loose bool
	// granted says to which operation each fence was granted. It covers all grants
	// answered in the journal, even later ones.
	granted map[uint64]int64
}

// nothing returns the state in which the record of s is gone.
func (s state) nothing() state { return state{floor: max(s.floor, s.fence)} }

// deadline returns when the record expires.
func (s state) deadline() span {
	if s.state != idem.InFlight {
		return s.expires
	}
	if s.unknown {
		return at(never)
	}
	return s.lease.plus(s.retention)
}

// live narrows s to states whose record is there at some instant of now.
func (s state) live(now span) (state, bool) {
	if s.state == 0 {
		return s, false
	}
	expires, ok := s.deadline().ahead(now)
	return s.expiring(expires), ok
}

// gone narrows s to states without a record.
func (s state) gone(now span) (state, bool) {
	if s.state == 0 {
		return s, true
	}
	expires, ok := s.deadline().over(now)
	return s.expiring(expires), ok
}

// expiring narrows when s expires.
func (s state) expiring(expires span) state {
	if s.state != idem.InFlight {
		s.expires = expires
	} else if !s.unknown {
		hi := s.lease.hi
		if expires.hi != never {
			hi = min(hi, expires.hi-s.retention)
		}
		s.lease = span{max(s.lease.lo, expires.lo-s.retention), hi}
	}
	return s
}

func (w *world) lapsedByOpening(s state, life int) bool {
	return w.lives[life].LapseOnOpen && s.life < life
}

// lapsed narrows s to states whose lease does not hold at some instant of now.
func (w *world) lapsed(s state, life int, now span) (state, bool) {
	if w.lapsedByOpening(s, life) {
		return s, true
	}
	lease, ok := s.lease.over(now)
	s.lease = lease
	return s, ok
}

// holds narrows s to states whose lease holds.
func (w *world) holds(s state, life int, now span) (state, bool) {
	if w.lapsedByOpening(s, life) {
		return s, false
	}
	lease, ok := s.lease.ahead(now)
	s.lease = lease
	return s, ok
}

// shown narrows s to states whose live record is r at some instant of now.
func (w *world) shown(s state, r *Record, now span) (state, bool) {
	if r == nil {
		return s, false
	}
	s, ok := s.live(now)
	if !ok {
		return s, false
	}
	if s.fence == 0 { // the operation that was granted it never said; here it is
		if by, told := w.granted[r.Fence]; told && by != s.by || r.Fence <= s.floor {
			return s, false
		}
		s.fence, s.by = r.Fence, 0
	}
	lease, expires := orNever(r.LeaseUntil), orNever(r.ExpiresAt)
	ok = r.State == s.state && r.Fence == s.fence && r.Attempt == s.attempt && r.Print == s.print &&
		r.Unknown == s.unknown && r.Dropped == s.dropped && r.Result == s.result && r.Checkpoint == s.checkpoint
	if w.loose {
		return s, ok
	}
	ok = ok && s.claimed.has(r.ClaimedAt) && s.lease.has(lease) && s.deadline().has(expires)
	if s.state.Final() {
		ok = ok && later(r.FinishedAt, s.retention) == expires
	} else {
		ok = ok && r.FinishedAt == 0
	}
	s.claimed, s.lease = at(r.ClaimedAt), at(lease)
	if s.state != idem.InFlight {
		s.expires = at(expires)
	}
	return s, ok
}

func orNever(t int64) int64 {
	if t == 0 {
		return never
	}
	return t
}

func agree(a, b uint8) bool { return a == b || a == 0 || b == 0 }

// released returns s after its attempt ended with result as the reason.
func (s state) released(result Text, now span) state {
	s.state, s.result, s.expires = idem.Released, result, now.plus(s.retention)
	return s
}

// held returns s after its attempt ended with an unknown outcome.
func (s state) held(note Text) state {
	s.state, s.result, s.expires = idem.Held, note, at(never)
	return s
}

// unclaimed returns s, which is in flight, after its claim was undone.
func (s state) unclaimed(now span) state {
	if s.attempt == 1 && s.checkpoint == "" {
		return s.nothing()
	}
	s = s.released(s.result, now)
	s.bound = true
	s.attempt--
	return s
}

// rebound reports whether another request may take the key. It may if the operation was
// released and saved nothing, unless its last claim was undone.
func (s state) rebound(print uint8) bool {
	return s.state == idem.Released && s.checkpoint == "" && !s.bound && !agree(s.print, print)
}

// grants returns the states after a claim that was granted at some instant of now. Its
// fence is unknown, and so may be whether the record before had expired.
func (w *world) grants(s state, op *Op, life int, now span) []state {
	fresh := state{
		state: idem.InFlight, print: op.Print, by: op.ID, floor: max(s.floor, s.fence), attempt: 1, unknown: op.Unknown, life: life,
		ownLease: op.Lease, retention: op.Retention, claimed: now, lease: now.plus(op.Lease),
	}
	if op.Kind == Run {
		fresh.run = op.ID
	}
	var out []state
	if _, ok := s.gone(now); ok || s.rebound(op.Print) {
		out = append(out, fresh)
	}
	l, ok := s.live(now)
	if !ok || !agree(s.print, op.Print) {
		return out
	}
	switch s.state {
	case idem.Released:
	case idem.InFlight:
		if _, ok := w.lapsed(l, life, now); !ok || s.unknown {
			return out
		}
	default:
		return out
	}
	if w.exhausted(s, op, life) {
		return out
	}
	again := fresh
	again.attempt, again.checkpoint, again.result = s.attempt+1, s.checkpoint, s.result
	if op.Print == 0 {
		again.print = s.print
	}
	return append(out, again)
}

func (w *world) exhausted(s state, op *Op, life int) bool {
	most := w.most(op, life)
	return most > 0 && s.attempt >= most
}

// most returns how many attempts op's operation is granted; 0: unlimited.
func (w *world) most(op *Op, life int) int {
	if op.Attempts > 0 {
		return op.Attempts
	}
	return w.lives[life].MaxAttempts
}

// refused narrows s to states in which a claim must get code, and may get r, at some
// instant of now. seen says that r is the record that was in the way.
func (w *world) refused(s state, op *Op, life int, code Code, r *Record, seen bool, now span) (state, bool) {
	if code == Mismatch {
		next, ok := s.live(now)
		return next, ok && !agree(s.print, op.Print) && !s.rebound(op.Print) && r == nil
	}
	var ok bool
	if seen {
		s, ok = w.shown(s, r, now)
	} else {
		s, ok = s.live(now)
	}
	if !ok || !agree(s.print, op.Print) {
		return s, false
	}
	switch {
	case code == Completed:
		return s, s.state == idem.Completed
	case code == Failed:
		return s, s.state == idem.Failed
	case code == Held && s.state == idem.Held:
		return s, true
	case code == Exhausted && s.state == idem.Released:
		return s, w.exhausted(s, op, life)
	case s.state != idem.InFlight:
	case code == InFlight:
		return w.holds(s, life, now)
	case code == Held && s.unknown, code == Exhausted && !s.unknown && w.exhausted(s, op, life):
		return w.lapsed(s, life, now)
	}
	return s, false
}

// finish returns s settled for good at some instant of now.
func (s state) finish(as idem.State, op *Op, now span) state {
	s.state, s.result, s.dropped, s.checkpoint = as, op.Bytes, false, ""
	if op.Why != "" {
		s.result = op.Why
	} else if op.TooLarge {
		s.result, s.dropped = "", true
	}
	s.expires = now.plus(s.retention)
	return s
}
