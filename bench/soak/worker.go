package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/idemkv/idem"
)

// worker does one step of the mix after the other.
type worker struct {
	*run
	id   int
	rng  *rand.Rand
	stop context.Context // of pacing; the calls themselves are not cut short
	keys int
	note func() // sabotage of a test
}

func newWorker(r *run, id int) *worker {
	w := &worker{run: r, id: id, rng: rand.New(rand.NewPCG(r.seed, uint64(id)))}
	if r.sabotage != nil {
		w.note = r.sabotage(id)
	}
	return w
}

// step is a kind of work and how often it is done.
type step struct {
	weight int
	do     func(*worker)
}

var steps = []step{
	{30, (*worker).fresh},
	{15, (*worker).hot},
	{20, (*worker).old},
	{6, (*worker).takeOver},
	{5, (*worker).again},
	{5, (*worker).get},
	{4, (*worker).waitFor},
	{4, (*worker).doOnce},
	{2, (*worker).batch},
	{6, (*worker).inCommit},
}

func (w *worker) work(stop context.Context) {
	w.stop = stop
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	for w.goOn(stop) {
		n := w.rng.IntN(total)
		for _, s := range steps {
			if n -= s.weight; n < 0 {
				s.do(w)
				break
			}
		}
	}
}

// call paces, measures and counts one call of the store.
func (w *worker) call(c class, f func(ctx context.Context) error) error {
	return w.callOf(func(error) class { return c }, f)
}

// callOf is call where the class shows in the answer.
func (w *worker) callOf(c func(error) class, f func(ctx context.Context) error) error {
	await(w.stop, w.limiter)
	if w.note != nil {
		w.note()
	}
	start := time.Now()
	err := f(context.Background())
	w.meter.add(c(err), time.Since(start))
	w.left.Add(-1)
	return err
}

// newKey returns a key that nobody has used.
func (w *worker) newKey(kind string) string {
	w.keys++
	return fmt.Sprintf("%s-%d-%d", kind, w.id, w.keys)
}

const effectKind = "effect"

func isEffect(key string) bool { return strings.HasPrefix(key, effectKind+"-") }

// claim claims a key, and holds every grant to the rule that its fence is above all
// that were known before.
func (w *worker) claim(req idem.Request) (claim idem.Claim, err error) {
	known := w.fence.Load()
	kind := func(err error) class {
		switch {
		case err != nil:
			return claimDuplicate
		case claim.Record.Attempt > 1:
			return claimNext
		}
		return claimNew
	}
	err = w.callOf(kind, func(ctx context.Context) error {
		claim, err = w.store.Claim(ctx, req)
		return err
	})
	if err == nil {
		w.granted(claim, known)
	}
	return claim, err
}

// granted notes the fence of a claim, which was asked for when known was the highest.
func (w *worker) granted(claim idem.Claim, known uint64) {
	fence := claim.Token.Fence
	if fence <= known {
		w.trouble.add("key %q was granted with fence %d when %d was known already", claim.Token.Key, fence, known)
	}
	for {
		highest := w.fence.Load()
		if fence <= highest || w.fence.CompareAndSwap(highest, fence) {
			return
		}
	}
}

// complete completes the claim, and expects it to be accepted: nobody else has it.
func (w *worker) complete(claim idem.Claim) {
	result := resultOf(claim.Token.Key, claim.Token.Fence)
	w.must(claim.Token.Key, w.call(complete, func(ctx context.Context) error {
		return w.store.Complete(ctx, claim.Token, result)
	}))
	w.recent.put(claim.Token.Key, w.now())
}

// must complains about an error where none is right.
func (w *worker) must(key string, err error) bool {
	if err != nil {
		w.trouble.add("key %q: %v", key, err)
	}
	return err == nil
}

// expect complains about any answer but one.
func (w *worker) expect(key string, err, want error) bool {
	ok := errors.Is(err, want)
	if !ok {
		w.trouble.add("key %q got %v in place of: %v", key, err, want)
	}
	return ok
}

// replayed checks a record that a duplicate, a reader or a waiter was given.
func (w *worker) replayed(key string, r idem.Record) {
	if err := badReplay(key, r); err != nil {
		w.trouble.add("%v", err)
	}
}
