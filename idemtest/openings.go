package idemtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var openingCases = []testCase{
	{"a clock in 1970 between two good openings forgets nothing", in1970Between},
	{"the wall clock that is saved never goes back", savedWallStays},
	{"a year's retention survives years of downtime", yearSurvives},
	{"no token of a copy's other life fits", copiedTokens},
	{"no token of a store made in 1970 fits another", tokensOf1970},
}

// ended ends the life of the store by a kill or by closing it.
func (e *env) ended(killed bool) {
	e.t.Helper()
	if !killed {
		e.close()
		return
	}
	left := e.h.Crash(e.t, e.backend, e.dir)
	e.close()
	e.dir = left
}

// endings returns the ways in which a life can end, by name.
func (e *env) endings() map[string]bool {
	ways := map[string]bool{"closed": false}
	if e.h.Crash != nil {
		ways["killed"] = true
	}
	return ways
}

func in1970Between(t *testing.T, e *env) {
	e.durable()
	for how, killed := range e.endings() {
		for _, commits := range []bool{false, true} {
			what := fmt.Sprintf("%s, with a commit in 1970: %v", how, commits)
			e.dir, e.clock = t.TempDir(), NewClock(start)
			e.open(idem.Options{})
			r := timedRecords(e, 10*day, year)
			last := e.claim(idem.Request{Key: "last"}).Token
			good := e.wall()
			e.ended(killed)

			for range 3 { // boots, none of them with a clock that is set
				e.clock = NewClock(time.Unix(50, 0))
				e.open(e.opts)
				require.Equal(t, last.Fence, e.get("last").Fence, what)
				if commits {
					next := e.claim(idem.Request{Key: "in 1970"}).Token
					require.Greater(t, next.Fence, last.Fence, what)
					require.NoError(t, e.s.Forget(e.ctx, next))
				}
				r.check(what)
				e.ended(killed)
			}

			e.clock = NewClock(good.Add(2 * time.Hour))
			e.open(e.opts)
			if killed && !commits { // otherwise the life in 1970 has saved that the downtime is unknown
				r.pass(2 * time.Hour)
			}
			r.check(what + ", and the clock is set again")
			require.NoError(t, e.s.Complete(e.ctx, last, nil), what)
			r.advance(year, what)
			e.close()
		}
	}
}

func savedWallStays(t *testing.T, e *env) {
	e.durable()
	for how, killed := range e.endings() {
		e.dir, e.clock = t.TempDir(), NewClock(start)
		e.open(idem.Options{})
		r := timedRecords(e, 10*day, 20*day)
		commit := func() { require.NoError(t, e.s.Forget(e.ctx, e.claim(idem.Request{Key: "commit"}).Token)) }
		e.clock.StepWall(2 * day) // set right, late
		commit()
		e.clock.StepWall(-2 * day) // lost again
		commit()
		e.ended(killed)
		e.clock.StepWall(2 * day) // right again: none of it is downtime
		e.open(e.opts)
		r.check(how)

		commit()
		e.clock.StepWall(3 * year) // a reading in the far future
		commit()
		e.clock.StepWall(-3 * year)
		commit()
		e.ended(killed)
		e.clock.Advance(5 * day)
		e.open(e.opts)
		r.check(how + ": downtime that cannot be told is none")
		e.ended(killed)
		e.clock.StepWall(3 * year)
		e.open(e.opts)
		if killed { // nothing was saved in the life that was behind
			r.pass(5 * day)
		}
		r.check(how + ": until the clock is there")
		commit()
		e.ended(killed)
		e.clock.Advance(time.Hour)
		e.open(e.opts)
		r.pass(time.Hour)
		r.check(how + ": and from then on")
		e.close()
	}
}

func yearSurvives(t *testing.T, e *env) {
	e.durable()
	e.open(idem.Options{})
	r := timedRecords(e, 10*day, year)
	for i, step := range []time.Duration{2 * year, 5 * day, 7 * day, 7*day + 1, 100 * year, -99 * year, 60 * day} {
		e.close()
		e.clock.StepWall(step)
		e.reboot()
		e.open(e.opts)
		if i < 5 { // after that the saved clock is ahead
			r.pass(min(step, 7*day))
		}
		r.check(fmt.Sprintf("closed for %v", step))
	}
	r.advance(year, "to the end")
}

// copiedTokens: a copy of a store's files, opened as a store of its own, grants no
// fence that the other life has granted, and accepts none of its tokens.
func copiedTokens(t *testing.T, e *env) {
	const n = 50
	claims := func() (tokens []idem.Token) {
		for i := range n {
			tokens = append(tokens, e.claim(idem.Request{Key: fmt.Sprint("k", i)}).Token)
		}
		return tokens
	}
	e.open(idem.Options{})
	e.claim(idem.Request{Key: "before"})
	copied := t.TempDir() // if nothing can be copied: another store, created at the same instant
	if e.h.Crash != nil {
		copied = e.h.Crash(t, e.backend, e.dir)
	}
	lost := claims()
	e.close()
	e.dir = copied
	e.open(e.opts)
	fences := map[uint64]bool{}
	for _, tok := range lost {
		fences[tok.Fence] = true
		for op, do := range e.tokenOps() {
			require.ErrorIs(t, do(tok), idem.ErrFenced, op)
		}
	}
	for _, tok := range claims() {
		require.False(t, fences[tok.Fence], "fence %d was given out twice", tok.Fence)
	}
	for _, tok := range lost {
		before := e.entry(tok.Key)
		for op, do := range e.tokenOps() {
			require.ErrorIs(t, do(tok), idem.ErrFenced, op)
		}
		require.Equal(t, before, e.entry(tok.Key))
	}
}

func tokensOf1970(t *testing.T, e *env) {
	fences := map[uint64]bool{}
	for range 4 {
		e.dir, e.clock = t.TempDir(), NewClock(time.Unix(50, 0))
		e.open(idem.Options{})
		for i := range 20 {
			f := e.claim(idem.Request{Key: fmt.Sprint("k", i)}).Token.Fence
			require.False(t, fences[f], "fence %d was given out twice", f)
			fences[f] = true
		}
		e.close()
	}
}
