package idem_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/groupcommit"
	"github.com/idemkv/idem/internal/storetest"
)

// A claim brings what it read, and its completion what the claim left, so that
// neither is read for in the commit.
func TestCommitsNeedNoRead(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	known := func(want bool, what string, do func()) {
		t.Helper()
		before := b.Known.Load()
		do()
		assert.Equal(t, want, b.Known.Load() > before, what)
	}
	var c idem.Claim
	known(true, "a claim of a new key", func() { c = mustClaim(t, s, k) })
	known(true, "a checkpoint", func() { require.NoError(t, s.Checkpoint(ctx, c.Token, []byte("half"))) })
	known(true, "a long checkpoint", func() { require.NoError(t, s.Checkpoint(ctx, c.Token, make([]byte, 4<<10))) })
	known(false, "a record that is too large to keep", func() { require.NoError(t, s.Checkpoint(ctx, c.Token, []byte("half"))) })
	known(true, "an extension", func() { require.NoError(t, s.Extend(ctx, c.Token, time.Hour)) })
	other := idem.Token{Key: "other", Fence: c.Token.Fence}
	known(false, "a token of another key with this fence", func() {
		require.Equal(t, idem.ErrFenced, s.Complete(ctx, other, nil))
	})
	known(true, "a completion", func() { require.NoError(t, s.Complete(ctx, c.Token, []byte("r"))) })
	known(false, "the same again: what is settled is let go", func() {
		require.NoError(t, s.Complete(ctx, c.Token, []byte("r")))
	})
	known(false, "nothing is known to Forget", func() { require.NoError(t, s.Forget(ctx, idem.Token{Key: "k"})) })
	rs := s.ClaimMany(ctx, []idem.Request{{Key: "a"}, {Key: "b"}, {Key: "a"}})
	require.NoError(t, rs[0].Err)
	require.NoError(t, rs[1].Err)
	require.Equal(t, idem.ErrInFlight, rs[2].Err)
	assert.Zero(t, b.Mistaken.Load())
}

// Of claims that all found nothing one is granted: what the others saw is not
// current any more, whether the commit that changed it was under way when they
// looked or came after.
func TestWhatWasSeenIsOvertaken(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	ctx := t.Context()
	looked := make(chan struct{})
	b.AfterGet = func(string) {
		b.AfterGet = nil
		close(looked)
		mustClaim(t, s, k) // overtakes the reader
	}
	_, err := s.Claim(ctx, k)
	<-looked
	require.Equal(t, idem.ErrInFlight, err)

	// And by a commit that had begun.
	second := idem.Request{Key: "second"}
	var wg sync.WaitGroup
	b.OnCommit = func() error {
		b.OnCommit = nil
		wg.Add(1)
		read := make(chan struct{})
		b.AfterGet = func(string) { b.AfterGet = nil; close(read) }
		go func() {
			defer wg.Done()
			_, err := s.Claim(ctx, second)
			assert.Equal(t, idem.ErrInFlight, err)
		}()
		<-read
		return nil
	}
	mustClaim(t, s, second)
	wg.Wait()
	assert.Zero(t, b.Mistaken.Load())
}

// passes is a stub that commits as the engines on disk do: those who wait share a
// commit, and a same-commit function may spoil it, so that it is begun again without
// those that failed. plan says after how many operations each pass is spoiled that is.
type passes struct {
	storetest.Rich
	queue  *groupcommit.Queue[*job]
	plan   func(ops int) []int
	shared atomic.Int64 // commits of several operations
}

type job struct {
	groupcommit.Ticket
	ops []engine.Op
	err error
}

func newPasses(plan func(ops int) []int) *passes {
	b := &passes{Rich: storetest.NewRich(), plan: plan}
	b.queue = groupcommit.New(1<<20, nil, b.run)
	return b
}

func (b *passes) Apply(ctx context.Context, ops []engine.Op) error {
	j := &job{ops: ops}
	if err := b.queue.Do(ctx, j, len(ops)); err != nil {
		return err
	}
	return j.err
}

func (b *passes) run(jobs []*job) (answered int, after func()) {
	var ops []engine.Op
	for _, j := range jobs {
		ops = append(ops, j.ops...)
	}
	if len(ops) > 1 {
		b.shared.Add(1)
	}
	for _, until := range b.plan(len(ops)) {
		ops = b.spoil(ops, min(until, len(ops)))
	}
	_, err := b.Commit(ops)
	for _, j := range jobs {
		j.err = err
	}
	return len(jobs), nil
}

// spoil runs the first of ops on a copy that it throws away, and returns those that
// are to be run again.
func (b *passes) spoil(ops []engine.Op, until int) (again []engine.Op) {
	entries := maps.Clone(b.Entries)
	for _, op := range ops[:until] {
		key, readErr := op.Key(), b.ReadErr(op.Key())
		cur := entries[key]
		if e, known := op.Current(); known && readErr == nil {
			b.Known.Add(1)
			if e != cur {
				b.Mistaken.Add(1)
			}
		}
		if readErr != nil {
			cur = nil
		}
		next, wrote := op.Run(cur, readErr)
		if f := op.Effect(); f != nil {
			result, err := f.(storetest.Effect)()
			next, wrote = op.Finish(result, err)
			if err != nil {
				continue
			}
		}
		again = append(again, op)
		if wrote {
			entries[key] = next
		}
	}
	return append(again, ops[until:]...)
}

// An operation that was to change its entry in a pass that was spoiled, and
// is not any more: what came after it in the pass reads again, and so does whoever
// looked meanwhile.
func TestSeenInSpoiledPasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newPasses(func(ops int) []int { return []int{2, 2}[:2*(ops/3)] })
		s := open(t, b, idem.Options{SweepInterval: -1})
		ctx := t.Context()
		stalled := make(chan struct{}) // each commit, when all has run
		b.OnCommit = func() error { <-stalled; return nil }
		runs := 0
		fickle := storetest.Effect(func() ([]byte, error) {
			if runs++; runs > 1 {
				return nil, storetest.ErrDisk
			}
			return []byte("done"), nil
		})
		var claim, other idem.Claim
		var errs [4]error
		for _, call := range []func(){
			func() { mustClaim(t, s, idem.Request{Key: "before"}) },
			func() { _, _, errs[0] = s.DoEffect(ctx, k, fickle) },
			func() { claim, errs[1] = s.Claim(ctx, k) },
			func() { other, errs[2] = s.Claim(ctx, idem.Request{Key: "other"}) },
		} {
			go call()
			synctest.Wait()
		}
		known := b.Known.Load()
		stalled <- struct{}{}
		synctest.Wait()
		go func() { _, errs[3] = s.Claim(ctx, k) }() // sees nothing yet
		synctest.Wait()
		close(stalled)
		synctest.Wait()
		require.Equal(t, []error{storetest.ErrDisk, nil, nil, idem.ErrInFlight}, errs[:])
		require.Equal(t, 2, runs, "what failed is not run again")
		require.EqualValues(t, 2, b.Known.Load()-known, "the function's operation in the first pass, and the other key's in the last")
		require.NoError(t, s.Complete(ctx, claim.Token, nil))
		require.NoError(t, s.Complete(ctx, other.Token, nil))
		require.Zero(t, b.Mistaken.Load())
	})
}

// Whatever is done to a few keys at once, and however it is committed, what an
// operation brings along is what the engine has, or is not used: claims and token
// operations, alone and in batches that name a key twice, Forget, also of what
// cannot be read, sweeps, claims that are refused for room, functions in
// the commit that fail or change their mind, and a commit that fails.
func TestSeenIsNeverMistaken(t *testing.T) {
	t.Parallel()
	random := func(ops int) (until []int) {
		for range rand.IntN(3) {
			until = append(until, rand.IntN(ops+1))
		}
		return until
	}
	for _, b := range []*passes{{Rich: storetest.NewRich()}, newPasses(random)} {
		name, backend := "one by one", engine.Backend(b.Rich)
		if b.queue != nil {
			name, backend = "in passes", b
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, backend, idem.Options{SweepInterval: -1, Lease: time.Millisecond, Clock: hastyClock{newClock()}})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					c := &seenCaller{s: s, stub: b.Stub}
					for range 300 {
						if err := c.step(); errors.Is(err, idem.ErrInvalid) || errors.Is(err, idem.ErrBroken) {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			assert.Zero(t, b.Mistaken.Load())
			assert.Positive(t, b.Known.Load())
			if b.queue != nil {
				assert.Positive(t, b.shared.Load())
			}
			b.Damage()
			b.Full.Store(false)
			token := mustClaim(t, s, idem.Request{Key: "last"}).Token
			b.Breaking.Store(true)
			require.ErrorIs(t, s.Complete(context.Background(), token, nil), idem.ErrBroken)
			known := b.Known.Load()
			require.ErrorIs(t, s.Complete(context.Background(), token, nil), idem.ErrBroken)
			_, err := s.Claim(context.Background(), idem.Request{Key: "last"})
			require.ErrorIs(t, err, idem.ErrBroken)
			require.Equal(t, known, b.Known.Load(), "a broken store decided something")
		})
	}
}

// hastyClock goes on by a tenth of a millisecond whenever it is read.
// Timers fire at once.
type hastyClock struct{ *idemtest.Clock }

func (c hastyClock) Now() (time.Time, time.Duration) {
	c.Advance(time.Millisecond / 10)
	return c.Clock.Now()
}

func (c hastyClock) AfterFunc(_ time.Duration, f func()) func() bool { return c.Clock.AfterFunc(0, f) }

// seenCaller does anything to a few keys.
type seenCaller struct {
	s      *idem.Store
	stub   *storetest.Stub
	tokens []idem.Token
}

func (c *seenCaller) request() idem.Request {
	r := idem.Request{Key: fmt.Sprint("k", rand.IntN(5))}
	if rand.IntN(2) == 0 {
		r.Retention = time.Nanosecond
	}
	return r
}

func (c *seenCaller) claimed(claim idem.Claim, err error) error {
	if err == nil {
		c.tokens = append(c.tokens, claim.Token)
	}
	return err
}

func (c *seenCaller) step() error {
	ctx := context.Background()
	fickle := storetest.Effect(func() ([]byte, error) {
		if rand.IntN(3) == 0 {
			return nil, storetest.ErrDisk
		}
		return []byte("done"), nil
	})
	switch rand.IntN(24) {
	case 0:
		return c.s.Forget(ctx, idem.Token{Key: c.request().Key})
	case 1:
		_, err := c.s.Sweep(ctx, 1+rand.IntN(5))
		return err
	case 2:
		c.stub.Damage(c.request().Key)
		return nil
	case 3:
		c.stub.Full.Store(rand.IntN(2) == 0)
		return nil
	case 4, 5, 6:
		_, _, err := c.s.DoEffect(ctx, c.request(), fickle)
		return err
	case 7, 8:
		var errs error
		for _, r := range c.s.ClaimMany(ctx, []idem.Request{c.request(), c.request(), c.request(), c.request()}) {
			errs = errors.Join(errs, c.claimed(r.Claim, r.Err))
		}
		return errs
	case 9, 10, 11, 12, 13, 14:
		return c.claimed(c.s.Claim(ctx, c.request()))
	}
	if len(c.tokens) == 0 {
		return nil
	}
	token := c.tokens[len(c.tokens)-1-rand.IntN(min(len(c.tokens), 8))]
	switch rand.IntN(7) {
	case 0:
		return c.s.Complete(ctx, token, nil)
	case 1:
		return c.s.Release(ctx, token, nil)
	case 2:
		return c.s.Extend(ctx, token, 0)
	case 3:
		return c.s.Checkpoint(ctx, token, []byte("half"))
	case 4:
		return c.s.Hold(ctx, token, nil)
	case 5:
		return c.s.CompleteEffect(ctx, token, fickle)
	}
	return errors.Join(c.s.CompleteMany(ctx, []idem.Completion{{Token: token}, {Token: token, Result: []byte("other")}})...)
}
