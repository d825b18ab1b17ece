package oracle

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idemkv/idem"
)

// Script is every operation there is, one after the other. What it asks of the disk is
// the same each time.
type Script struct {
	// Large is the size of the largest results, a few in each round. They make files
	// grow, and logs and memtables be replaced.
	Large int
}

// script is one run of a Script.
type script struct {
	*worker
	ctx   context.Context
	large int
}

// tell runs round n, which uses its own keys, until the store has ended.
func (s Script) tell(ctx context.Context, l *load, n int) {
	k := &script{
		worker: &worker{load: l, rng: rand.New(rand.NewPCG(1, uint64(n)))},
		ctx:    ctx, large: s.Large,
	}
	key := func(name string) string { return fmt.Sprintf("round %d %s", n, name) }

	// The common way: claim, work, complete, replay.
	a := k.claim(&Op{Key: key("a"), Print: 1})
	k.claim(&Op{Key: key("a"), Print: 1}) // in flight
	k.claim(&Op{Key: key("a"), Print: 2}) // mismatch
	k.settle(Checkpoint, a, k.some(3000))
	k.settle(Extend, a, nil)
	k.settle(Complete, a, k.some(k.large))
	k.claim(&Op{Key: key("a"), Print: 1}) // a replay
	k.get(key("a"))

	// A takeover; the first attempt comes late.
	b := k.claim(&Op{Key: key("b"), Lease: int64(time.Millisecond)})
	k.wait(key("b"))
	again := k.claim(&Op{Key: key("b")})
	k.settle(Complete, b, k.some(10))
	k.settle(Fail, again, k.some(200))
	k.claim(&Op{Key: key("b")})

	// Every other way to end an attempt.
	c := k.claim(&Op{Key: key("c")})
	k.settle(Release, c, k.some(40))
	c = k.claim(&Op{Key: key("c")})
	k.settle(Hold, c, k.some(50))
	k.claim(&Op{Key: key("c")})
	k.settle(Complete, c, []byte{})
	k.claim(&Op{Key: key("unknown"), Lease: int64(time.Millisecond), Unknown: true})
	k.wait(key("unknown"))
	k.claim(&Op{Key: key("unknown"), Lease: int64(time.Millisecond), Unknown: true})
	u := k.claim(&Op{Key: key("undone")})
	k.settle(Unclaim, u, nil)
	u = k.claim(&Op{Key: key("undone")})
	k.settle(Release, u, nil)
	u = k.claim(&Op{Key: key("undone"), Print: 1})
	k.settle(Unclaim, u, nil)
	k.claim(&Op{Key: key("undone"), Print: 2}) // mismatch
	d := k.claim(&Op{Key: key("d")})
	k.settle(Complete, d, nil)

	// Batches; the last claim is left open.
	many := k.claimMany(key("e"), key("f"), key("e"), key("open"))
	k.completeMany(many[:2], k.some(k.large/2))

	// Functions: idem.Do, and those in the same commit.
	k.run(key("g"), nil)
	k.run(key("g"), nil)
	k.run(key("h"), errOwn)
	k.run(key("h"), idem.Permanent(errOwn))
	k.do(key("i"), k.some(k.large/3), nil)
	k.do(key("i"), nil, nil)
	k.do(key("j"), nil, errOwn)
	k.do(key("j"), nil, idem.Permanent(errOwn))
	k.do(key("j"), nil, nil) // a replay
	l2 := k.claim(&Op{Key: key("l")})
	k.completeTx(l2, k.some(100), errOwn)
	k.completeTx(l2, k.some(100), nil)
	k.completeTx(k.claim(&Op{Key: key("p")}), nil, idem.Permanent(errOwn))
	k.update()

	// Remove expired records, and those of the round before.
	k.claim(&Op{Key: key("m"), Lease: int64(time.Millisecond), Retention: 1})
	k.claim(&Op{Key: key("n"), Lease: int64(time.Millisecond), Retention: 1})
	k.wait(key("n"))
	k.sweep()
	k.forget(fmt.Sprintf("round %d a", n-1))
	k.forget(key("d"))
}

// some returns n bytes that do not compress.
func (k *script) some(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(k.rng.Uint32())
	}
	return b
}

// ask starts op; it returns false if the store has ended.
func (k *script) ask(kind Kind, op *Op) bool {
	if k.over.Load() {
		return false
	}
	op.ID, op.Kind = k.id.Add(1), kind
	k.begin(op)
	return true
}

func (k *script) claim(op *Op) idem.Token {
	k.defaults(op)
	if !k.ask(Claim, op) {
		return idem.Token{}
	}
	c, err := k.s.Store.Claim(k.ctx, op.request())
	k.end(op, err, Answer{Record: RecordOf(c.Record)})
	return c.Token
}

func (k *script) defaults(op *Op) {
	if op.Lease == 0 {
		op.Lease = int64(time.Hour)
	}
	if op.Retention == 0 {
		op.Retention = int64(time.Hour)
	}
}

func (k *script) get(key string) {
	op := &Op{Key: key}
	if !k.ask(Get, op) {
		return
	}
	r, err := k.s.Store.Get(k.ctx, key)
	k.end(op, err, Answer{Record: RecordOf(r)})
}

// wait waits until the lease of key has lapsed.
func (k *script) wait(key string) {
	op := &Op{Key: key}
	if !k.ask(Wait, op) {
		return
	}
	r, err := k.s.Store.Wait(k.ctx, key)
	k.end(op, err, Answer{Record: RecordOf(r)})
}

// settle does one operation with a token, or nothing without one.
func (k *script) settle(kind Kind, t idem.Token, b []byte) {
	op := &Op{Key: t.Key, Fence: t.Fence, Bytes: TextOf(b)}
	if t.Key == "" || !k.ask(kind, op) {
		return
	}
	s := k.s.Store
	err := map[Kind]func() error{
		Complete:   func() error { return s.Complete(k.ctx, t, b) },
		Fail:       func() error { return s.Fail(k.ctx, t, b) },
		Release:    func() error { return s.Release(k.ctx, t, b) },
		Unclaim:    func() error { return s.Unclaim(k.ctx, t) },
		Hold:       func() error { return s.Hold(k.ctx, t, b) },
		Extend:     func() error { return s.Extend(k.ctx, t, 0) },
		Checkpoint: func() error { return s.Checkpoint(k.ctx, t, b) },
	}[kind]()
	k.end(op, err, Answer{})
}

func (k *script) claimMany(keys ...string) []idem.Token {
	ops, rs := make([]*Op, len(keys)), make([]idem.Request, len(keys))
	tokens := make([]idem.Token, len(keys))
	for i, key := range keys {
		ops[i] = &Op{Key: key}
		k.defaults(ops[i])
		if !k.ask(Claim, ops[i]) {
			return tokens
		}
		rs[i] = ops[i].request()
	}
	for i, r := range k.s.Store.ClaimMany(k.ctx, rs) {
		k.end(ops[i], r.Err, Answer{Record: RecordOf(r.Record)})
		tokens[i] = r.Token
	}
	return tokens
}

func (k *script) completeMany(tokens []idem.Token, b []byte) {
	ops, cs := make([]*Op, len(tokens)), make([]idem.Completion, len(tokens))
	for i, t := range tokens {
		ops[i] = &Op{Key: t.Key, Fence: t.Fence, Bytes: TextOf(b)}
		if t.Key == "" || !k.ask(Complete, ops[i]) {
			return
		}
		cs[i] = idem.Completion{Token: t, Result: b}
	}
	for i, err := range k.s.Store.CompleteMany(k.ctx, cs) {
		k.end(ops[i], err, Answer{})
	}
}

// run is idem.Do; see worker.run.
func (k *script) run(key string, fails error) {
	if k.over.Load() {
		return
	}
	op, settle := k.op(Run, key), k.op(Complete, key)
	k.defaults(op)
	b := k.some(100)
	settle.Bytes = TextOf(b)
	if fails != nil {
		settle.Kind, settle.Bytes = Release, TextOf([]byte(fails.Error()))
		if idem.IsPermanent(fails) {
			settle.Kind, settle.Bytes = Fail, TextOf([]byte(fails.Error()))
		}
	}
	k.runs(k.ctx, op, op.request(), settle, b, fails)
}

func (k *script) do(key string, b []byte, fails error) {
	op := &Op{Key: key, Amount: 7, Bytes: TextOf(b)}
	if fails != nil {
		op.Why, op.Final = TextOf([]byte(fails.Error())), idem.IsPermanent(fails)
	}
	k.defaults(op)
	if !k.ask(Do, op) {
		return
	}
	result, replayed, err := k.s.Do(k.ctx, op.request(), k.enters(op, b, fails))
	k.end(op, err, Answer{Replayed: replayed, Bytes: TextOf(result)})
}

func (k *script) completeTx(t idem.Token, b []byte, fails error) {
	op := &Op{Key: t.Key, Fence: t.Fence, Amount: 3, Bytes: TextOf(b)}
	if fails != nil {
		op.Why, op.Final = TextOf([]byte(fails.Error())), idem.IsPermanent(fails)
	}
	if t.Key == "" || !k.ask(CompleteTx, op) {
		return
	}
	k.end(op, k.s.Complete(k.ctx, t, k.enters(op, b, fails)), Answer{})
}

func (k *script) update() {
	op := &Op{Amount: 5}
	if !k.ask(Update, op) {
		return
	}
	fn := k.enters(op, nil, nil)
	k.end(op, k.s.Update(k.ctx, func(kv KV) error { _, err := fn(kv); return err }), Answer{})
}

// enters returns the same-commit function of op.
func (k *script) enters(op *Op, b []byte, fails error) Effect {
	return reading(op, func(kv KV) ([]byte, error) {
		enter(kv, op)
		return bytes.Clone(b), fails
	})
}

func (k *script) sweep() {
	op := &Op{}
	if k.ask(Sweep, op) {
		_, err := k.s.Store.Sweep(k.ctx, 10)
		k.end(op, err, Answer{})
	}
}

func (k *script) forget(key string) {
	op := &Op{Key: key}
	if k.ask(Forget, op) {
		k.end(op, k.s.Store.Forget(k.ctx, idem.Token{Key: key}), Answer{})
	}
}
