package idemtest

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/idemkv/idem"
)

// historyModel says which answers are right for one key. An operation decides at some
// time between call and answer that nobody can observe. So the model keeps each
// deadline as the span in which it may lie. An answer is right if some time and
// deadline explain it, and it narrows the span to those that do.
type historyModel struct {
	maxAttempts int
	lapseOnOpen bool
}

// keyState is a possible state of a key. It is compared with ==.
type keyState struct {
	state      idem.State // zero: none
	print      idem.Fingerprint
	fence      uint64
	attempt    int
	unknown    bool
	opening    int
	ownLease   time.Duration
	retention  time.Duration
	claimed    time.Duration
	lease      span // its end
	expires    span // of all but in flight
	result     text
	checkpoint text
	bound      bool   // released by Unclaim
	highest    uint64 // highest fence ever granted
}

// text is a comparable byte slice; nil and empty are different.
type text struct {
	set bool
	s   string
}

func textOf(b []byte) text { return text{b != nil, string(b)} }

// span is a time with known bounds: the first and the last possible value.
type span struct{ lo, hi time.Duration }

const never = time.Duration(math.MaxInt64)

func at(d time.Duration) span { return span{d, d} }

func (s span) plus(d time.Duration) span { return span{later(s.lo, d), later(s.hi, d)} }

func later(t, d time.Duration) time.Duration {
	if t > never-d {
		return never
	}
	return t + d
}

// ahead narrows s to what lies after some time in now; false if nothing does.
func (s span) ahead(now span) (span, bool) {
	return span{max(s.lo, now.lo+1), s.hi}, now.lo < s.hi
}

// over narrows s to what lies at or before some time in now.
func (s span) over(now span) (span, bool) { return span{s.lo, min(s.hi, now.hi)}, s.lo <= now.hi }

// elapsedAt converts a time shown in a record to elapsed time; the zero time is never.
func elapsedAt(t time.Time) time.Duration {
	if t.IsZero() {
		return never
	}
	return t.Sub(start)
}

func (m historyModel) porcupine() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return keyState{} },
		Step: func(state, input, output any) (bool, any) {
			next, ok := m.step(state.(keyState), input.(call), output.(answer))
			return ok, next
		},
		Equal: func(a, b any) bool { return a.(keyState) == b.(keyState) },
	}
}

// step returns the key's state after an operation, and whether the answer is right.
func (m historyModel) step(s keyState, c call, a answer) (keyState, bool) {
	now := span{c.before, a.after}
	if errors.Is(a.err, context.Canceled) {
		return s, !settles(c.kind) // nothing was changed
	}
	switch c.kind {
	case "claim":
		return m.claim(s, c, a, now)
	case "get":
		if a.err == nil {
			return s.shown(a.record, now)
		}
		if a.err != idem.ErrNotFound {
			return s, false
		}
		return s.gone(now)
	case "forget":
		return s.forget(c, a, now)
	}
	return m.token(s, c, a, now)
}

// deadline is when the record expires.
func (s keyState) deadline() span {
	if s.state != idem.InFlight {
		return s.expires
	}
	if s.unknown {
		return at(never)
	}
	return s.lease.plus(s.retention)
}

// live narrows s to states that have not expired at some time in now.
func (s keyState) live(now span) (keyState, bool) {
	if s.state == 0 {
		return s, false
	}
	expires, ok := s.deadline().ahead(now)
	return s.expiring(expires), ok
}

// gone narrows s to states with no visible record.
func (s keyState) gone(now span) (keyState, bool) {
	if s.state == 0 {
		return s, true
	}
	expires, ok := s.deadline().over(now)
	return s.expiring(expires), ok
}

func (s keyState) expiring(expires span) keyState {
	if s.state != idem.InFlight {
		s.expires = expires
	} else if !s.unknown {
		s.lease = span{max(s.lease.lo, expires.lo-s.retention), min(s.lease.hi, max(expires.hi-s.retention, 0))}
	}
	return s
}

// lapsed narrows s to states whose lease no longer holds at some time in now.
func (m historyModel) lapsed(s keyState, opening int, now span) (keyState, bool) {
	if m.lapseOnOpen && s.opening < opening {
		return s, true
	}
	lease, ok := s.lease.over(now)
	s.lease = lease
	return s, ok
}

func (m historyModel) holds(s keyState, opening int, now span) (keyState, bool) {
	if m.lapseOnOpen && s.opening < opening {
		return s, false
	}
	lease, ok := s.lease.ahead(now)
	s.lease = lease
	return s, ok
}

// shown narrows s to states whose live record is r.
func (s keyState) shown(r idem.Record, now span) (keyState, bool) {
	s, ok := s.live(now)
	lease, expires := elapsedAt(r.LeaseUntil), elapsedAt(r.ExpiresAt)
	in := func(sp span, t time.Duration) bool { return sp.lo <= t && t <= sp.hi }
	ok = ok && r.State == s.state && r.Fence == s.fence && r.Attempt == s.attempt && r.Fingerprint == s.print &&
		r.HoldUnknown == s.unknown && !r.ResultDropped && textOf(r.Result) == s.result && textOf(r.Checkpoint) == s.checkpoint &&
		elapsedAt(r.ClaimedAt) == s.claimed && in(s.lease, lease) && in(s.deadline(), expires)
	if s.state.Final() {
		ok = ok && later(elapsedAt(r.FinishedAt), s.retention) == expires
	} else {
		ok = ok && r.FinishedAt.IsZero()
	}
	s.lease = at(lease)
	if s.state != idem.InFlight {
		s.expires = at(expires)
	}
	return s, ok
}

func agree(a, b idem.Fingerprint) bool {
	return a == b || a == idem.Fingerprint{} || b == idem.Fingerprint{}
}

func (m historyModel) claim(s keyState, c call, a answer, now span) (keyState, bool) {
	if a.err == nil {
		return m.grant(s, c, a, now)
	}
	another := !agree(s.print, c.print)
	if a.err == idem.ErrMismatch {
		r := a.record
		r.Key = ""
		fresh := s.free()
		next, ok := s.live(now)
		return next, ok && another && !fresh && isZero(r)
	}
	if another {
		return s, false
	}
	s, ok := s.shown(a.record, now)
	exhausted := m.maxAttempts > 0 && s.attempt >= m.maxAttempts
	switch {
	case !ok:
	case a.err == idem.ErrCompleted:
		return s, s.state == idem.Completed
	case a.err == idem.ErrFailed:
		return s, s.state == idem.Failed
	case a.err == idem.ErrHeld && s.state == idem.Held:
		return s, true
	case a.err == idem.ErrExhausted && s.state == idem.Released:
		return s, exhausted
	case s.state != idem.InFlight:
	case a.err == idem.ErrInFlight:
		return m.holds(s, c.opening, now)
	case a.err == idem.ErrHeld && s.unknown, a.err == idem.ErrExhausted && exhausted && !s.unknown:
		return m.lapsed(s, c.opening, now)
	}
	return s, false
}

func isZero(r idem.Record) bool {
	return r.State == 0 && r.Fence == 0 && r.Attempt == 0 && r.Fingerprint.IsZero() && r.Result == nil && r.Checkpoint == nil &&
		r.ClaimedAt.IsZero() && r.LeaseUntil.IsZero() && r.FinishedAt.IsZero() && r.ExpiresAt.IsZero()
}

// grant: the record shows in which way the claim was granted, and when.
func (m historyModel) grant(s keyState, c call, a answer, now span) (keyState, bool) {
	r := a.record
	granted := elapsedAt(r.ClaimedAt)
	if granted < now.lo || granted > now.hi || r.Fence <= s.highest {
		return s, false
	}
	then := at(granted)
	next := keyState{
		state: idem.InFlight, print: c.print, fence: r.Fence, attempt: 1, unknown: c.unknown, opening: c.opening,
		ownLease: c.lease, retention: c.retention, claimed: granted, lease: at(later(granted, c.lease)), highest: r.Fence,
	}
	another := !agree(s.print, c.print)
	ok := true
	switch {
	case r.Attempt > 1 || s.attempt == 0 && r.Checkpoint != nil: // the same operation again
		if s, ok = s.live(then); !ok || another || m.maxAttempts > 0 && s.attempt >= m.maxAttempts {
			return s, false
		}
		switch s.state {
		case idem.Released:
		case idem.InFlight:
			if s, ok = m.lapsed(s, c.opening, then); s.unknown {
				return s, false
			}
		default:
			return s, false
		}
		next.attempt, next.checkpoint, next.result = s.attempt+1, s.checkpoint, s.result
		if c.print.IsZero() {
			next.print = s.print
		}
	case s.free() && another: // expired or not, a new one
	default:
		_, ok = s.gone(then)
	}
	if !ok {
		return s, false
	}
	return next.shown(r, then)
}

// settles reports whether kind ignores the end of ctx because the work is done.
func settles(kind string) bool {
	return slices.Contains([]string{"complete", "fail", "release", "unclaim", "hold"}, kind)
}

// free reports whether the key is released and another request may have it.
func (s keyState) free() bool { return s.state == idem.Released && !s.checkpoint.set && !s.bound }

// forget models Forget, of a token's record or of any.
func (s keyState) forget(c call, a answer, now span) (keyState, bool) {
	switch {
	case c.fence == 0 || c.fence == s.fence:
		return keyState{highest: s.highest}, a.err == nil
	case a.err == idem.ErrFenced:
		return s.live(now)
	}
	next, ok := s.gone(now)
	return next, ok && a.err == nil
}

func (s keyState) unclaim(c call, a answer, now span) (keyState, bool) {
	if s.state == 0 {
		return s, a.err == nil
	}
	if a.err != nil {
		wrong := map[idem.State]error{idem.Held: idem.ErrHeld, idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed}[s.state]
		if s.fence != c.fence {
			wrong = idem.ErrFenced
		}
		next, ok := s.live(now)
		return next, ok && a.err == wrong
	}
	switch {
	case s.fence != c.fence || s.state.Final() || s.state == idem.Held: // it was gone
		return s.gone(now)
	case s.state == idem.Released:
		return s, true
	case s.attempt == 1 && !s.checkpoint.set:
		return keyState{highest: s.highest}, true
	}
	expires := now.plus(s.retention)
	if _, ok := s.gone(now); ok { // whether it was is unknown until it is seen
		expires.lo = now.lo
	}
	s.state, s.bound, s.attempt, s.expires = idem.Released, true, s.attempt-1, expires
	return s, true
}

func (m historyModel) token(s keyState, c call, a answer, now span) (keyState, bool) {
	if c.kind == "unclaim" {
		return s.unclaim(c, a, now)
	}
	if s.state == 0 || s.fence != c.fence {
		return s, a.err == idem.ErrFenced
	}
	if a.err == idem.ErrFenced {
		if s.state == idem.Released && c.kind != "release" {
			return s, true
		}
		return s.gone(now)
	}
	s, ok := s.live(now)
	if !ok {
		return s, false
	}
	open := s.state == idem.InFlight || s.state == idem.Held
	result := textOf(c.bytes)
	switch c.kind {
	case "complete", "fail":
		final := idem.Completed
		if c.kind == "fail" {
			final = idem.Failed
		}
		if open {
			s.state, s.result, s.checkpoint, s.expires = final, result, text{}, now.plus(s.retention)
			return s, a.err == nil
		}
		if s.state == final && s.result.s == result.s {
			return s, a.err == nil
		}
	case "release":
		if open {
			s.state, s.result, s.expires = idem.Released, result, now.plus(s.retention)
			return s, a.err == nil
		}
		if s.state == idem.Released {
			return s, a.err == nil
		}
	case "hold":
		if s.state == idem.InFlight {
			s.state, s.result, s.expires = idem.Held, result, at(never)
		}
		if s.state == idem.Held {
			return s, a.err == nil
		}
	case "extend":
		if s.state == idem.InFlight {
			lease := c.lease
			if lease == 0 {
				lease = s.ownLease
			}
			end := now.plus(lease)
			s.lease = span{max(s.lease.lo, end.lo), max(s.lease.hi, end.hi)}
			s.opening = c.opening
			return s, a.err == nil
		}
	case "checkpoint":
		if s.state == idem.InFlight {
			s.checkpoint = result
			return s, a.err == nil
		}
	}
	refusals := map[idem.State]error{idem.Held: idem.ErrHeld, idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed}
	return s, slices.Contains([]error{refusals[s.state]}, a.err) && a.err != nil
}
