package oracle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
)

// Workload is the random operations of one life.
type Workload struct {
	Seed    uint64
	Life    int
	Keys    int
	Workers int
	// Ops ends the workload after that many operations; 0: only the store's end does.
	Ops int
	// FirstID is above the IDs of other operations in this life; 0: there are none.
	FirstID int64
	// Lease and Retention bound those of most requests.
	Lease, Retention time.Duration
	// Stale holds fences by key that may be used besides the known ones.
	Stale map[string][]uint64
	// MaxBytes bounds results and the like, as Options.MaxResult of the store does.
	MaxBytes int
}

// idsPerLife keeps the IDs of different lives apart.
const idsPerLife = 1_000_000

// Do runs the workload. It returns when all operations have been answered, or when the
// store was closed or broke, with the answer that said so. known holds the records of
// this life's audit; their tokens may be used.
func (w Workload) Do(ctx context.Context, s Subject, j *Journal, known map[string]Record) (ended error) {
	l := &load{Workload: w, s: s, j: j, tokens: map[string][]uint64{}}
	l.id.Store(max(int64(w.Life)*idsPerLife, w.FirstID))
	for key, r := range known {
		l.learn(key, r.Fence)
	}
	var wg sync.WaitGroup
	for n := range w.Workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			k := &worker{load: l, n: n, rng: rand.New(rand.NewPCG(w.Seed, uint64(w.Life)<<16|uint64(n)))}
			for !l.over.Load() && (w.Ops == 0 || l.done.Add(1) <= int64(w.Ops)) {
				k.act(ctx)
			}
		}()
	}
	wg.Wait()
	return l.ending()
}

// load is shared by the workers.
type load struct {
	Workload
	s    Subject
	j    *Journal
	id   atomic.Int64
	done atomic.Int64
	over atomic.Bool // the store is closed, or broken

	mu     sync.Mutex
	tokens map[string][]uint64 // fences by key, latest last
	ended  error               // the first answer that said so
}

// end records that err is the store's last answer.
func (l *load) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = err
	}
	l.over.Store(true)
}

func (l *load) ending() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

func (l *load) learn(key string, fence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.tokens[key]
	if fence == 0 || len(known) > 0 && known[len(known)-1] == fence {
		return
	}
	if len(known) == 4 {
		known = known[1:]
	}
	l.tokens[key] = append(known, fence)
}

type worker struct {
	*load
	n   int
	rng *rand.Rand
}

// chance returns true once in n times.
func (k *worker) chance(n int) bool { return k.rng.IntN(n) == 0 }

func (k *worker) key() string {
	n := k.rng.IntN(k.Keys)
	if k.chance(3) {
		n = k.rng.IntN(1 + k.Keys/4) // some are hot
	}
	return fmt.Sprintf("key %02d", n)
}

func (k *worker) op(kind Kind, key string) *Op {
	return &Op{ID: k.id.Add(1), Worker: k.n, Kind: kind, Key: key}
}

// lease returns a lease of up to d, and no shorter than a lease may be.
func (k *worker) lease(d time.Duration) int64 { return max(k.upTo(d), int64(time.Millisecond)) }

func (k *worker) upTo(d time.Duration) int64 { return 1 + k.rng.Int64N(int64(d)) }

// claim makes op a random claim and returns its request.
func (k *worker) claim(op *Op) idem.Request {
	op.Print = uint8([]int{0, 1, 1, 1, 2}[k.rng.IntN(5)])
	op.Lease, op.Retention, op.Unknown = k.lease(k.Lease), k.upTo(k.Retention), k.chance(12)
	if k.chance(8) {
		op.Lease = int64(time.Minute)
	}
	if k.chance(4) {
		op.Retention = int64(time.Hour)
	}
	if k.chance(6) {
		op.Attempts = 1 + k.rng.IntN(3)
	}
	return op.request()
}

func (o *Op) request() idem.Request {
	return idem.Request{
		Key: o.Key, Fingerprint: prints[o.Print], Lease: time.Duration(o.Lease),
		Retention: time.Duration(o.Retention), HoldUnknown: o.Unknown, MaxAttempts: o.Attempts,
	}
}

// bytes returns random bytes and records them in op.
func (k *worker) bytes(op *Op) []byte {
	var b []byte
	switch k.rng.IntN(16) {
	case 0: // nil
	case 1:
		b = []byte{}
	case 2:
		b = make([]byte, k.MaxBytes+1)
		op.TooLarge = true
	case 3, 4, 5:
		b = make([]byte, 1+k.rng.IntN(k.MaxBytes))
	default:
		b = make([]byte, 1+k.rng.IntN(100))
	}
	for i := 0; i < len(b); i += 8 {
		var word [8]byte
		binary.BigEndian.PutUint64(word[:], k.rng.Uint64())
		copy(b[i:], word[:])
	}
	if !op.TooLarge {
		op.Bytes = TextOf(b)
	}
	return b
}

// token picks a fence of op's key: mostly the latest, rarely one that was never
// granted.
func (k *worker) token(op *Op) idem.Token {
	k.mu.Lock()
	known := k.tokens[op.Key]
	op.Fence = 1 + k.rng.Uint64N(1000)
	if n := len(known); n > 0 && !k.chance(30) {
		op.Fence = known[n-1]
		if k.chance(6) {
			op.Fence = known[k.rng.IntN(n)]
		}
	}
	if stale := k.Stale[op.Key]; len(stale) > 0 && k.chance(3) {
		op.Fence = stale[k.rng.IntN(len(stale))]
	}
	k.mu.Unlock()
	return idem.Token{Key: op.Key, Fence: op.Fence}
}

func (k *worker) begin(ops ...*Op) {
	for _, op := range ops {
		k.j.add(&Event{Call: op})
	}
}

func (k *worker) end(op *Op, err error, a Answer) {
	a.ID = op.ID
	a.Err, a.Detail = codeOf(err)
	if a.Err == Closed || a.Err == Broken {
		k.load.end(err)
	}
	k.j.add(&Event{Return: &a})
	// Only now: the journal has to name a token before anyone uses it.
	if a.Record != nil {
		k.learn(op.Key, a.Record.Fence)
	}
}

// act does one random thing.
func (k *worker) act(ctx context.Context) {
	if k.chance(20) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(k.rng.Int64N(int64(2*time.Millisecond))))
		defer cancel()
	}
	p := k.rng.IntN(100)
	switch {
	case p < 26:
		op := k.op(Claim, k.key())
		r := k.claim(op)
		k.begin(op)
		c, err := k.s.Store.Claim(ctx, r)
		k.end(op, err, Answer{Record: RecordOf(c.Record)})
	case p < 30:
		k.claimMany(ctx)
	case p < 40:
		op := k.op(Get, k.key())
		k.begin(op)
		r, err := k.s.Store.Get(ctx, op.Key)
		k.end(op, err, Answer{Record: RecordOf(r)})
	case p < 43:
		op := k.op(Wait, k.key())
		ctx, cancel := context.WithTimeout(ctx, time.Duration(k.rng.Int64N(int64(10*time.Millisecond))))
		defer cancel()
		k.begin(op)
		r, err := k.s.Store.Wait(ctx, op.Key)
		k.end(op, err, Answer{Record: RecordOf(r)})
	case p < 47:
		op := k.op(Forget, k.key())
		k.begin(op)
		k.end(op, k.s.Store.Forget(ctx, idem.Token{Key: op.Key}), Answer{})
	case p < 49:
		op := k.op(Sweep, "")
		k.begin(op)
		_, err := k.s.Store.Sweep(ctx, 1+k.rng.IntN(8))
		k.end(op, err, Answer{})
	case p < 52:
		k.run(ctx)
	case p < 60:
		k.do(ctx)
	case p < 66:
		op := k.op(CompleteTx, k.key())
		tok := k.token(op)
		fn := k.effect(op)
		k.begin(op)
		k.end(op, k.s.Complete(ctx, tok, fn), Answer{})
	case p < 68:
		op := k.op(Update, "")
		fn := k.effect(op)
		k.begin(op)
		k.end(op, k.s.Update(ctx, func(kv KV) error { _, err := fn(kv); return err }), Answer{})
	case p < 71:
		k.completeMany(ctx)
	default:
		k.settle(ctx)
	}
}

func (k *worker) claimMany(ctx context.Context) {
	ops := make([]*Op, 1+k.rng.IntN(4))
	rs := make([]idem.Request, len(ops))
	for i := range ops {
		ops[i] = k.op(Claim, k.key()) // perhaps one key twice
		rs[i] = k.claim(ops[i])
	}
	k.begin(ops...)
	for i, r := range k.s.Store.ClaimMany(ctx, rs) {
		k.end(ops[i], r.Err, Answer{Record: RecordOf(r.Record)})
	}
}

func (k *worker) completeMany(ctx context.Context) {
	ops := make([]*Op, 1+k.rng.IntN(4))
	cs := make([]idem.Completion, len(ops))
	for i := range ops {
		ops[i] = k.op(Complete, k.key())
		cs[i] = idem.Completion{Token: k.token(ops[i]), Result: k.bytes(ops[i])}
	}
	k.begin(ops...)
	for i, err := range k.s.Store.CompleteMany(ctx, cs) {
		k.end(ops[i], err, Answer{})
	}
}

// settle does one operation with a token.
func (k *worker) settle(ctx context.Context) {
	kinds := []Kind{Complete, Complete, Complete, Fail, Release, Release, Unclaim, Hold, Extend, Extend, Checkpoint, Checkpoint}
	op := k.op(kinds[k.rng.IntN(len(kinds))], k.key())
	tok := k.token(op)
	var b []byte
	switch op.Kind {
	case Complete, Fail, Checkpoint:
		b = k.bytes(op)
	case Release, Hold: // an overlong text is cut
		b = k.bytes(op)
		op.TooLarge, op.Bytes = false, TextOf(b[:min(len(b), k.MaxBytes)])
	case Extend:
		if !k.chance(3) {
			op.Lease = k.lease(k.Lease)
		}
	}
	k.begin(op)
	var err error
	switch s := k.s.Store; op.Kind {
	case Complete:
		err = s.Complete(ctx, tok, b)
	case Fail:
		err = s.Fail(ctx, tok, b)
	case Release:
		err = s.Release(ctx, tok, b)
	case Unclaim:
		err = s.Unclaim(ctx, tok)
	case Hold:
		err = s.Hold(ctx, tok, b)
	case Extend:
		err = s.Extend(ctx, tok, time.Duration(op.Lease))
	case Checkpoint:
		err = s.Checkpoint(ctx, tok, b)
	}
	k.end(op, err, Answer{})
}

// effect returns the same-commit function of op. Some write and then fail, some of
// those for good.
func (k *worker) effect(op *Op) Effect {
	op.Amount = 1 + k.rng.Int64N(100)
	var fails error
	b := k.bytes(op)
	if op.Kind == Update {
		op.Bytes, op.TooLarge = "", false
	}
	if k.chance(6) {
		fails = errOwn
		op.Why = TextOf([]byte(errOwn.Error()))
		switch n := k.rng.IntN(6); {
		case op.Kind == Update:
		case n < 2:
			fails, op.Final = idem.Permanent(errOwn), true
		case n == 2:
			fails, op.Doubt = idem.Unknown(errOwn), true
		}
	}
	return reading(op, func(kv KV) ([]byte, error) {
		enter(kv, op)
		if fails != nil {
			return nil, fails
		}
		return bytes.Clone(b), nil
	})
}

// reading wraps fn to return an error where its KV panics because it cannot read. The
// error has the mark that op gives for its function's failure, because the oracle knows
// no other.
func reading(op *Op, fn Effect) Effect {
	return func(kv KV) (b []byte, err error) {
		defer func() {
			switch v := recover().(type) {
			case nil:
			case runtime.Error: // also a memory fault
				panic(v)
			case error:
				b, err = nil, readError{v}
				switch {
				case op.Final:
					err = idem.Permanent(err)
				case op.Doubt:
					err = idem.Unknown(err)
				}
			default:
				panic(v)
			}
		}()
		return fn(kv)
	}
}

// readError has the text of errOwn, which may end up in a record.
type readError struct{ cause error }

func (e readError) Error() string   { return errOwn.Error() }
func (e readError) Unwrap() []error { return []error{errOwn, e.cause} }

func (k *worker) do(ctx context.Context) {
	op := k.op(Do, k.key())
	r := k.claim(op)
	fn := k.effect(op)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(k.rng.Int64N(int64(20*time.Millisecond))))
	defer cancel()
	k.begin(op)
	result, replayed, err := k.s.Do(ctx, r, fn)
	k.end(op, err, Answer{Replayed: replayed, Bytes: TextOf(result)})
}

// run is idem.Do. In the journal it is a claim, which returns when the function is
// called, and a settlement, which is called when the function returns. The lease is
// long enough that no heartbeat falls in between.
func (k *worker) run(ctx context.Context) {
	claim := k.op(Run, k.key())
	r := k.claim(claim)
	claim.Lease, r.Lease = int64(10*time.Minute), 10*time.Minute
	settle := k.op(Complete, claim.Key)
	var fails error
	switch k.rng.IntN(8) {
	case 0:
		settle.Kind, fails = Release, errOwn
		if r.HoldUnknown {
			settle.Kind = Hold
		}
	case 1:
		settle.Kind, fails = Fail, idem.Permanent(errOwn)
	case 2:
		settle.Kind, fails = Hold, idem.Unknown(errOwn)
	case 3:
		settle.Kind, fails = Release, idem.Retryable(errOwn)
	}
	if fails != nil {
		settle.Bytes = TextOf([]byte(fails.Error()))
	}
	var b []byte
	if settle.Kind == Complete {
		b = k.bytes(settle)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(k.rng.Int64N(int64(20*time.Millisecond))))
	defer cancel()
	k.runs(ctx, claim, r, settle, b, fails)
}

// runs is idem.Do of r with a function that returns b and fails, together with the
// operations it stands for.
func (k *worker) runs(ctx context.Context, claim *Op, r idem.Request, settle *Op, b []byte, fails error) {
	undo := k.op(Undo, claim.Key)
	undo.Of, settle.Ends = claim.ID, true
	k.begin(claim, undo)
	ran := false
	value, replayed, err := idem.Do(ctx, k.s.Store, r, func(_ context.Context, c idem.Claim) ([]byte, error) {
		ran, settle.Fence = true, c.Token.Fence
		k.end(claim, nil, Answer{Record: RecordOf(c.Record)})
		k.end(undo, errOwn, Answer{}) // there is nothing to undo
		k.begin(settle)
		return b, fails
	})
	if !ran {
		k.end(claim, err, Answer{Replayed: replayed, Bytes: TextOf(value)})
		k.end(undo, err, Answer{})
		return
	}
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case fails != nil && ok:
		err = joined.Unwrap()[1] // fn's error, and that of the settlement
	case fails != nil:
		err = nil
	case err == nil && !bytes.Equal(value, b), errors.Is(err, idem.ErrTooLarge) && !settle.TooLarge:
		err = idem.ErrCompleted // with something else, which is what Run returns then
	}
	k.end(settle, err, Answer{})
}
