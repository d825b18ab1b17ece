package oracle

import (
	"fmt"
	"slices"
)

// Accounts is the number of balances. An operation adds to the one of its ID modulo
// Accounts.
const Accounts = 4

// audited is the knowledge gained from an audit.
type audited struct {
	keys    map[string]*keyStates
	fences  map[uint64]string
	entered []int64 // same-commit operations that were cut off but turn out to have committed
}

// audit decides what happened to the operations that a crash cut off.
func (c *Checker) audit(a *Audit, t int64) (*audited, *Violation) {
	if v := c.auditLedger(a); v != nil {
		return nil, v
	}
	now := span{a.Began, t}
	after := &audited{keys: map[string]*keyStates{}, fences: map[uint64]string{}}
	for id := range c.effects {
		if _, entered := a.Ledger[id]; entered {
			after.entered = append(after.entered, id)
		}
	}
	for key := range a.Records {
		if c.keys[key] == nil {
			return nil, &Violation{Key: key, What: fmt.Sprintf("there is a record of key %q, which was never claimed", key)}
		}
	}
	for key, ks := range c.keys {
		configs, ok := c.w.decide(ks, a.Ledger)
		if !ok {
			return nil, &Violation{Key: key, What: "there are too many ways in which the operations cut off may have ended: this cannot be judged"}
		}
		if len(configs) == 0 {
			return nil, &Violation{
				Key: key, states: ks.configs,
				What: fmt.Sprintf("no end of the operations on key %q that were cut off agrees with the ledger", key),
			}
		}
		record, there := a.Records[key]
		var found []config
		for _, cf := range configs {
			s, ok := cf.state, false
			if there {
				s, ok = c.w.shown(s, &record, now)
			} else {
				s, ok = s.gone(now)
			}
			if cf := (config{state: c.w.loosened(s)}); ok && !slices.Contains(found, cf) {
				found = append(found, cf)
			}
		}
		if len(found) == 0 {
			what := fmt.Sprintf("after the crash there is no record of key %q, and there must be", key)
			if there {
				what = fmt.Sprintf("after the crash the record of key %q cannot be what it is", key)
			}
			return nil, &Violation{Key: key, What: what, states: configs, found: &record}
		}
		after.keys[key] = &keyStates{configs: found}
		if there {
			if c.lost[record.Fence] {
				return nil, &Violation{Key: key, What: fmt.Sprintf("fence %d is of a time that was lost", record.Fence), found: &record}
			}
			if of, seen := c.keyOf[record.Fence]; seen && of != key {
				return nil, &Violation{Key: key, What: fmt.Sprintf("fence %d is of key %q, and was seen at %q", record.Fence, key, of)}
			}
			after.fences[record.Fence] = key
		}
	}
	return after, nil
}

// settle continues from an audit.
func (c *Checker) settle(a *audited) {
	c.keys = a.keys
	for _, id := range a.entered {
		c.ledger[id] = c.effects[id].Amount
	}
	clear(c.effects)
	for f, key := range a.fences {
		c.keyOf[f] = key
		c.known = max(c.known, f)
	}
}

// auditLedger checks that the ledger's entries are those of acknowledged same-commit
// operations, and of some that were cut off.
func (c *Checker) auditLedger(a *Audit) *Violation {
	for id, amount := range c.ledger {
		got, there := a.Ledger[id]
		if !there || got != amount {
			return &Violation{Key: c.calls[id].Key, What: fmt.Sprintf("operation %d was acknowledged, and its entry of %d is not in the ledger (%d there)", id, amount, got)}
		}
	}
	sums := map[int64]int64{}
	for id, amount := range a.Ledger {
		sums[id%Accounts] += amount
		if _, there := c.ledger[id]; there {
			continue
		}
		p := c.effects[id]
		switch {
		case p == nil && c.calls[id] == nil:
			return &Violation{What: fmt.Sprintf("the ledger has an entry of operation %d, which never was", id)}
		case p == nil:
			return &Violation{Key: c.calls[id].Key, What: fmt.Sprintf("the ledger has an entry of operation %d, which was not done", id)}
		case p.Amount != amount:
			return &Violation{Key: p.Key, What: fmt.Sprintf("the ledger's entry of operation %d is %d, and should be %d", id, amount, p.Amount)}
		}
	}
	for account := range int64(Accounts) {
		if got := a.Balances[account]; got != sums[account] {
			return &Violation{What: fmt.Sprintf("balance %d is %d, and its entries sum up to %d", account, got, sums[account])}
		}
	}
	return nil
}

// decide returns every way in which the operations that were cut off may have ended,
// given which same-commit ones are in the ledger.
func (w *world) decide(ks *keyStates, ledger map[int64]int64) ([]config, bool) {
	var must, mustNot uint64
	for i, p := range ks.pending {
		if p == nil || !p.enters() {
			continue
		}
		if _, entered := ledger[p.ID]; entered {
			must |= 1 << i
		} else {
			mustNot |= 1 << i
		}
	}
	seen := map[config]struct{}{}
	var todo, out []config
	add := func(cf config) {
		if _, there := seen[cf]; !there {
			seen[cf] = struct{}{}
			todo = append(todo, cf)
		}
	}
	for _, cf := range ks.configs {
		if cf.mask&mustNot == 0 {
			add(cf)
		}
	}
	for len(todo) > 0 {
		cf := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if cf.mask&must == must {
			out = append(out, cf)
		}
		for i, p := range ks.pending {
			if p == nil || (cf.mask|mustNot)&(1<<i) != 0 {
				continue
			}
			for _, s := range w.step(cf.state, p.call, nil, p.span()) {
				add(config{s, cf.mask | 1<<i})
			}
		}
		if len(seen) > maxConfigs {
			return nil, false
		}
	}
	return out, true
}
