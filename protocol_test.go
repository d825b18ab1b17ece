package idem

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

// protocolDepth is how many steps from the start everything is explored, in each
// of the protocols that does not say otherwise, and protocolBeyond how many from
// each milestone. IDEM_PROTOCOL_DEPTH asks for another depth, and adds as much
// beyond. Each step more takes about 40 % more time and memory.
const (
	protocolDepth  = 20
	protocolBeyond = 10
)

func depthsWanted(t *testing.T) (depth, beyond int) {
	text := os.Getenv("IDEM_PROTOCOL_DEPTH")
	if text == "" {
		return protocolDepth, protocolBeyond
	}
	depth, err := strconv.Atoi(text)
	require.NoError(t, err, "IDEM_PROTOCOL_DEPTH")
	return depth, max(protocolBeyond+depth-protocolDepth, 1)
}

// commit is a commit that goes well.
var commit = []pStep{{kind: stepTake}, {kind: stepShow}, {kind: stepSync}, {kind: stepWithdraw}, {kind: stepTell}}

func claimBy(who uint8) []pStep {
	return append([]pStep{{kind: stepAsk, who: who, ask: askClaim}, {kind: stepRead, who: who}, {kind: stepLook, who: who}}, commit...)
}

// inFineSteps is steps where look-ups and commits are taken apart.
func inFineSteps(steps []pStep) (fine []pStep) {
	for _, s := range steps {
		fine = append(fine, s)
		switch {
		case s.kind == stepAsk && s.ask == askClaim:
			fine = append(fine, pStep{kind: stepCount, who: s.who}, pStep{kind: stepCache, who: s.who})
		case s.kind == stepTell: // one more for the operation, before its answer
			fine = append(fine, s)
		}
	}
	return fine
}

// milestones are places far from the start from which everything is explored too.
var milestones = map[string][]pStep{
	"granted":    claimBy(0),
	"taken over": slices.Concat(claimBy(0), []pStep{{kind: stepTick}}, claimBy(1)),
	"completed":  slices.Concat(claimBy(0), []pStep{{kind: stepAsk, ask: askComplete}}, commit),
	"expired":    slices.Concat(claimBy(0), []pStep{{kind: stepTick}, {kind: stepTick}}),
}

// What callers do in the protocols that are explored. All of it at once would be
// explored less far.
var protocols = map[string]pProtocol{
	"heartbeat":     {asks: []pAsk{askClaim, askComplete, askExtend}},
	"release":       {asks: []pAsk{askClaim, askComplete, askRelease}},
	"unclaim":       {asks: []pAsk{askClaim, askComplete, askUnclaim}},
	"forget":        {asks: []pAsk{askClaim, askComplete, askForget}, spoils: true},
	"wait":          {asks: []pAsk{askClaim, askComplete, askWait}},
	"hold":          {asks: []pAsk{askClaim, askComplete, askRelease, askHold}},
	"hold unknown":  {asks: []pAsk{askClaim, askComplete, askExtend, askRelease}, hold: true},
	"lapse on open": {asks: []pAsk{askClaim, askComplete, askExtend}, lapseOnOpen: true},
	"functions":     {asks: []pAsk{askClaim, askComplete, askDo}, further: -2},
	"fine steps":    {asks: []pAsk{askClaim, askComplete, askExtend}, fine: true, further: 2},
}

// Claim, heartbeat, completion, release, Forget, sweep, lapse, expiry, functions in the commit, what was read before
// a commit or left by one, a commit that is begun again or fails, and a kill between
// any two steps, in every order.
func TestProtocol(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	depth, beyond := depthsWanted(t)
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			p.transition = transition
			begin := time.Now()
			r := p.explore(nil, depth+p.further)
			require.Empty(t, r.broken, "after %d steps:\n%s", r.length, r.broken)
			t.Logf("whole to a depth of %d steps: %d states, %d steps taken, %d records brought, %v",
				r.depth, r.states, r.steps, r.brought, time.Since(begin).Round(time.Millisecond))
			if depth >= protocolDepth {
				assert.Greater(t, r.states, 5_000, "the exploration collapsed")
				assert.Greater(t, r.brought, 300, "nobody brings to a commit what it would read")
			}
			for place, steps := range milestones {
				if p.hold && place == "taken over" { // never, if the outcome is unknown
					continue
				}
				if p.fine {
					steps = inFineSteps(steps)
				}
				r := p.explore(steps, max(beyond+p.further, 1))
				require.Empty(t, r.broken, "after %d steps:\n%s", r.length, r.broken)
				t.Logf("whole to a depth of %d steps from %q, %d steps from the start: %d states, %d steps taken",
					r.depth, place, len(steps), r.states, r.steps)
			}
		})
	}
}

// mutantTransition asks the state machine after it changed what is asked.
func mutantTransition(change func(cur *engine.Entry, a *action) (next *engine.Entry, skip bool)) func(*engine.Entry, *action, engine.Instant) (*engine.Entry, error) {
	return func(cur *engine.Entry, a *action, now engine.Instant) (*engine.Entry, error) {
		b := *a
		if next, skip := change(cur, &b); skip {
			return next, nil
		}
		return transition(cur, &b, now)
	}
}

// Each piece of the protocol is needed: without it a rule breaks.
var protocolMutants = []struct {
	name, in string
	from     string // milestone; "": the start
	rule     int    // 0: one or another
	breaks   func(p *pProtocol)
	mistaken bool // a commit uses what an operation brings although it is not there any more
}{
	{"no fence check", "heartbeat", "", 2, func(p *pProtocol) {
		p.transition = mutantTransition(func(cur *engine.Entry, a *action) (*engine.Entry, bool) {
			if cur != nil && a.fence != 0 && a.kind != actClaim {
				a.fence = cur.Fence
			}
			return nil, false
		})
	}, false},
	{"the sweep does not check again", "heartbeat", "granted", 0, func(p *pProtocol) {
		p.transition = mutantTransition(func(_ *engine.Entry, a *action) (*engine.Entry, bool) { return nil, a.kind == actSweep })
	}, false},
	{"no gate: visible before durable", "heartbeat", "", 3, func(p *pProtocol) { p.noGate = true }, false},
	{"the gate is withdrawn before the sync", "heartbeat", "", 3, func(p *pProtocol) { p.withdrawEarly = true }, false},
	{"the gate is withdrawn after a failed commit", "heartbeat", "", 3, func(p *pProtocol) { p.withdrawFailed = true }, false},
	{"answered before the sync", "heartbeat", "", 3, func(p *pProtocol) { p.answerEarly = true }, false},
	{"answered after a failed commit", "heartbeat", "", 4, func(p *pProtocol) { p.answerFailed = true }, false},
	{"goes on after a failed commit", "heartbeat", "", 4, func(p *pProtocol) { p.goOnFailed = true }, false},
	{"claims decided by the look-up", "heartbeat", "", 1, func(p *pProtocol) { p.decideEarly = true }, false},
	{"the fence is not saved", "heartbeat", "", 2, func(p *pProtocol) { p.fenceNotSaved = true }, false},
	{"the fence is saved by the next commit", "heartbeat", "", 2, func(p *pProtocol) { p.fenceSavedLater = true }, false},
	{"the cache takes fills that were overtaken", "forget", "completed", 3, func(p *pProtocol) { p.fillOvertaken = true }, false},
	{"the cache keeps what a commit changes", "forget", "completed", 3, func(p *pProtocol) { p.keepsCached = true }, false},
	{"the cache keeps it until it is changed", "forget", "completed", 3, func(p *pProtocol) {
		p.emptiesLate, p.asks = true, []pAsk{askClaim, askComplete, askWait, askForget}
	}, false},
	{"waiters are told of earlier claims", "wait", "expired", 3, func(p *pProtocol) { p.tellWhatWas = true }, false},
	{"no count when a commit decides", "heartbeat", "", 1, func(p *pProtocol) { p.noCountBefore = true }, true},
	{"no count when it can be read", "heartbeat", "", 1, func(p *pProtocol) { p.noCountAfter = true }, true},
	{"what is read under a change counts", "forget", "completed", 3, func(p *pProtocol) { p.countsUnder = true }, false},
	{"the count is loaded after the read", "heartbeat", "", 1, func(p *pProtocol) { p.countLate = true }, true},
	{"what a claim left is used whatever the count", "heartbeat", "taken over", 2, func(p *pProtocol) { p.leftUnchecked = true }, true},
	{"a pass that is spoiled takes its counts back", "forget", "", 1, func(p *pProtocol) { p.countTakenBack = true }, true},
	{"a pass goes on from one that was spoiled", "forget", "", 3, func(p *pProtocol) { p.keepsSpoiled = true }, false},
}

func TestProtocolFindsMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for _, m := range protocolMutants {
		t.Run(m.name, func(t *testing.T) {
			p := protocols[m.in]
			p.transition = transition
			m.breaks(&p)
			if m.mistaken {
				r := p.explore(milestones[m.from], 16)
				require.Contains(t, r.broken, "=> mistaken", "%s", r.broken)
				t.Logf("mistaken in %d steps, after %d states", r.length, r.states)
			}
			p.mistakes = true
			r := p.explore(milestones[m.from], 16)
			require.NotEmpty(t, r.broken, "the rules hold without it: %d states", r.states)
			require.NotContains(t, r.broken, "canonical")
			if m.rule != 0 {
				assert.Contains(t, r.broken, fmt.Sprintf("=> rule %d", m.rule), "%s", r.broken)
			}
			t.Logf("found in %d steps, after %d states:\n%s", r.length, r.states, r.broken)
		})
	}
}
