package idem

import (
	"context"
	"sync/atomic"
)

// frame marks a context as that of work which the store waits for: a same-commit
// function, or what runs under a claim. A call of the store from in there can wait for
// the very work that makes it, without end. Those are refused by their context, where
// they have it.
type frame struct {
	store *Store
	key   string // of the claim; "" in a same-commit function
	outer *frame
	over  atomic.Bool // the work has ended: what keeps its context waits for nothing of it
}

type frameKey struct{}

func (s *Store) mark(ctx context.Context, key string) (context.Context, *frame) {
	outer, _ := ctx.Value(frameKey{}).(*frame)
	f := &frame{store: s, key: key, outer: outer}
	return context.WithValue(ctx, frameKey{}, f), f
}

// markCommit is Host.Within.
func (s *Store) markCommit(ctx context.Context) context.Context {
	s.effects.Store(true)
	marked, _ := s.mark(ctx, "")
	return marked
}

// within reports whether ctx is of work of this store that is chosen.
func (s *Store) within(ctx context.Context, chosen func(*frame) bool) bool {
	f, _ := ctx.Value(frameKey{}).(*frame)
	for ; f != nil; f = f.outer {
		if f.store == s && !f.over.Load() && chosen(f) {
			return true
		}
	}
	return false
}

// inCommit refuses a call from within a same-commit function, for which a commit would
// wait that waits for the function. It costs nothing where there are none.
func (s *Store) inCommit(ctx context.Context) error {
	if s.effects.Load() && s.within(ctx, func(f *frame) bool { return f.key == "" }) {
		return invalid("a function that runs inside the engine (same-commit, View) called its store, which may wait for it; use the tx or batch it was given, and call the store before or after")
	}
	return nil
}

// inWork refuses to wait for a claim of key from within the work that runs under it.
func (s *Store) inWork(ctx context.Context, key string) error {
	if s.within(ctx, func(f *frame) bool { return f.key == key }) {
		return invalid("the work of a key waits for its own key, and would for ever; give the inner operation a key of its own")
	}
	return nil
}
