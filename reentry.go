package idem

import (
	"context"
	"sync/atomic"
)

// frame marks the context of work that the store waits for: a same-commit function, or
// work under a claim. A call to the store from inside such work could wait for that
// work forever. Calls that carry its context are refused instead.
type frame struct {
	store *Store
	key   string // of the claim; "" in a same-commit function
	outer *frame
	over  atomic.Bool // the work has ended: its context no longer matters
}

type frameKey struct{}

func (s *Store) mark(ctx context.Context, key string) (context.Context, *frame) {
	outer, _ := ctx.Value(frameKey{}).(*frame)
	f := &frame{store: s, key: key, outer: outer}
	return context.WithValue(ctx, frameKey{}, f), f
}

// markCommit implements engine.Host.Within.
func (s *Store) markCommit(ctx context.Context) context.Context {
	s.effects.Store(true)
	marked, _ := s.mark(ctx, "")
	return marked
}

// within reports whether ctx belongs to work of this store that chosen accepts.
func (s *Store) within(ctx context.Context, chosen func(*frame) bool) bool {
	f, _ := ctx.Value(frameKey{}).(*frame)
	for ; f != nil; f = f.outer {
		if f.store == s && !f.over.Load() && chosen(f) {
			return true
		}
	}
	return false
}

// inCommit refuses a call from inside a same-commit function: the call may wait for a
// commit that waits for the function. It costs nothing until there has been such a
// function.
func (s *Store) inCommit(ctx context.Context) error {
	if s.effects.Load() && s.within(ctx, func(f *frame) bool { return f.key == "" }) {
		return invalid("a function that runs inside the engine (same-commit, View) called its store, which may wait for it; use the tx or batch it was given, and call the store before or after")
	}
	return nil
}

// inWork refuses to wait for a claim of key from inside the work that runs under it.
func (s *Store) inWork(ctx context.Context, key string) error {
	if s.within(ctx, func(f *frame) bool { return f.key == key }) {
		return invalid("the work of a key would wait for its own key forever; give the inner operation a different key")
	}
	return nil
}
