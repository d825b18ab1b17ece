package oracle

import (
	"maps"
	"slices"
)

// Point is a place in a journal at which the disk was seen. At least the first Answers
// events had been written before, and none from Calls on: what returned between the two
// may or may not have been on the disk.
type Point struct {
	Answers, Calls int
	T              int64 // Unix nanoseconds, no earlier than anything on the disk
}

// Image judges what was found in a store that was opened from an image of the disk at
// p, with the clock stopped at p.T. The Checker must have advanced to p.Answers, and is
// not changed.
func (c *Checker) Image(p Point, found *Audit) error {
	fork := *c
	fork.effects = maps.Clone(c.effects)
	fork.keys = make(map[string]*keyStates, len(c.keys))
	for key, ks := range c.keys {
		fork.keys[key] = &keyStates{configs: ks.configs, pending: slices.Clone(ks.pending)}
	}
	fork.unanswered(p)
	fork.crash(p.T)
	_, v := fork.audit(found, p.T)
	if v != nil {
		v.image = true
		return fork.explain(v)
	}
	return nil
}

// KnownFence returns the highest fence that anyone knows at this point. A new one must
// be larger.
func (c *Checker) KnownFence() uint64 { return c.known }

// unanswered adds the calls around p, without those that returned.
func (c *Checker) unanswered(p Point) {
	for _, e := range c.events[p.Answers:p.Calls] {
		if e.Call != nil {
			c.call(c.calls[e.Call.ID]) // fails if slots run out: then nothing is known of it
		}
	}
}

// Cut ends the journal at p, to which the Checker must have advanced. The next life
// starts from an image of the disk at p, and whatever came after p never happened.
func (c *Checker) Cut(p Point) {
	c.unanswered(p)
	kept := c.events[:p.Answers:p.Answers]
	for _, e := range c.events[p.Answers:p.Calls] {
		if e.Return == nil {
			kept = append(kept, e)
		}
	}
	for _, e := range c.events[p.Answers:] {
		if e.Return != nil {
			op := c.calls[e.Return.ID]
			op.answer, op.after = nil, 0
			if e.Return.Record != nil {
				delete(c.w.granted, e.Return.Record.Fence)
			}
		}
	}
	c.events, c.next = kept, len(kept)
}
