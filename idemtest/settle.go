package idemtest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var settleCases = []testCase{
	{"settling ignores that ctx has ended", settleEnded},
	{"settling goes on when ctx ends on the threshold", settleBetween},
	{"settling goes on when ctx ends while queued", settleQueued},
	{"End leaves alone what the work has settled or held", endLeavesAlone},
}

// settling returns every call that settles a claim, with the state it leaves; zero:
// none. Each uses a key of its own name.
func (e *env) settling() map[string]struct {
	do    func(ctx context.Context, tok idem.Token) error
	state idem.State
} {
	type call = struct {
		do    func(ctx context.Context, tok idem.Token) error
		state idem.State
	}
	return map[string]call{
		"Complete": {func(ctx context.Context, tok idem.Token) error { return e.s.Complete(ctx, tok, []byte("r")) }, idem.Completed},
		"CompleteMany": {func(ctx context.Context, tok idem.Token) error {
			return e.s.CompleteMany(ctx, []idem.Completion{{Token: tok, Result: []byte("r")}})[0]
		}, idem.Completed},
		"Fail":    {func(ctx context.Context, tok idem.Token) error { return e.s.Fail(ctx, tok, []byte("r")) }, idem.Failed},
		"Release": {func(ctx context.Context, tok idem.Token) error { return e.s.Release(ctx, tok, []byte("r")) }, idem.Released},
		"Hold":    {func(ctx context.Context, tok idem.Token) error { return e.s.Hold(ctx, tok, []byte("r")) }, idem.Held},
		"End": {func(ctx context.Context, tok idem.Token) error {
			return e.s.End(ctx, idem.Ending{Token: tok, State: idem.Completed, Result: []byte("r")})
		}, idem.Completed},
		"EndMany": {func(ctx context.Context, tok idem.Token) error {
			return e.s.EndMany(ctx, []idem.Ending{{Token: tok, State: idem.Held, Result: []byte("r")}})[0]
		}, idem.Held},
		"Unclaim": {func(ctx context.Context, tok idem.Token) error { return e.s.Unclaim(ctx, tok) }, 0},
	}
}

// settledAs requires that each key is in the state its call leaves.
func (e *env) settledAs() {
	e.t.Helper()
	for key, c := range e.settling() {
		if c.state == 0 {
			e.absent(key)
			continue
		}
		r := e.get(key)
		require.Equal(e.t, c.state, r.State, key)
		require.Equal(e.t, "r", string(r.Result), key)
	}
}

func settleEnded(t *testing.T, e *env) {
	e.open(idem.Options{})
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	for key, c := range e.settling() {
		require.NoError(t, c.do(ctx, e.claim(idem.Request{Key: key}).Token), key)
	}
	e.settledAs()
	if !e.h.Volatile {
		e.reopen()
		e.settledAs()
	}
	for name, c := range e.settling() {
		if c.state != 0 { // Unclaim returns nil
			require.ErrorIs(t, c.do(ctx, idem.Token{Key: "none", Fence: 1}), idem.ErrFenced, name)
		}
		require.ErrorIs(t, c.do(ctx, idem.Token{Key: "none"}), idem.ErrInvalid, name)
	}
	e.close()
	for name, c := range e.settling() {
		require.ErrorIs(t, c.do(ctx, idem.Token{Key: name, Fence: 1}), idem.ErrClosed, name)
	}
}

func settleBetween(t *testing.T, e *env) {
	between := &cancelBetween{}
	e.wrap = func(b engine.Backend) engine.Backend { between.Backend = b; return between }
	e.open(idem.Options{})
	for key, c := range e.settling() {
		tok := e.claim(idem.Request{Key: key}).Token
		ctx, cancel := context.WithCancel(e.ctx)
		between.cancel = cancel
		require.NoError(t, c.do(ctx, tok), key)
		require.Error(t, ctx.Err())
		between.cancel = nil
	}
	e.settledAs()
}

func settleQueued(t *testing.T, e *env) {
	e.stallable()
	s := e.spied()
	e.open(idem.Options{})
	tokens := map[string]idem.Token{}
	for key := range e.settling() {
		tokens[key] = e.claim(idem.Request{Key: key}).Token
	}
	reached, release := e.stall()
	first := async(func() error { _, err := e.s.Claim(e.ctx, idem.Request{Key: "first"}); return err })
	e.await("the commit", reached)
	asked := make(chan struct{}, len(tokens))
	s.beforeApply = func() { asked <- struct{}{} }
	ctx, cancel := context.WithCancel(e.ctx)
	calls := map[string]*pending[error]{}
	for key, c := range e.settling() {
		calls[key] = async(func() error { return c.do(ctx, tokens[key]) })
		e.await("a queued "+key, asked)
	}
	cancel()
	settle()
	for key, call := range calls {
		require.False(t, call.isDone(), "%s said something before its commit", key)
	}
	release()
	require.NoError(t, first.wait(e, "the first Claim"))
	for key, call := range calls {
		require.NoError(t, call.wait(e, key), key)
	}
	e.settledAs()
	e.reopen()
	e.settledAs()
}

func endLeavesAlone(t *testing.T, e *env) {
	e.open(idem.Options{})
	for before, answer := range outcomes {
		var ends []idem.Ending
		for state := range outcomes {
			tok := e.claim(idem.Request{Key: before.String() + " " + state.String()}).Token
			require.NoError(t, e.end(tok, before, []byte("mine")))
			ends = append(ends, idem.Ending{Token: tok, State: state, Result: []byte("other")})
		}
		many := e.s.EndMany(e.ctx, ends)
		for i, end := range ends {
			want := answer
			if before == idem.Released {
				want = idem.ErrFenced
			}
			if end.State == before && (before == idem.Released || before == idem.Held) {
				want = nil // already in that state
			}
			require.Equal(t, want, many[i], "%v, then %v", before, end.State)
			require.Equal(t, want, e.s.End(e.ctx, end), "%v, then %v", before, end.State)
			r := e.get(end.Token.Key)
			require.Equal(t, before, r.State)
			require.Equal(t, "mine", string(r.Result))
		}
	}
}
