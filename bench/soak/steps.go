package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/robustness/oracle"
)

// fresh claims a new key and ends the claim in one of the ways there are.
func (w *worker) fresh() {
	req := idem.Request{Key: w.newKey("key")}
	keep := !w.warm.Load() && w.rng.IntN(4) == 0 && !w.kept.full()
	abandon := !keep && w.rng.IntN(100) < 8
	switch {
	case keep:
		req.Retention = keptRetention
	case abandon:
		req.Lease = w.lease()
	}
	from := w.now()
	claim, err := w.claim(req)
	if !w.must(req.Key, err) {
		return
	}
	left := open{claim, from, w.now()}
	if w.rng.IntN(100) < 15 {
		w.must(req.Key, w.call(checkpoint, func(ctx context.Context) error {
			return w.store.Checkpoint(ctx, claim.Token, point(claim.Token))
		}))
	}
	if abandon {
		w.lapsing.put(left)
		return
	}
	if w.rng.IntN(100) < 10 {
		w.must(req.Key, w.call(extend, func(ctx context.Context) error {
			return w.store.Extend(ctx, claim.Token, 0)
		}))
	}
	if keep {
		w.complete(claim)
		w.kept.put(req.Key)
		return
	}
	switch end := w.rng.IntN(100); {
	case end < 8:
		w.must(req.Key, w.call(fail, func(ctx context.Context) error {
			return w.store.Fail(ctx, claim.Token, resultOf(req.Key, claim.Token.Fence))
		}))
		w.recent.put(req.Key, w.now())
	case end < 18:
		w.must(req.Key, w.call(release, func(ctx context.Context) error { return w.store.Release(ctx, claim.Token, nil) }))
		w.released.put(left)
	case end < 21:
		w.must(req.Key, w.call(hold, func(ctx context.Context) error { return w.store.Hold(ctx, claim.Token, []byte("no answer")) }))
		_, err := w.claim(req)
		w.expect(req.Key, err, idem.ErrHeld)
		w.complete(claim)
	default:
		w.complete(claim)
	}
}

// point is the checkpoint that a claim saves.
func point(t idem.Token) []byte {
	return binary.BigEndian.AppendUint64([]byte("half way, fence "), t.Fence)
}

const hotKeys = 16

// hot claims one of a few keys that everybody wants.
func (w *worker) hot() { w.duplicate(fmt.Sprint("hot-", w.rng.IntN(hotKeys))) }

// old claims a key that was finished some time ago, also one that is long gone.
func (w *worker) old() {
	if key, ok := w.recent.pick(w.rng.IntN); ok && !isEffect(key) {
		w.duplicate(key)
	}
}

// duplicate claims a key that others have used, and completes what it is granted.
func (w *worker) duplicate(key string) {
	claim, err := w.claim(idem.Request{Key: key})
	switch {
	case err == nil:
		w.complete(claim)
	case errors.Is(err, idem.ErrCompleted), errors.Is(err, idem.ErrFailed):
		w.replayed(key, claim.Record)
	case !errors.Is(err, idem.ErrInFlight):
		w.must(key, err)
	}
}

// takeOver claims a key whose lease has lapsed; the claim before has then lost it.
func (w *worker) takeOver() {
	o, ok := w.lapsing.takeIf(func(o open) bool { return w.now() >= o.until+w.lease() })
	if !ok {
		w.fresh()
		return
	}
	key := o.claim.Token.Key
	claim, err := w.claim(idem.Request{Key: key})
	if !w.must(key, err) {
		return
	}
	w.inherits(o, claim, w.lease()+w.retention)
	w.expect(key, w.call(complete, func(ctx context.Context) error {
		return w.store.Complete(ctx, o.claim.Token, []byte("too late"))
	}), idem.ErrFenced)
	w.complete(claim)
}

// again claims a key that was released.
func (w *worker) again() {
	o, ok := w.released.takeIf(func(open) bool { return true })
	if !ok {
		w.fresh()
		return
	}
	key := o.claim.Token.Key
	claim, err := w.claim(idem.Request{Key: key})
	if !w.must(key, err) {
		return
	}
	w.inherits(o, claim, w.retention)
	w.complete(claim)
}

// inherits checks that a claim is of the attempt after o, or that o, which lives for
// so long at least, had expired.
func (w *worker) inherits(o open, next idem.Claim, lives time.Duration) {
	switch r := next.Record; {
	case r.Attempt == 2:
		if r.Checkpoint != nil && string(r.Checkpoint) != string(point(o.claim.Token)) {
			w.trouble.add("key %q: attempt 2 found the checkpoint %q", r.Key, r.Checkpoint)
		}
	case r.Attempt != 1 || !w.longAgo(o.from, lives):
		w.trouble.add("key %q: attempt %d came after attempt 1, which lives for %v and is %v old",
			r.Key, r.Attempt, lives, w.now()-o.from)
	}
}

// longAgo reports whether what was done at from or later, and is kept for so long,
// may have expired by now. The retention is short and a machine can be slow.
func (w *worker) longAgo(from, kept time.Duration) bool { return w.now() >= from+kept }

// get reads a finished key.
func (w *worker) get() {
	key, ok := w.recent.pick(w.rng.IntN)
	if !ok {
		return
	}
	var r idem.Record
	err := w.call(get, func(ctx context.Context) (err error) {
		r, err = w.store.Get(ctx, key)
		return err
	})
	if errors.Is(err, idem.ErrNotFound) || !w.must(key, err) {
		return
	}
	if r.State.Final() {
		w.replayed(key, r)
	}
}

// waitFor has somebody wait for a claim of ours.
func (w *worker) waitFor() {
	key, from := w.newKey("wait"), w.now()
	claim, err := w.claim(idem.Request{Key: key})
	if !w.must(key, err) {
		return
	}
	var r idem.Record
	heard := make(chan error, 1)
	go func() {
		start := time.Now()
		var err error
		r, err = w.store.Wait(context.Background(), key)
		w.meter.add(wait, time.Since(start))
		heard <- err
	}()
	w.complete(claim)
	err = <-heard
	if errors.Is(err, idem.ErrNotFound) && w.longAgo(from, w.retention) {
		return
	}
	if w.must(key, err) {
		w.replayed(key, r)
	}
}

// doOnce has three callers at once do one operation.
func (w *worker) doOnce() {
	const callers = 3
	key, from := w.newKey("do"), w.now()
	runs := make(chan idem.Claim, callers)
	values, errs := make([][]byte, callers), make([]error, callers)
	known := w.fence.Load()
	err := w.call(do, func(ctx context.Context) error {
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				values[i], _, errs[i] = idem.Do(ctx, w.store, idem.Request{Key: key},
					func(_ context.Context, claim idem.Claim) ([]byte, error) {
						runs <- claim
						return resultOf(key, claim.Token.Fence), nil
					})
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	if !w.must(key, err) {
		return
	}
	if len(runs) != 1 && !w.longAgo(from, w.retention) {
		w.trouble.add("key %q was done %d times by callers at once", key, len(runs))
	}
	if len(runs) != 1 {
		return
	}
	claim := <-runs
	w.granted(claim, known)
	for _, v := range values {
		w.replayed(key, idem.Record{Key: key, Fence: claim.Token.Fence, Result: v})
	}
	w.recent.put(key, w.now())
}

// batch claims several keys in one commit, one of them twice, and completes them.
func (w *worker) batch() {
	reqs := make([]idem.Request, 8)
	for i := range reqs {
		reqs[i].Key = w.newKey("many")
	}
	reqs = append(reqs, reqs[0])
	known := w.fence.Load()
	var got []idem.ClaimResult
	_ = w.call(many, func(ctx context.Context) error { got = w.store.ClaimMany(ctx, reqs); return nil })
	twice := got[len(got)-1]
	w.expect(twice.Record.Key, twice.Err, idem.ErrInFlight)
	var done []idem.Completion
	for _, c := range got[:len(got)-1] {
		if !w.must(c.Record.Key, c.Err) {
			continue
		}
		w.granted(c.Claim, known)
		known = max(known, c.Token.Fence)
		done = append(done, idem.Completion{Token: c.Token, Result: resultOf(c.Token.Key, c.Token.Fence)})
	}
	var errs []error
	_ = w.call(many, func(ctx context.Context) error { errs = w.store.CompleteMany(ctx, done); return nil })
	for i, c := range done {
		if w.must(c.Token.Key, errs[i]) {
			w.recent.put(c.Token.Key, w.now())
		}
	}
}

const accounts = 64

func account(n int) string { return fmt.Sprint("account ", n) }

// inCommit adds one to an account in the commit of the completion, and asks for it
// again, which must not.
func (w *worker) inCommit() {
	key, account, from := w.newKey(effectKind), account(w.rng.IntN(accounts)), w.now()
	for try := range 2 {
		var result []byte
		var replayed bool
		err := w.call(effect, func(ctx context.Context) (err error) {
			result, replayed, err = w.subject.Do(ctx, idem.Request{Key: key}, func(kv oracle.KV) ([]byte, error) {
				n := uint64(0)
				if old := kv.Get(account); old != nil {
					n = binary.BigEndian.Uint64(old)
				}
				kv.Put(account, binary.BigEndian.AppendUint64(nil, n+1))
				return resultOf(key, effectFence), nil
			})
			return err
		})
		if !w.must(key, err) {
			return
		}
		if !replayed {
			w.effects.Add(1)
		}
		if replayed != (try == 1) && (replayed || !w.longAgo(from, w.retention)) {
			w.trouble.add("key %q: call %d of an effect says replayed=%t", key, try+1, replayed)
		}
		w.replayed(key, idem.Record{Key: key, Fence: effectFence, Result: result})
	}
	w.recent.put(key, w.now())
}
