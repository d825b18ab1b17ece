package oracle

import (
	"fmt"
	"maps"
	"slices"
)

// Checker judges journals. See the package documentation.
type Checker struct {
	w      world
	events []*Event
	next   int // the event to continue with
	life   int
	broken bool // someone was told so in this life
	calls  map[int64]*call
	keys   map[string]*keyStates

	known   uint64            // the highest fence that anyone has seen
	keyOf   map[uint64]string // keys by fence, of the fences seen
	grantee map[uint64]int64  // the operation that was granted the fence
	lost    map[uint64]bool   // fences that a restored backup has forgotten

	effects map[int64]*pending // same-commit operations that have not returned
	ledger  map[int64]int64    // entries known to be there: amount by operation

	most int // largest number of states of a key at once, for people
}

// call is an operation in the journal.
type call struct {
	Op
	life   int
	before int64
	answer *Answer // nil: none, or not loaded
	after  int64
	late   bool // called after someone had been told that the store is broken
}

// pending is a call that has not returned yet at some point of the journal.
type pending struct {
	*call
	dead  bool // a crash or a failed commit cut it off
	until int64
	floor uint64 // the highest fence known when it was called
}

// result returns the answer that the operation must give; nil: any possible one.
func (p *pending) result() *Answer {
	if p.dead || p.answer != nil && p.answer.Err == Broken {
		return nil
	}
	return p.answer
}

func (p *pending) span() span {
	switch {
	case p.dead:
		return span{p.before, max(p.before, p.until)}
	case p.answer == nil:
		return span{p.before, never}
	}
	return span{p.before, p.after}
}

// keyStates are the possible states of a key. Each config is a state and which of the
// pending operations took effect on the way there. Configs are replaced, never changed.
type keyStates struct {
	configs []config
	pending []*pending // by slot; nil: free
}

type config struct {
	state state
	mask  uint64
}

const (
	maxSlots   = 64
	maxConfigs = 1 << 17
)

// NewChecker returns a Checker of a store that does not exist yet.
func NewChecker() *Checker {
	return &Checker{
		w:     world{lives: map[int]*Life{}, granted: map[uint64]int64{}},
		calls: map[int64]*call{}, keys: map[string]*keyStates{}, keyOf: map[uint64]string{}, grantee: map[uint64]int64{}, lost: map[uint64]bool{},
		effects: map[int64]*pending{}, ledger: map[int64]int64{},
	}
}

// Loosen makes the Checker ignore times by which something must have lapsed or expired,
// and times shown in records. It still judges what must not be forgotten yet, and
// everything that has nothing to do with time.
func (c *Checker) Loosen() { c.w.loose = true }

// Load adds events to the journal. Operations end in the life they began in. Load all
// events of a life before judging the first of them.
func (c *Checker) Load(events []*Event) {
	life := c.life
	for _, e := range events {
		switch {
		case e.Life != nil:
			life = e.Life.N
			c.w.lives[life] = e.Life
		case e.Call != nil:
			c.calls[e.Call.ID] = &call{Op: *e.Call, life: life, before: e.T}
		case e.Return != nil:
			op := c.calls[e.Return.ID]
			op.answer, op.after = e.Return, e.T
			if granted(op.Kind, e.Return) {
				c.w.granted[e.Return.Record.Fence] = op.ID
			}
		}
	}
	c.events = append(c.events, events...)
}

// granted reports whether a is a grant that includes its fence.
func granted(k Kind, a *Answer) bool {
	return (k == Claim || k == Run) && a.Err == OK && !a.Replayed && a.Record != nil
}

// Lose takes the events of lives that a restored backup has forgotten. The fences they
// granted must not be granted again.
func (c *Checker) Lose(events []*Event) {
	calls := map[int64]*Op{}
	for _, e := range events {
		if e.Call != nil {
			calls[e.Call.ID] = e.Call
		} else if e.Return != nil && granted(calls[e.Return.ID].Kind, e.Return) {
			c.lost[e.Return.Record.Fence] = true
		}
	}
}

// Len returns the number of events loaded.
func (c *Checker) Len() int { return len(c.events) }

// All judges everything loaded.
func (c *Checker) All() error { return c.Advance(len(c.events)) }

// Advance judges the events before n. It returns a *Violation if they cannot all be
// true.
func (c *Checker) Advance(n int) error {
	for ; c.next < n; c.next++ {
		e := c.events[c.next]
		var v *Violation
		switch {
		case e.Life != nil:
			c.life, c.broken = e.Life.N, false
			c.crash(e.T)
		case e.Call != nil:
			v = c.call(c.calls[e.Call.ID])
		case e.Return != nil:
			v = c.ret(c.calls[e.Return.ID], e.T)
		case e.Audit != nil:
			var after *audited
			if after, v = c.audit(e.Audit, e.T); v == nil {
				c.settle(after)
			}
		}
		if v != nil {
			return c.explain(v)
		}
	}
	return nil
}

// cutOff returns p cut off at t: it may take effect entirely or not at all.
func (p *pending) cutOff(t int64) *pending {
	if p == nil || p.dead {
		return p
	}
	dead := *p
	dead.dead, dead.until = true, t
	return &dead
}

// crash cuts off every call that has not returned.
func (c *Checker) crash(t int64) {
	for _, ks := range c.keys {
		ks.pending = slices.Clone(ks.pending)
		for i, p := range ks.pending {
			ks.pending[i] = p.cutOff(t)
		}
	}
	for id, p := range c.effects {
		c.effects[id] = p.cutOff(t)
	}
}

func (c *Checker) call(op *call) *Violation {
	op.late = c.broken
	p := &pending{call: op, floor: c.known}
	if op.enters() {
		c.effects[op.ID] = p
	}
	if op.Key == "" {
		return nil
	}
	ks := c.key(op.Key)
	slot := slices.Index(ks.pending, nil)
	if slot < 0 {
		slot = len(ks.pending)
		ks.pending = append(ks.pending, nil)
	}
	if slot >= maxSlots {
		return &Violation{Key: op.Key, What: fmt.Sprintf("more than %d operations of one key were under way: this cannot be judged", maxSlots)}
	}
	ks.pending[slot] = p
	return nil
}

func (c *Checker) key(key string) *keyStates {
	ks := c.keys[key]
	if ks == nil {
		ks = &keyStates{configs: []config{{}}}
		c.keys[key] = ks
	}
	return ks
}

func (c *Checker) ret(op *call, t int64) *Violation {
	a := op.answer
	switch {
	case a.Err == Broken:
		c.broken = true
		if op.late {
			return c.nothing(op)
		}
		c.unknown(op, t)
		return nil
	case op.late && a.Err != Closed && a.Err != Context:
		return &Violation{Key: op.Key, What: fmt.Sprintf("%s %d was called when the store had said that it is broken, and got %s %s", op.Kind, op.ID, a.Err, a.Detail)}
	}
	if op.enters() {
		delete(c.effects, op.ID)
		if applied(op.Kind, a) {
			c.ledger[op.ID] = op.Amount
		}
	}
	if op.Key == "" {
		if a.Err != OK && a.Err != Context && a.Err != Closed && a.Err != Own {
			return &Violation{What: fmt.Sprintf("%s %d got %s: %s", op.Kind, op.ID, a.Err, a.Detail)}
		}
		if op.Why != "" && a.Err == OK {
			return &Violation{What: fmt.Sprintf("the function of %s %d failed, and it was answered nil", op.Kind, op.ID)}
		}
		return nil
	}
	ks := c.keys[op.Key]
	slot := ks.slotOf(op)
	p := ks.pending[slot]
	if v := c.fence(p, a); v != nil {
		return v
	}
	configs, ok := c.w.linearize(ks, slot)
	switch {
	case !ok:
		return &Violation{Key: op.Key, What: fmt.Sprintf("there are more than %d orders of the operations under way: this cannot be judged", maxConfigs)}
	case len(configs) == 0:
		return &Violation{Key: op.Key, What: fmt.Sprintf("no order of the operations explains the answer of %s %d: %s %s", op.Kind, op.ID, a.Err, a.Detail), states: ks.configs}
	}
	ks.configs = configs
	c.most = max(c.most, len(configs))
	ks.pending[slot] = nil
	return nil
}

// unknown cuts off op at t: its commit failed, and may or may not have taken effect.
func (c *Checker) unknown(op *call, t int64) {
	if p := c.effects[op.ID]; p != nil {
		c.effects[op.ID] = p.cutOff(t)
	}
	if op.Key == "" {
		return
	}
	ks := c.keys[op.Key]
	ks.pending = slices.Clone(ks.pending)
	slot := ks.slotOf(op)
	ks.pending[slot] = ks.pending[slot].cutOff(t)
}

// nothing removes op, which a store that was already broken has not done.
func (c *Checker) nothing(op *call) *Violation {
	delete(c.effects, op.ID)
	if op.Key == "" {
		return nil
	}
	ks := c.keys[op.Key]
	slot := ks.slotOf(op)
	ks.configs = slices.DeleteFunc(slices.Clone(ks.configs), func(cf config) bool { return cf.mask&(1<<slot) != 0 })
	ks.pending = slices.Clone(ks.pending)
	ks.pending[slot] = nil
	if len(ks.configs) == 0 {
		return &Violation{Key: op.Key, What: fmt.Sprintf("%s %d was called when the store had said that it is broken, and has taken effect", op.Kind, op.ID)}
	}
	return nil
}

// slotOf returns the place of op among the pending ones.
func (ks *keyStates) slotOf(op *call) int {
	return slices.IndexFunc(ks.pending, func(p *pending) bool { return p != nil && p.ID == op.ID })
}

// applied reports whether a is the answer of a same-commit operation whose writes were
// committed.
func applied(k Kind, a *Answer) bool {
	return !a.Replayed && (a.Err == OK || a.Err == TooLarge && k != Update)
}

// fence checks the fences in an answer.
func (c *Checker) fence(p *pending, a *Answer) *Violation {
	if a.Record == nil {
		return nil
	}
	f := a.Record.Fence
	if c.lost[f] {
		return &Violation{Key: p.Key, What: fmt.Sprintf("fence %d is of a time that was lost", f)}
	}
	if granted(p.Kind, a) {
		if other, taken := c.grantee[f]; taken {
			return &Violation{Key: p.Key, What: fmt.Sprintf("fence %d was granted to operation %d, and before to %d", f, p.ID, other)}
		}
		if f <= p.floor {
			return &Violation{Key: p.Key, What: fmt.Sprintf("fence %d was granted to operation %d when %d was known already", f, p.ID, p.floor)}
		}
		c.grantee[f] = p.ID
	}
	if key, seen := c.keyOf[f]; seen && key != p.Key {
		return &Violation{Key: p.Key, What: fmt.Sprintf("fence %d is of key %q, and was seen at %q", f, p.Key, key)}
	}
	c.keyOf[f] = p.Key
	c.known = max(c.known, f)
	return nil
}

// linearize returns the configs in which the operation in slot has taken effect and
// given its answer; false if there are too many.
func (w *world) linearize(ks *keyStates, slot int) ([]config, bool) {
	bit := uint64(1) << slot
	out := map[config]struct{}{}
	open := map[config]struct{}{}
	var todo []config
	for _, cf := range ks.configs {
		if cf.mask&bit != 0 {
			out[config{cf.state, cf.mask &^ bit}] = struct{}{}
		} else if _, seen := open[cf]; !seen {
			open[cf] = struct{}{}
			todo = append(todo, cf)
		}
	}
	for len(todo) > 0 {
		cf := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for i, p := range ks.pending {
			if p == nil || cf.mask&(1<<i) != 0 {
				continue
			}
			for _, s := range w.step(cf.state, p.call, p.result(), p.span()) {
				next := config{s, cf.mask | 1<<i}
				if i == slot {
					next.mask &^= bit
					out[next] = struct{}{}
				} else if _, seen := open[next]; !seen {
					open[next] = struct{}{}
					todo = append(todo, next)
				}
			}
			if len(open)+len(out) > maxConfigs {
				return nil, false
			}
		}
	}
	return slices.Collect(maps.Keys(out)), true
}

// Tally returns how many operations were answered, how many were not, and the largest
// number of states that a key had at once.
func (c *Checker) Tally() (answered, cut, most int) {
	for _, op := range c.calls {
		if op.answer != nil {
			answered++
		} else {
			cut++
		}
	}
	return answered, cut, c.most
}
