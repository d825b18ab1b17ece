package idemtest_test

import (
	"context"
	"slices"

	"github.com/idemkv/idem/engine"
)

// faults is where a mutant differs inside the toy. The zero value differs nowhere.
type faults struct {
	bindTwice bool // is accepted
	deaf      bool // to ctx, while queued
	reversed  bool // order of the ops in a commit
	mute      bool // never calls Committed
	backwards bool // calls Committed from the last op to the first
	dirty     bool // keeps what a failed same-commit function wrote
	forgetful bool // does not record that such a function failed
	stubborn  bool // runs one that failed ever again
	unmarked  bool // gives such a function a context of nobody's

	unrestored bool // does not mark its backups
	emptied    bool // leaves the records out of its backups
	saves      bool // when it was opened read-only, too

	// show returns what the engine hands out of an entry.
	show func(e engine.Entry) *engine.Entry
	// decide takes the place of op.Run.
	decide func(op engine.Op, cur *engine.Entry, readErr error) (*engine.Entry, bool)
	// early is called before the commit is durable.
	early func(next map[string]*engine.Entry, ops []engine.Op)
	// save returns the Meta to keep.
	save func(before, now engine.Meta) engine.Meta
}

func (f *faults) shown(e *engine.Entry) *engine.Entry {
	if f.show == nil || e == nil {
		return e
	}
	return f.show(*e)
}

func (f *faults) run(op engine.Op, cur *engine.Entry, readErr error) (*engine.Entry, bool) {
	if f.decide == nil {
		return op.Run(cur, readErr)
	}
	return f.decide(op, cur, readErr)
}

func (f *faults) heeded(ctx context.Context) context.Context {
	if f.deaf {
		return context.Background()
	}
	return ctx
}

func (f *faults) ordered(ops []engine.Op) []engine.Op {
	if f.reversed {
		ops = slices.Clone(ops)
		slices.Reverse(ops)
	}
	return ops
}

func (f *faults) unsaved(next map[string]*engine.Entry, ops []engine.Op) {
	if f.early != nil {
		f.early(next, ops)
	}
}

func (f *faults) meta(before, now engine.Meta) engine.Meta {
	if f.save == nil {
		return now
	}
	return f.save(before, now)
}

func (f *faults) committed(ops []engine.Op) {
	if f.backwards {
		ops = slices.Clone(ops)
		slices.Reverse(ops)
	}
	for _, op := range ops {
		if !f.mute {
			op.Committed()
		}
	}
}
