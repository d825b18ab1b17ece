package idem

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// pTrail is how a world was reached first.
type pTrail struct {
	parent int32
	by     pStep
}

// pResult is what an exploration found.
type pResult struct {
	states, steps int
	brought       int    // operations that brought to a commit what it would have read
	depth         int    // steps from the start within which everything was seen
	broken        string // a counterexample, one step a line; "": the rules hold
	length        int    // its steps
}

// pSeen tells worlds apart by 128 bits of hash: among ten million of them the odds
// that two are taken for one are below one in 10^24.
type pSeen struct {
	seeds [2]maphash.Seed
	set   map[pSum]struct{}
}

type pSum [2]uint64

func (s *pSeen) sum(w *pWorld) pSum {
	return pSum{maphash.Comparable(s.seeds[0], *w), maphash.Comparable(s.seeds[1], *w)}
}

// same makes w canonical and then the one of the two worlds, w and w with its callers
// changed over, that stands for both. It returns its sum, and whether it is the latter.
func (s *pSeen) same(w *pWorld) (sum pSum, mirrored bool) {
	w.canonical()
	a := maphash.Comparable(s.seeds[0], w.callers[0])
	switch b := maphash.Comparable(s.seeds[0], w.callers[1]); {
	case a > b:
		w.mirror()
		mirrored = true
	case a == b: // they differ in the queue at most
		was, sum := *w, s.sum(w)
		w.mirror()
		other := s.sum(w)
		if other[0] < sum[0] || other[0] == sum[0] && other[1] < sum[1] {
			return other, true
		}
		*w = was
		return sum, false
	}
	return s.sum(w), mirrored
}

// explore walks through every world that can be reached in depth steps after those
// of begin, breadth first: a counterexample is one of the shortest. begin keeps
// the rules.
func (p *pProtocol) explore(begin []pStep, depth int) pResult {
	seen := &pSeen{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, set: make(map[pSum]struct{})}
	start := pStart()
	for _, s := range begin {
		if !slices.Contains(p.steps(&start, nil), s) {
			panic(fmt.Sprintf("%v cannot happen", s))
		}
		if err := p.do(&start, s); err != nil {
			panic(err)
		}
	}
	sum, _ := seen.same(&start)
	seen.set[sum] = struct{}{}
	trail := []pTrail{{parent: -1}}
	level := []pWorld{start}
	res := pResult{}
	for ; res.depth < depth; res.depth++ {
		from := len(trail) - len(level)
		parts := p.expand(level, from, seen)
		level = nil
		for _, part := range parts {
			res.steps += part.steps
			res.brought += part.brought
			for i, w := range part.worlds {
				if _, known := seen.set[part.sums[i]]; !known {
					seen.set[part.sums[i]] = struct{}{}
					trail = append(trail, part.trail[i])
					level = append(level, w)
				}
			}
			if part.err != nil {
				res.states = len(seen.set)
				res.broken, res.length = p.story(begin, trail, part, seen)
				return res
			}
		}
	}
	res.states = len(seen.set)
	return res
}

// pPart is what one worker made of its share of a level, up to the first rule broken.
type pPart struct {
	worlds  []pWorld // not seen at earlier levels
	sums    []pSum
	trail   []pTrail
	steps   int
	brought int
	err     error
	at      pTrail // where it was broken
}

func (p *pProtocol) expand(level []pWorld, from int, seen *pSeen) []pPart {
	workers := runtime.GOMAXPROCS(0)
	parts := make([]pPart, workers)
	share := (len(level) + workers - 1) / workers
	var wg sync.WaitGroup
	for i := range parts {
		lo, hi := min(i*share, len(level)), min((i+1)*share, len(level))
		wg.Add(1)
		go func() {
			defer wg.Done()
			part := &parts[i]
			var can []pStep
			var w pWorld // one for all: it escapes
			for n := lo; n < hi; n++ {
				can = p.steps(&level[n], can[:0])
				for _, s := range can {
					w = level[n]
					t := pTrail{parent: int32(from + n), by: s}
					part.steps++
					if s.kind == stepTake {
						part.brought += w.brings()
					}
					if err := p.do(&w, s); err != nil {
						part.err, part.at = err, t
						return
					}
					sum, _ := seen.same(&w)
					if _, known := seen.set[sum]; !known {
						part.worlds, part.sums, part.trail = append(part.worlds, w), append(part.sums, sum), append(part.trail, t)
					}
				}
			}
		}()
	}
	wg.Wait()
	return parts
}

// story is the counterexample as a list of steps, taken once more from the start
// without making worlds canonical, so that numbers and times are what they were.
func (p *pProtocol) story(begin []pStep, trail []pTrail, part pPart, seen *pSeen) (text string, length int) {
	steps := []pStep{part.at.by}
	for n := part.at.parent; trail[n].parent >= 0; n = trail[n].parent {
		steps = append(steps, trail[n].by)
	}
	slices.Reverse(steps)
	var b strings.Builder
	w := pStart()
	for i, s := range begin {
		was := w
		_ = p.do(&w, s)
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s.in(&was, &w))
	}
	walked := w // as it was explored
	_, mirrored := seen.same(&walked)
	var err error
	for i, s := range steps {
		_ = p.do(&walked, s)
		if mirrored && s.who < pCallers {
			s.who = 1 - s.who
		}
		_, again := seen.same(&walked)
		mirrored = mirrored != again
		was := w
		err = p.do(&w, s)
		fmt.Fprintf(&b, "%3d. %s\n", len(begin)+i+1, s.in(&was, &w))
		if err != nil {
			if i+1 < len(steps) {
				err = fmt.Errorf("%w (too soon: canonical makes worlds equal that are not)", err)
			}
			break
		}
	}
	if err == nil {
		err = fmt.Errorf("nothing is wrong: canonical makes worlds equal that are not, for there was: %w", part.err)
	}
	fmt.Fprintf(&b, "     => %v\n", err)
	return b.String(), len(begin) + len(steps)
}

var pAskNames = [...]string{
	askClaim: "claims", askWait: "waits for", askComplete: "completes", askExtend: "extends", askRelease: "releases",
	askUnclaim: "unclaims", askHold: "holds", askForget: "forgets", askSweep: "sweeps", askDo: "does the work of",
}

// in tells the step in words.
func (s pStep) in(was, is *pWorld) string {
	who := pNames[s.who]
	c := &was.callers[s.who]
	switch s.kind {
	case stepAsk:
		text := fmt.Sprintf("%s %s the key", who, pAskNames[s.ask])
		if s.ask >= askComplete && s.ask <= askHold {
			text += fmt.Sprintf(" with fence %d", c.fence)
		}
		if is.callers[s.who].idle() {
			text += " and is answered from the cache"
		}
		return text
	case stepCount:
		return fmt.Sprintf("%s's look-up loads the count", who)
	case stepCache:
		if is.callers[s.who].idle() {
			return fmt.Sprintf("%s is answered from the cache", who)
		}
		return fmt.Sprintf("%s's look-up looks into the cache", who)
	case stepRead:
		return fmt.Sprintf("%s's look-up missed the cache and reads the engine: %s", who, was.shown)
	case stepLook:
		text := fmt.Sprintf("%s's look-up looks at the gate, which holds nothing; ", who)
		if was.gated {
			text = fmt.Sprintf("%s's look-up looks at the gate, which holds: %s; ", who, was.gate)
		}
		switch is.callers[s.who].stage {
		case stageQueued:
			return text + "the claim joins the queue"
		case stageWaiting:
			return text + "it waits"
		}
		return text + "it is answered"
	case stepTake:
		text := "a commit takes "
		switch was.phase {
		case phaseRunning:
			text = "the commit goes on with "
		case phaseSpoiled:
			text = "the commit begins again with "
		}
		return text + opNames(is.group[was.ran:is.nGroup], was, is.ran-was.ran) + "; the record is to be: " + is.next.String()
	case stepSpoil:
		ops := is.group[:is.nGroup]
		return fmt.Sprintf("a commit takes %s; a function spoils it after the first %d and it is to begin again", opNames(ops, was, s.n), s.n)
	case stepShow:
		return "the engine shows the commit, which is not durable yet"
	case stepSync:
		return "the commit is durable"
	case stepWithdraw:
		return "the gate withdraws the pre-image"
	case stepTell:
		if is.phase == phaseWithdrawn {
			return fmt.Sprintf("cache and waiters are told of the group's operation %d", is.told)
		}
		return "cache and waiters are told, the callers are answered: " + opAnswers(was.group[:was.nGroup])
	case stepFailLost:
		return "the commit fails and is not on the disk"
	case stepFailKept:
		return "the commit fails and is on the disk all the same"
	case stepFind:
		return fmt.Sprintf("the sweeper finds the key in the index, due at %s", pTime(is.found))
	case stepSweep:
		return "the sweep joins the queue"
	case stepTick:
		return fmt.Sprintf("time passes: it is %d", is.now)
	case stepCrashLost:
		return "the process is killed and started again: " + is.disk.String()
	case stepCrashKept:
		return "the process is killed, what it was writing survives, it is started again: " + is.disk.String()
	}
	return "?"
}

// opNames names ops, and what the first n of them bring.
func opNames(ops []pOp, was *pWorld, n uint8) string {
	var list []string
	for i, op := range ops {
		text := fmt.Sprintf("%s (%s)", pNames[op.who], pAskNames[op.ask])
		if i < int(n) && op.who != pSweeper && was.callers[op.who].known {
			text = fmt.Sprintf("%s (%s, brings: %s)", pNames[op.who], pAskNames[op.ask], was.callers[op.who].seen)
		}
		list = append(list, text)
	}
	return strings.Join(list, ", then ")
}

func opAnswers(ops []pOp) string {
	var list []string
	for _, op := range ops {
		if op.who == pSweeper {
			continue
		}
		text := fmt.Sprintf("%s hears %q", pNames[op.who], pAnswerNames[op.answer])
		if op.ask == askClaim && op.answer == heardNil {
			text += fmt.Sprintf(" and has fence %d", op.fence)
		}
		list = append(list, text)
	}
	if list == nil {
		return "nobody"
	}
	return strings.Join(list, ", ")
}

func (r pRec) String() string {
	if r.state == 0 {
		return "no record"
	}
	return fmt.Sprintf("%s, fence %d, lease until %s, expires %s", r.state, r.fence, pTime(r.lease), pTime(r.expires))
}

func pTime(t int8) string {
	switch t {
	case pNever:
		return "never"
	case pUnset:
		return "unset"
	}
	return fmt.Sprint(t)
}
