package consume_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// What counts as an attempt: what was begun.

// counting are the options by which it matters which messages of a batch had begun.
var counting = map[string]func(*consume.Options[message]){
	"MaxAttempts": func(o *consume.Options[message]) { o.MaxAttempts = 1 },
	"HoldUnknown": func(o *consume.Options[message]) { o.HoldUnknown = true },
}

// A message that kills its consumer uses up its own attempts, and none of those behind
// it in the batch.
func TestPoisonCostsTheOthersNoAttempt(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 3}, func(t *testing.T, e *env) {
		h := &handler{}
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			if m.id == "poison" {
				panic("boom")
			}
			return h.handle(ctx, m)
		})
		batch := []message{{"poison", ""}, {"good", "1"}, {"better", "2"}}
		for range 3 {
			require.Panics(t, func() { c.HandleBatch(t.Context(), batch) })
		}
		verdicts := c.HandleBatch(t.Context(), batch)
		assert.Equal(t, []string{"dead: exhausted", "ack: processed", "ack: processed"}, decisions(verdicts))
		assert.ErrorContains(t, verdicts[0].Err, "the handler panicked")
		assert.Equal(t, 3, verdicts[0].Attempt)
		assert.Equal(t, 1, verdicts[1].Attempt)
	})
}

// A process that dies in one message of a batch leaves those before it recorded, and
// those behind it as if they had never been delivered.
func TestKilledInABatch(t *testing.T) {
	for name, set := range counting {
		t.Run(name, func(t *testing.T) {
			durable(t, idem.Options{LapseOnOpen: true}, func(t *testing.T, e *env) {
				o := messages()
				set(&o)
				reached, unblock := make(chan struct{}), make(chan struct{})
				c := e.consumer("billing", o, func(_ context.Context, m message) error {
					if m.id == "kills" {
						close(reached)
						<-unblock
					}
					return nil
				})
				batch := []message{{"before", ""}, {"kills", ""}, {"behind", ""}, {"last", ""}}
				var wg sync.WaitGroup
				wg.Go(func() { c.HandleBatch(context.Background(), batch) })
				<-reached
				e.die()
				close(unblock)
				wg.Wait()

				e.noRecord(key(t, c, batch[2]))
				e.noRecord(key(t, c, batch[3]))
				verdicts := e.consumer("billing", o, func(context.Context, message) error { return nil }).HandleBatch(t.Context(), batch)
				killed := map[string]string{"MaxAttempts": "dead: exhausted", "HoldUnknown": "dead: held"}[name]
				assert.Equal(t, []string{"ack: duplicate", killed, "ack: processed", "ack: processed"}, decisions(verdicts))
				assert.Equal(t, 1, verdicts[2].Attempt)
			})
		})
	}
}

// So does one that is told to stop: deploys in mid-batch use up no attempt.
func TestDeploysInABatchAreNoAttempts(t *testing.T) {
	for name, max := range map[string]int{"counted": 1, "not counted": 0} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
				for _, m := range []message{{"1", ""}, {"2", ""}, {"3", ""}} {
					ctx, deploy := context.WithCancel(t.Context())
					c := e.consumer("billing", messages(), func(context.Context, message) error {
						deploy()
						return nil
					})
					verdicts := c.HandleBatch(ctx, []message{m, {"waits", ""}, {"waits too", ""}})
					assert.Equal(t, []string{"ack: processed", "retry: unavailable", "retry: unavailable"}, decisions(verdicts))
					assert.Zero(t, verdicts[1].Attempt)
					e.noRecord(key(t, c, message{"waits", ""}))
				}
				v := e.billing(&handler{}).Handle(t.Context(), message{"waits", ""})
				gets(t, consume.Ack, consume.Processed, v)
				assert.Equal(t, 1, v.Attempt)
			})
		})
	}
}

// If ctx ends while the claim is being committed, the handler does not begin, and the
// claim is undone.
func TestContextEndsInTheClaim(t *testing.T) {
	for name, set := range map[string]func(*consume.Options[message]){
		"plain": func(*consume.Options[message]) {}, "MaxAttempts": counting["MaxAttempts"], "HoldUnknown": counting["HoldUnknown"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFailing()
			s, err := idem.New(b, idem.Options{})
			require.NoError(t, err)
			defer s.Close()
			o := messages()
			set(&o)
			c, err := consume.New(s, "billing", mustNotRun, o)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			b.applied = cancel
			for _, v := range c.HandleBatch(ctx, []message{m1, {"evt-2", ""}}) {
				gets(t, consume.Retry, consume.Unavailable, v)
				assert.ErrorIs(t, v.Err, context.Canceled)
				assert.Zero(t, v.Attempt)
			}
			_, err = s.Get(t.Context(), key(t, c, m1))
			require.Equal(t, idem.ErrNotFound, err)
		})
	}
}

// A message that was claimed with its batch, and whose turn does not come, is as if it had
// not been delivered, whatever there was of it before.
func TestNotBegunIsNoAttempt(t *testing.T) {
	before := map[string]struct {
		attempts int
		make     func(e *env, r idem.Request)
	}{
		"new": {0, func(*env, idem.Request) {}},
		"failed before": {1, func(e *env, r idem.Request) {
			c, err := e.Claim(context.Background(), r)
			require.NoError(e.t, err)
			require.NoError(e.t, e.Release(context.Background(), c.Token, []byte("no stock")))
		}},
		"died before": {1, func(e *env, r idem.Request) {
			c, err := e.Claim(context.Background(), r)
			require.NoError(e.t, err)
			require.NoError(e.t, e.Checkpoint(context.Background(), c.Token, []byte("half")))
			e.clock.Advance(lease)
		}},
	}
	for name, was := range before {
		for end, ends := range map[string]func(e *env, cancel func(), behind string){
			"panic":  func(*env, func(), string) { panic("boom") },
			"Goexit": func(*env, func(), string) { runtime.Goexit() },
			"ctx":    func(_ *env, cancel func(), _ string) { cancel() },
			"MaxRun": func(e *env, _ func(), behind string) {
				e.clock.BlockUntil(3)
				e.clock.Advance(time.Second)
				_, _ = e.Wait(context.Background(), behind) // until it is given back
			},
		} {
			t.Run(name+", "+end, func(t *testing.T) {
				each(t, idem.Options{}, func(t *testing.T, e *env) {
					behind := message{"behind", ""}
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					o := messages()
					o.MaxRun = time.Second
					var k string
					c := e.consumer("billing", o, func(context.Context, message) error {
						ends(e, cancel, k)
						return nil
					})
					k = key(t, c, behind)
					was.make(e, idem.Request{Key: k, Fingerprint: idem.FingerprintOf(nil)})
					gone := make(chan []consume.Verdict, 1)
					go func() {
						defer close(gone)
						defer func() { _ = recover() }()
						gone <- c.HandleBatch(ctx, []message{m1, behind})
					}()
					if verdicts, returned := <-gone; returned {
						gets(t, consume.Retry, consume.Unavailable, verdicts[1])
						assert.Equal(t, was.attempts, verdicts[1].Attempt)
					}
					r, err := e.Get(t.Context(), k)
					if was.attempts == 0 {
						require.Equal(t, idem.ErrNotFound, err)
					} else {
						require.NoError(t, err)
						assert.Equal(t, idem.Released, r.State)
						assert.Equal(t, was.attempts, r.Attempt)
					}
					v := e.billing(&handler{}).Handle(t.Context(), behind)
					gets(t, consume.Ack, consume.Processed, v)
					assert.Equal(t, was.attempts+1, v.Attempt)
				})
			})
		}
	}
}

// The consumer's own MaxAttempts counts, whatever the store's is.
func TestOwnMaxAttempts(t *testing.T) {
	for name, max := range map[string]int{"the store has none": 0, "the store has fewer": 1, "the store has more": 5} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
				o := messages()
				o.MaxAttempts = 2
				h := &handler{err: errBank}
				c := e.consumer("billing", o, h.handle)
				gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
				v := c.Handle(t.Context(), m1)
				gets(t, consume.Dead, consume.Exhausted, v)
				require.ErrorIs(t, v.Err, errBank)
				v = c.Handle(t.Context(), m1)
				gets(t, consume.Dead, consume.Exhausted, v)
				require.ErrorIs(t, v.Err, idem.ErrExhausted)
				require.ErrorContains(t, v.Err, errBank.Error(), "it says how the last attempt failed")
				assert.Equal(t, int64(2), h.all.Load())
			})
		})
	}
}

// A message that is in a batch twice is begun once for that delivery, however the batch
// is claimed.
func TestRepeatsInABatchAreNoAttempts(t *testing.T) {
	for name, max := range map[string]int{"one by one": 5, "in parts": 0} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max, MaxBatch: 2}, func(t *testing.T, e *env) {
				h := &handler{err: errBank}
				c := e.billing(h)
				verdicts := c.HandleBatch(t.Context(), []message{{"busy", ""}, {"a", ""}, {"b", ""}, {"busy", ""}, {"a", ""}})
				assert.Equal(t, []string{"retry: failed", "retry: failed", "retry: failed", "retry: failed", "retry: failed"}, decisions(verdicts))
				assert.Equal(t, 1, verdicts[3].Attempt)
				assert.Equal(t, int64(3), h.all.Load())
			})
		})
	}
}

// Counting costs two commits for each message; without it they are two for the batch.
func TestCommitsOfABatch(t *testing.T) {
	for name, c := range map[string]struct {
		attempts int
		commits  uint64
	}{"counted": {3, 8}, "not counted": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: c.attempts}, func(t *testing.T, e *env) {
				before := e.commits()
				e.billing(&handler{}).HandleBatch(t.Context(), []message{{"1", ""}, {"2", ""}, {"3", ""}, {"4", ""}})
				assert.Equal(t, c.commits, e.commits()-before)
			})
		})
	}
}
