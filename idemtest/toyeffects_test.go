package idemtest_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"runtime"
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// toyEffect is a same-commit function of the toy, and how its last run ended.
type toyEffect struct {
	ctx      context.Context
	fn       func(context.Context, idemtest.KV) ([]byte, error)
	panicked any
	exited   bool
}

var errToyEffect = errors.New("the function did not return")

// run runs the function in a goroutine that it may end.
func (x *toyEffect) run(kv idemtest.KV) (result []byte, err error) {
	done := make(chan struct{})
	err = errToyEffect
	x.panicked, x.exited = nil, false
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if !returned {
				x.panicked = recover()
				x.exited = x.panicked == nil
			}
		}()
		result, err = x.fn(x.ctx, kv)
		returned = true
	}()
	<-done
	return result, err
}

// goOn goes on in the caller as the function ended.
func (x *toyEffect) goOn() {
	if x.panicked != nil {
		panic(x.panicked)
	}
	if x.exited {
		runtime.Goexit()
	}
}

// toyKV is a transaction: what is written is there when it ends well.
type toyKV struct{ data map[string][]byte }

func (kv toyKV) Get(key string) []byte        { return bytes.Clone(kv.data[key]) }
func (kv toyKV) Put(key string, value []byte) { kv.data[key] = bytes.Clone(value) }

// effect runs x on what the commit has of the caller's data so far.
func (b *toy) effect(op engine.Op, x *toyEffect, mine map[string][]byte) (*engine.Entry, bool) {
	kv := toyKV{maps.Clone(mine)}
	result, err := x.run(kv)
	for n := 0; b.faults.stubborn && err != nil && n < 10; n++ {
		result, err = x.run(kv)
	}
	if err == nil || b.faults.dirty {
		maps.Copy(mine, kv.data)
	}
	if err != nil && b.faults.forgetful {
		op.Finish(result, err)
		return nil, false
	}
	return op.Finish(result, err)
}

func (b *toy) within(ctx context.Context) context.Context {
	if b.faults.unmarked {
		return context.Background()
	}
	return b.host.Within(ctx)
}

func toyDo(ctx context.Context, s *idem.Store, r idem.Request, fn func(context.Context, idemtest.KV) ([]byte, error)) ([]byte, bool, error) {
	x := &toyEffect{ctx: toyOf(engine.Of(s)).within(ctx), fn: fn}
	result, replayed, err := s.DoEffect(ctx, r, x)
	x.goOn()
	return result, replayed, err
}

func without(fn func(idemtest.KV) ([]byte, error)) func(context.Context, idemtest.KV) ([]byte, error) {
	return func(_ context.Context, kv idemtest.KV) ([]byte, error) { return fn(kv) }
}

var toyEffects = idemtest.Effects{
	Do: func(ctx context.Context, s *idem.Store, r idem.Request, fn func(idemtest.KV) ([]byte, error)) ([]byte, bool, error) {
		return toyDo(ctx, s, r, without(fn))
	},
	DoCtx: toyDo,
	Complete: func(ctx context.Context, s *idem.Store, token idem.Token, fn func(idemtest.KV) ([]byte, error)) error {
		x := &toyEffect{ctx: toyOf(engine.Of(s)).within(ctx), fn: without(fn)}
		err := s.CompleteEffect(ctx, token, x)
		x.goOn()
		return err
	},
	Update: func(ctx context.Context, backend engine.Backend, fn func(idemtest.KV) error) error {
		b := toyOf(backend)
		if err := ctx.Err(); err != nil {
			return err
		}
		b.turn <- struct{}{}
		defer func() { <-b.turn }()
		b.mu.RLock()
		broken, closed, mine := b.broken, b.closed, maps.Clone(b.mine)
		b.mu.RUnlock()
		if broken != nil {
			return broken
		}
		if closed {
			return idem.ErrClosed
		}
		if mine == nil {
			mine = map[string][]byte{}
		}
		x := &toyEffect{ctx: ctx, fn: func(_ context.Context, kv idemtest.KV) ([]byte, error) { return nil, fn(kv) }}
		_, err := x.run(toyKV{mine})
		if err == nil {
			if err = b.save(nil, mine, b.places, nil); err == nil {
				b.mu.Lock()
				b.mine = mine
				b.mu.Unlock()
			}
		}
		x.goOn()
		return err
	},
	Get: func(_ testing.TB, backend engine.Backend, key string) []byte {
		b := toyOf(backend)
		b.mu.RLock()
		defer b.mu.RUnlock()
		return b.mine[key]
	},
}

func TestToyEffects(t *testing.T) {
	t.Parallel()
	idemtest.RunEffects(t, toyHarness(func(b *toy) engine.Backend { return b }), toyEffects)
}
