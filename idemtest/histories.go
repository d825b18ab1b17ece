package idemtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

const (
	historiesEnv = "IDEMTEST_HISTORIES" // how many histories Run checks
	seedEnv      = "IDEMTEST_SEED"      // of the first of them
)

// Histories checks n random concurrent histories of the engine of h for
// linearizability, key by key. The first uses seed, and each of the others the seed
// after. In each, several goroutines use a few keys while the clock moves on: leases
// lapse and are taken over, records expire and are swept, calls are cancelled, and the
// store is closed and reopened, or killed.
//
// If no order of its operations explains a history, the test fails, with the seed and a
// command to try it again. The seed fixes what is asked, not how the goroutines
// interleave. It may therefore take several tries.
func Histories(t *testing.T, h Harness, n int, seed uint64) {
	t.Helper()
	const lanes = 8 // histories that run at once
	for lane := range min(lanes, n) {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, h)
			for i := lane; i < n && !t.Failed(); i += lanes {
				runHistory(e, seed+uint64(i), filepath.Join(e.t.TempDir(), strconv.Itoa(i)))
			}
		})
	}
}

// runHistories is Histories as Run calls it.
func runHistories(t *testing.T, h Harness) {
	n := cmp.Or(h.Histories, 210/race.Share)
	if testing.Short() {
		n = cmp.Or(h.Histories, 20)
	}
	seed := rand.Uint64N(1 << 48)
	for env, set := range map[string]func(uint64){
		historiesEnv: func(v uint64) { n = int(v) },
		seedEnv:      func(v uint64) { seed = v },
	} {
		if text := os.Getenv(env); text != "" {
			v, err := strconv.ParseUint(text, 10, 64)
			require.NoError(t, err, env)
			set(v)
		}
	}
	t.Logf("%d histories from seed %d", n, seed)
	Histories(t, h, n, seed)
}

// history is one run: its settings, and what was done.
type history struct {
	e    *env
	seed uint64
	o    idem.Options
	keys []string

	now     atomic.Int64 // orders calls and returns
	opening int          // the store's, from 1

	mu     sync.Mutex
	log    []porcupine.Operation
	tokens []idem.Token // granted so far, the latest last
}

// call is what one call asked of one key.
type call struct {
	kind      string
	key       string
	fence     uint64 // of the token passed
	print     idem.Fingerprint
	lease     time.Duration
	retention time.Duration
	unknown   bool
	bytes     []byte
	before    time.Duration // elapsed time when it was asked
	opening   int
}

// answer is the result of a call.
type answer struct {
	err    error
	record idem.Record
	after  time.Duration // elapsed time when it was answered
}

func runHistory(e *env, seed uint64, dir string) {
	rng := rand.New(rand.NewPCG(seed, 0))
	mkdir(e.t, dir)
	e.dir, e.clock = dir, NewClock(start)
	e.wrap = func(b engine.Backend) engine.Backend { return &yieldingEngine{spy{Backend: b}} }
	h := &history{e: e, seed: seed, opening: 1, o: idem.Options{
		MaxAttempts: []int{0, 0, 3}[rng.IntN(3)],
		LapseOnOpen: rng.IntN(3) == 0,
		SweepSlice:  4,
		Lease:       5 * time.Millisecond,
		Retention:   20 * time.Millisecond,
		Clock:       yieldingClock{e.clock},
	}}
	if rng.IntN(3) == 0 {
		h.o.CacheBytes = -1
	}
	for i := range 2 + rng.IntN(2) {
		h.keys = append(h.keys, fmt.Sprint("key ", i))
	}
	e.open(h.o)
	lives := 1 + rng.IntN(3)
	for life := range lives {
		h.live(rng)
		if life == lives-1 {
			break
		}
		if e.h.Volatile { // the next life of the same engine
			continue
		}
		if e.clock.Advance(time.Duration(rng.IntN(3)) * time.Millisecond); e.h.Crash != nil && rng.IntN(2) == 0 {
			e.crash()
		} else {
			e.reopen()
		}
		h.opening++
	}
	e.close()
	h.check()
}

// live runs rounds in which each goroutine does one thing, all at once, while the clock
// moves on.
func (h *history) live(rng *rand.Rand) {
	const workers, rounds = 4, 14
	rngs := make([]*rand.Rand, workers+1)
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
	}
	for range rounds {
		h.e.together(workers+1, func(w int) {
			if w < workers {
				h.act(w, rngs[w])
				return
			}
			for range rngs[w].IntN(4) {
				h.e.clock.Advance(time.Duration(rngs[w].IntN(int(4 * time.Millisecond))))
				runtime.Gosched()
			}
		})
	}
}

// act does one random thing.
func (h *history) act(client int, rng *rand.Rand) {
	ctx, cancel := context.WithCancel(h.e.ctx)
	defer cancel()
	switch rng.IntN(16) {
	case 0:
		go cancel()
	case 1, 2:
		looks := &looksCtx{Context: ctx, cancel: cancel}
		looks.left.Store(1 + rng.Int64N(5))
		ctx = looks
	}
	s := h.e.s
	c := call{key: h.keys[rng.IntN(len(h.keys))]}
	p := rng.IntN(100)
	switch {
	case p < 36:
		h.claim(&c, rng)
		rs := []idem.Request{c.request()}
		if rng.IntN(6) > 0 {
			h.do(client, []*call{&c}, func() []answer {
				claim, err := s.Claim(ctx, rs[0])
				return []answer{{err: err, record: claim.Record}}
			})
			return
		}
		other := call{key: h.keys[rng.IntN(len(h.keys))]}
		h.claim(&other, rng)
		if other.key == c.key { // the second answer depends on the first: two operations at one instant
			return
		}
		rs = append(rs, other.request())
		h.do(client, []*call{&c, &other}, func() []answer {
			var as []answer
			for _, r := range s.ClaimMany(ctx, rs) {
				as = append(as, answer{err: r.Err, record: r.Record})
			}
			return as
		})
	case p < 46:
		c.kind = "get"
		h.do(client, []*call{&c}, func() []answer {
			r, err := s.Get(ctx, c.key)
			return []answer{{err: err, record: r}}
		})
	case p < 49:
		c.kind = "forget"
		h.do(client, []*call{&c}, func() []answer { return []answer{{err: s.Forget(ctx, idem.Token{Key: c.key})}} })
	case p < 56:
		if h.e.canExpire() { // changes nothing visible, so it is not logged
			if _, err := s.Sweep(ctx, 1+rng.IntN(5)); err != nil && !errors.Is(err, context.Canceled) {
				h.e.t.Errorf("seed %d: Sweep: %v", h.seed, err)
			}
		}
	default:
		tok := h.token(rng, c.key)
		c.key, c.fence = tok.Key, tok.Fence
		if c.bytes = []byte{byte('a' + rng.IntN(3))}; rng.IntN(6) == 0 {
			c.bytes = nil
		}
		ops := []struct {
			kind string
			do   func() error
		}{
			{"complete", func() error { return s.Complete(ctx, tok, c.bytes) }},
			{"complete", func() error { return s.CompleteMany(ctx, []idem.Completion{{Token: tok, Result: c.bytes}})[0] }},
			{"fail", func() error { return s.Fail(ctx, tok, c.bytes) }},
			{"release", func() error { return s.Release(ctx, tok, c.bytes) }},
			{"unclaim", func() error { return s.Unclaim(ctx, tok) }},
			{"forget", func() error { return s.Forget(ctx, tok) }},
			{"hold", func() error { return s.Hold(ctx, tok, c.bytes) }},
			{"extend", func() error { return s.Extend(ctx, tok, c.lease) }},
			{"extend", func() error { return s.Extend(ctx, tok, c.lease) }},
			{"checkpoint", func() error { return s.Checkpoint(ctx, tok, c.bytes) }},
		}
		op := ops[rng.IntN(len(ops))]
		c.kind = op.kind
		if rng.IntN(2) == 0 {
			c.lease = randomLease(rng)
		}
		h.do(client, []*call{&c}, func() []answer { return []answer{{err: op.do()}} })
	}
}

// yield now and then lets other goroutines go first. Calls of a fast engine end before
// another goroutine is scheduled. Without yield nothing would overlap.
func yield() {
	for rand.IntN(2) == 0 {
		runtime.Gosched()
	}
}

// yieldingClock yields where the time is read, which is in the middle of a decision.
type yieldingClock struct{ *Clock }

func (c yieldingClock) Now() (time.Time, time.Duration) {
	yield()
	defer yield()
	return c.Clock.Now()
}

// yieldingEngine yields before and after each call.
type yieldingEngine struct{ spy }

func (b *yieldingEngine) Read(ctx context.Context, key string) (*engine.Entry, error) {
	yield()
	defer yield()
	return b.Backend.Read(ctx, key)
}

func (b *yieldingEngine) Apply(ctx context.Context, ops []engine.Op) error {
	yield()
	defer yield()
	return b.Backend.Apply(ctx, ops)
}

// looksCtx ends when it is checked for the nth time. So it can end at every place that
// checks it.
type looksCtx struct {
	context.Context
	cancel context.CancelFunc
	left   atomic.Int64
}

func (c *looksCtx) look() {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
}

func (c *looksCtx) Done() <-chan struct{} {
	c.look()
	return c.Context.Done()
}

func (c *looksCtx) Err() error {
	c.look()
	return c.Context.Err()
}

// claim makes c a random claim.
func (h *history) claim(c *call, rng *rand.Rand) {
	c.kind = "claim"
	c.print = []idem.Fingerprint{{}, printA, printA, printB}[rng.IntN(4)]
	c.lease, c.retention, c.unknown = randomLease(rng), randomTime(rng), rng.IntN(6) == 0
	if rng.IntN(4) == 0 {
		c.retention = time.Hour
	}
}

func randomTime(rng *rand.Rand) time.Duration {
	return 1 + time.Duration(rng.Int64N(int64(20*time.Millisecond)))
}

func randomLease(rng *rand.Rand) time.Duration {
	return time.Millisecond + time.Duration(rng.Int64N(int64(19*time.Millisecond)))
}

func (c *call) request() idem.Request {
	return idem.Request{Key: c.key, Fingerprint: c.print, Lease: c.lease, Retention: c.retention, HoldUnknown: c.unknown}
}

// token picks a token: mostly the latest, otherwise an old one or one that was never
// granted.
func (h *history) token(rng *rand.Rand, key string) idem.Token {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.tokens)
	switch {
	case n == 0 || rng.IntN(20) == 0:
		return idem.Token{Key: key, Fence: 1 + rng.Uint64N(1000)}
	case rng.IntN(4) > 0:
		return h.tokens[n-1-rng.IntN(min(n, len(h.keys)))]
	}
	return h.tokens[rng.IntN(n)]
}

// do calls f and logs it as an operation on each of the keys.
func (h *history) do(client int, calls []*call, f func() []answer) {
	_, before := h.e.clock.Now()
	called := h.now.Add(1)
	answers := f()
	returned := h.now.Add(1)
	_, after := h.e.clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, c := range calls {
		c.before, c.opening = before, h.opening
		a := answers[i]
		a.after = after
		h.log = append(h.log, porcupine.Operation{ClientId: client, Input: *c, Call: called, Output: a, Return: returned})
		if c.kind == "claim" && a.err == nil {
			h.tokens = append(h.tokens, a.record.Token())
		}
	}
}

// check looks for an order of the operations that explains the answers.
func (h *history) check() {
	t := h.e.t
	t.Helper()
	m := historyModel{maxAttempts: h.o.MaxAttempts, lapseOnOpen: h.o.LapseOnOpen}
	wrong := h.checkFences()
	for _, ops := range byKeyOf(h.log) {
		if wrong != "" {
			break
		}
		if !porcupine.CheckOperations(m.porcupine(), ops) {
			wrong = "no order of these operations explains their answers:\n" + describe(ops)
		}
	}
	if wrong == "" {
		return
	}
	run := strings.Split(t.Name(), "/")
	for i, part := range run {
		run[i] = "^" + part + "$"
	}
	t.Errorf("history with seed %d: %s\nTry it again:\n\t%s=1 %s=%d go test -race -count=100 -failfast -run '%s' .",
		h.seed, wrong, historiesEnv, seedEnv, h.seed, strings.Join(run[:len(run)-1], "/"))
}

// checkFences: over all keys, no fence is granted twice, and later fences are larger.
func (h *history) checkFences() string {
	var grants []porcupine.Operation
	for _, op := range h.log {
		if op.Input.(call).kind == "claim" && op.Output.(answer).err == nil {
			grants = append(grants, op)
		}
	}
	fence := func(op porcupine.Operation) uint64 { return op.Output.(answer).record.Fence }
	slices.SortFunc(grants, func(a, b porcupine.Operation) int { return cmp.Compare(fence(a), fence(b)) })
	latest := int64(0) // call of any grant with a smaller fence
	for i, op := range grants {
		if i > 0 && fence(op) == fence(grants[i-1]) {
			return fmt.Sprintf("fence %d was granted twice:\n%s", fence(op), describe(grants[i-1:i+1]))
		}
		if op.Return < latest {
			return fmt.Sprintf("fence %d is larger than one granted later:\n%s", fence(op), describe(grants[:i+1]))
		}
		latest = max(latest, op.Call)
	}
	return ""
}

func byKeyOf(log []porcupine.Operation) map[string][]porcupine.Operation {
	by := map[string][]porcupine.Operation{}
	for _, op := range log {
		key := op.Input.(call).key
		by[key] = append(by[key], op)
	}
	return by
}

func describe(ops []porcupine.Operation) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var out strings.Builder
	for _, op := range ops {
		c, a := op.Input.(call), op.Output.(answer)
		fmt.Fprintf(&out, "%4d-%-4d goroutine %d, opening %d, %v to %v: %s %q", op.Call, op.Return, op.ClientId, c.opening, c.before, a.after, c.kind, c.key)
		switch c.kind {
		case "claim":
			fmt.Fprintf(&out, " print %x lease %v retention %v unknown %v", c.print[:2], c.lease, c.retention, c.unknown)
		case "extend":
			fmt.Fprintf(&out, " fence %d lease %v", c.fence, c.lease)
		case "get":
		default:
			fmt.Fprintf(&out, " fence %d bytes %q", c.fence, c.bytes)
		}
		fmt.Fprintf(&out, " -> %v", a.err)
		if r := a.record; r.State != 0 {
			fmt.Fprintf(&out, "; %v fence %d attempt %d print %x claimed %v lease until %v expires %v result %q checkpoint %q",
				r.State, r.Fence, r.Attempt, r.Fingerprint[:2], elapsedAt(r.ClaimedAt), elapsedAt(r.LeaseUntil), elapsedAt(r.ExpiresAt), r.Result, r.Checkpoint)
		}
		out.WriteByte('\n')
	}
	return out.String()
}
