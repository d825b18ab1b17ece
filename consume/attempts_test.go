package consume_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/internal/storetest"
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

// If ctx ends while the claim is being committed, the handler does not begin, and the
// claim is undone.
func TestContextEndsInTheClaim(t *testing.T) {
	for name, set := range map[string]func(*consume.Options[message]){
		"plain": func(*consume.Options[message]) {}, "MaxAttempts": counting["MaxAttempts"], "HoldUnknown": counting["HoldUnknown"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := storetest.NewRich()
			s := storetest.Open(t, b, idem.Options{})
			o := messages()
			set(&o)
			c, err := consume.New(s, "billing", mustNotRun, o)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			b.OnApplied = cancel
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

// A process that dies in one message of a batch leaves those behind it as if they had never
// been delivered. Those before it are recorded where it matters which had begun; otherwise
// they run again, and no more than that happens.
func TestKilledInABatch(t *testing.T) {
	for name, again := range map[string][2]string{
		"plain":       {"ack: processed", "ack: processed"},
		"MaxAttempts": {"ack: duplicate", "dead: exhausted"},
		"HoldUnknown": {"ack: duplicate", "dead: held"},
	} {
		t.Run(name, func(t *testing.T) {
			durable(t, idem.Options{LapseOnOpen: true}, func(t *testing.T, e *env) {
				o := messages()
				if set := counting[name]; set != nil {
					set(&o)
				}
				reached, unblock := make(chan struct{}), make(chan struct{})
				c := e.consumer("billing", o, func(_ context.Context, m message) error {
					if m.id == "kills" {
						close(reached)
						<-unblock
					}
					return nil
				})
				gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{"done", ""}))
				batch := []message{{"done", ""}, {"before", ""}, {"kills", ""}, {"behind", ""}, {"last", ""}}
				answer := handling(context.Background(), c, batch...)
				<-reached
				e.die()
				close(unblock)
				verdicts := <-answer
				assert.Equal(t, "ack: duplicate", verdicts[0].String())
				for _, v := range verdicts[2:] {
					assert.Equal(t, consume.Retry, v.Decision)
					assert.ErrorIs(t, v.Err, idem.ErrClosed)
				}

				if name != "plain" {
					e.noRecord(key(t, c, batch[3]))
					e.noRecord(key(t, c, batch[4]))
				}
				h := &handler{}
				verdicts = e.consumer("billing", o, h.handle).HandleBatch(t.Context(), batch)
				assert.Equal(t, []string{"ack: duplicate", again[0], again[1], "ack: processed", "ack: processed"}, decisions(verdicts))
				if name != "plain" {
					assert.Equal(t, 1, verdicts[3].Attempt)
				}
				assert.Zero(t, h.runs[batch[0]])
			})
		})
	}
}

// ctx ends in mid-batch, as in a deploy: what was handled is recorded, the rest is free at
// once, and no attempt of it is used up.
func TestDeploysInABatchAreNoAttempts(t *testing.T) {
	for name, max := range map[string]int{"counted": 1, "not counted": 0} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
				shutdown := errors.New("shutting down")
				waits := message{"waits", ""}
				for _, m := range []message{{"1", ""}, {"2", ""}, {"3", ""}} {
					ctx, deploy := context.WithCancelCause(t.Context())
					c := e.consumer("billing", messages(), func(context.Context, message) error {
						deploy(shutdown)
						return nil
					})
					verdicts := c.HandleBatch(ctx, []message{m, waits, {"waits too", ""}, waits})
					assert.Equal(t, []string{
						"ack: processed", "retry: unavailable", "retry: unavailable", "retry: unavailable",
					}, decisions(verdicts))
					assert.Equal(t, shutdown, verdicts[1].Err)
					assert.Zero(t, verdicts[1].Attempt)
					e.noRecord(key(t, c, waits))
				}
				verdicts := e.billing(&handler{}).HandleBatch(t.Context(), []message{{"3", ""}, waits, waits})
				assert.Equal(t, []string{"ack: duplicate", "ack: processed", "ack: duplicate"}, decisions(verdicts))
				assert.Equal(t, 1, verdicts[1].Attempt)
			})
		})
	}
}

// The consumer's own MaxAttempts counts, whatever the store's is, and the store's where it
// has none. The last attempt that fails is the last: there is nothing to redeliver it for.
func TestMaxAttempts(t *testing.T) {
	for name, max := range map[string]struct{ own, store int }{
		"the store has none": {2, 0}, "the store has fewer": {2, 1}, "the store has more": {2, 5}, "the store's": {0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max.store}, func(t *testing.T, e *env) {
				o := messages()
				o.MaxAttempts = max.own
				h := &handler{err: errBank}
				c := e.consumer("billing", o, h.handle)
				gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
				v := c.Handle(t.Context(), m1)
				gets(t, consume.Dead, consume.Exhausted, v)
				require.ErrorIs(t, v.Err, idem.ErrExhausted)
				require.ErrorIs(t, v.Err, errBank)
				v = c.Handle(t.Context(), m1)
				gets(t, consume.Dead, consume.Exhausted, v)
				require.ErrorIs(t, v.Err, idem.ErrExhausted)
				require.ErrorContains(t, v.Err, errBank.Error(), "it says how the last attempt failed")
				assert.Equal(t, int64(2), h.all.Load())
				assert.Equal(t, 2, v.Attempt)
			})
		})
	}
}
