package consume_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/memory"
)

var (
	m1      = message{"evt-1", "12.50"}
	errBank = errors.New("the bank is busy")
)

// G1: a redelivery after the message was processed is acknowledged and not run.
func TestRedelivery(t *testing.T) {
	each(t, idem.Options{Retention: time.Hour}, func(t *testing.T, e *env) {
		h := &handler{}
		c := e.billing(h)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Ack, consume.Processed, v)
		assert.Equal(t, 1, v.Attempt)
		require.NoError(t, v.Err)
		for range 3 {
			v = c.Handle(t.Context(), m1)
			gets(t, consume.Ack, consume.Duplicate, v)
			require.NoError(t, v.Err)
			assert.Equal(t, 1, v.Attempt)
		}
		require.Equal(t, int64(1), h.all.Load())

		e.clock.Advance(time.Hour - 1)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))
		e.clock.Advance(1)
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1), "past the retention a message is new, exactly then")
	})
}

// G1: the process dies after the record and before the acknowledgement.
func TestCrashBeforeTheAck(t *testing.T) {
	durable(t, idem.Options{}, func(t *testing.T, e *env) {
		h := &handler{}
		gets(t, consume.Ack, consume.Processed, e.billing(h).Handle(t.Context(), m1))
		e.die()
		gets(t, consume.Ack, consume.Duplicate, e.consumer("billing", messages(), mustNotRun).Handle(t.Context(), m1))
	})
}

// G1, G2: the process dies in the handler. The next delivery waits for its lease,
// then runs again, or with HoldUnknown is for a person to settle.
func TestCrashInTheHandler(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprint("HoldUnknown ", hold), func(t *testing.T) {
			durable(t, idem.Options{}, func(t *testing.T, e *env) {
				o := messages()
				o.HoldUnknown = hold
				dead, unblock := make(chan struct{}), make(chan struct{})
				first := e.consumer("billing", o, func(context.Context, message) error {
					close(dead)
					<-unblock
					return nil
				})
				var after consume.Verdict
				var wg sync.WaitGroup
				wg.Go(func() { after = first.Handle(context.Background(), m1) })
				<-dead
				e.die()
				close(unblock)
				wg.Wait()
				gets(t, consume.Retry, consume.Unrecorded, after, "what it does after its end is recorded nowhere")
				require.ErrorIs(t, after.Err, idem.ErrClosed)

				h := &handler{}
				c := e.consumer("billing", o, h.handle)
				v := c.Handle(t.Context(), m1)
				gets(t, consume.Retry, consume.InFlight, v)
				assert.Equal(t, lease, v.After)
				e.clock.Advance(lease)
				v = c.Handle(t.Context(), m1)
				if !hold {
					gets(t, consume.Ack, consume.Processed, v)
					assert.Equal(t, 2, v.Attempt)
					return
				}
				gets(t, consume.Dead, consume.Held, v)
				require.ErrorIs(t, v.Err, idem.ErrHeld)
				assert.Zero(t, h.all.Load())
				// Somebody finds out that the bank never heard of it.
				require.NoError(t, e.Release(t.Context(), e.record(key(t, c, m1)).Token()))
				gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
			})
		})
	}
}

// Lease and retention are the consumer's own, where it has them.
func TestOwnLeaseAndRetention(t *testing.T) {
	each(t, idem.Options{Retention: time.Hour}, func(t *testing.T, e *env) {
		o := messages()
		o.Lease, o.Retention = time.Minute, 48*time.Hour
		var c *consume.Consumer[message]
		c = e.consumer("billing", o, func(ctx context.Context, _ message) error {
			assert.Equal(t, time.Minute, c.Handle(ctx, m1).After)
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		e.clock.Advance(48*time.Hour - 1)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))
	})
}

// G2: in flight elsewhere is not acknowledged; the delay is until the lease's end.
func TestInFlightElsewhere(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), mustNotRun)
		claim, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, m1)})
		require.NoError(t, err)
		e.clock.Advance(10 * time.Second)
		e.clock.StepWall(-time.Hour)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Retry, consume.InFlight, v)
		require.ErrorIs(t, v.Err, idem.ErrInFlight)
		assert.Equal(t, lease-10*time.Second, v.After, "whatever the wall clock shows")
		assert.Equal(t, 1, v.Attempt)
		require.NoError(t, e.Complete(t.Context(), claim.Token, nil))
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))
	})
}

// A lease without end gives no delay to wait for.
func TestInFlightForever(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), mustNotRun)
		_, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, m1), Lease: idem.Forever})
		require.NoError(t, err)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Retry, consume.InFlight, v)
		assert.Zero(t, v.After)
	})
}

// G2: a handler's error releases the message, and the next delivery runs it again.
func TestHandlerError(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		h := &handler{err: errBank}
		c := e.billing(h)
		for attempt := 1; attempt <= 3; attempt++ {
			v := c.Handle(t.Context(), m1)
			gets(t, consume.Retry, consume.Failed, v)
			require.Equal(t, errBank, v.Err)
			assert.Equal(t, attempt, v.Attempt)
			assert.Equal(t, idem.Released, e.record(key(t, c, m1)).State)
		}
		h.err = nil
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		assert.Equal(t, int64(4), h.all.Load())
	})
}

// G2: a permanent error is recorded and told apart; redeliveries hear it too.
func TestPermanentError(t *testing.T) {
	each(t, idem.Options{MaxResult: 12}, func(t *testing.T, e *env) {
		h := &handler{err: fmt.Errorf("bill: %w", idem.Permanent(errors.New("account closed")))}
		c := e.billing(h)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Permanent, v)
		require.Equal(t, h.err, v.Err)
		v = c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Permanent, v)
		require.ErrorIs(t, v.Err, idem.ErrFailed)
		assert.ErrorContains(t, v.Err, ": bill: accoun", "with the reason, cut to MaxResult")
		assert.Equal(t, int64(1), h.all.Load())

		// The account is open again: an operator has the store forget.
		h.err = nil
		require.NoError(t, e.Forget(t.Context(), key(t, c, m1)))
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
	})
}

// A handler that does not know holds the message until somebody has settled it.
func TestUnknownOutcome(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		h := &handler{err: fmt.Errorf("%w: no answer: %w", consume.ErrUnknown, idem.Permanent(errBank))}
		c := e.billing(h)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Held, v)
		require.Equal(t, h.err, v.Err)
		e.clock.Advance(1000 * time.Hour)
		v = c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Held, v)
		require.ErrorIs(t, v.Err, idem.ErrHeld)
		r := e.record(key(t, c, m1))
		assert.Equal(t, h.err.Error(), string(r.Result), "the note says what is known")
		require.NoError(t, e.Complete(t.Context(), r.Token(), nil))
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))
		assert.Equal(t, int64(1), h.all.Load())
	})
}

// G3: two consumers of one event each run it once, whatever their names and its ID
// are made of.
func TestTwoConsumers(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		keys := map[string]bool{}
		for _, c := range []struct{ name, id string }{
			{"billing", "evt-1"},
			{"mail", "evt-1"},
			{"mail", "x/evt-1"},
			{"mail/x", "evt-1"},
			{"mail/x/evt-1", "y"},
			{"mail", "content/evt-1"},
			{"%", "evt-1"},
			{"mail", "%"},
		} {
			h := &handler{}
			consumer := e.consumer(c.name, messages(), h.handle)
			m := message{c.id, "12.50"}
			gets(t, consume.Ack, consume.Processed, consumer.Handle(t.Context(), m), c)
			gets(t, consume.Ack, consume.Duplicate, consumer.Handle(t.Context(), m), c)
			assert.Equal(t, int64(1), h.all.Load())
			keys[key(t, consumer, m)] = true
		}
		assert.Len(t, keys, 8)
	})
}

// G3: the same ID with another body is told, and neither run nor dropped; also while
// the first is in flight.
func TestMismatch(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		other := message{m1.id, "99.00"}
		var c *consume.Consumer[message]
		h := &handler{}
		c = e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			v := c.Handle(ctx, other)
			gets(t, consume.Dead, consume.Mismatch, v)
			assert.Zero(t, v.Attempt, "nothing of the other is disclosed")
			return h.handle(ctx, m)
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		v := c.Handle(t.Context(), other)
		gets(t, consume.Dead, consume.Mismatch, v)
		require.ErrorIs(t, v.Err, idem.ErrMismatch)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))
		assert.Equal(t, map[message]int{m1: 1}, h.runs)
	})
}

// A fingerprint of the user's own: the order of fields does not matter, and what is
// no JSON is told.
func TestOwnFingerprint(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.Body = nil
		o.Fingerprint = func(m message) (idem.Fingerprint, error) {
			body, err := idem.CanonicalJSON([]byte(m.body))
			return idem.FingerprintOf(body), err
		}
		h := &handler{}
		c := e.consumer("billing", o, h.handle)
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{"1", `{"a":1,"b":2}`}))
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), message{"1", `{"b":2, "a":1}`}))
		gets(t, consume.Dead, consume.Mismatch, c.Handle(t.Context(), message{"1", `{"a":1,"b":3}`}))
		v := c.Handle(t.Context(), message{"2", `{"secret"`})
		gets(t, consume.Dead, consume.Invalid, v)
		require.ErrorIs(t, v.Err, idem.ErrInvalid)
		assert.ErrorContains(t, v.Err, "consumer billing: no fingerprint")
		assert.NotContains(t, v.Err.Error(), "secret")
		assert.Equal(t, int64(1), h.all.Load())

		o.Fingerprint = func(message) (idem.Fingerprint, error) { return idem.Fingerprint{}, nil }
		c = e.consumer("billing", o, h.handle)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), message{"1", "anything"}), "zero is not compared")
	})
}

// G5: a message without an ID meets a policy that was chosen.
func TestMissingID(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		without := message{"", "order 7"}
		t.Run("RejectMissing", func(t *testing.T) {
			c := e.consumer("reject", messages(), mustNotRun)
			v := c.Handle(t.Context(), without)
			gets(t, consume.Dead, consume.NoID, v)
			require.Equal(t, consume.ErrNoID, v.Err)
			_, err := c.Key(without)
			require.Equal(t, consume.ErrNoID, err)
		})
		t.Run("DeriveMissing", func(t *testing.T) {
			h := &handler{}
			o := messages()
			o.MissingID = consume.DeriveMissing
			c := e.consumer("derive", o, h.handle)
			gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), without))
			gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), without))
			gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{"", "order 8"}))
			gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{"order 7", "order 7"}), "one with an ID is another")
			derived := key(t, c, without)
			for _, forged := range []string{"content/", "content%2F"} {
				forged += derived[len(derived)-43:]
				gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{forged, "order 7"}), "an ID made to look like content is another")
			}
			assert.Equal(t, int64(5), h.all.Load())
			v := c.Handle(t.Context(), message{})
			gets(t, consume.Dead, consume.NoID, v, "nothing to derive it from")

			o.Body, o.Fingerprint = nil, func(message) (idem.Fingerprint, error) { return idem.Fingerprint{}, nil }
			c = e.consumer("derive", o, mustNotRun)
			gets(t, consume.Dead, consume.NoID, c.Handle(t.Context(), without), "nor from the zero fingerprint")
		})
		t.Run("RunUnprotected", func(t *testing.T) {
			o := messages()
			o.MissingID = consume.RunUnprotected
			h := &handler{}
			c := e.consumer("run", o, func(ctx context.Context, m message) error {
				if m.id == "" {
					assert.Nil(t, consume.FromContext(ctx))
				}
				return h.handle(ctx, m)
			})
			for range 2 {
				gets(t, consume.Ack, consume.Unprotected, c.Handle(t.Context(), without), "it says so each time")
			}
			assert.Equal(t, 2, h.runs[without])
			h.err = errBank
			v := c.Handle(t.Context(), without)
			gets(t, consume.Retry, consume.Unprotected, v)
			require.Equal(t, errBank, v.Err)
			for _, final := range []error{idem.Permanent(errBank), consume.ErrUnknown} {
				h.err = final
				gets(t, consume.Dead, consume.Unprotected, c.Handle(t.Context(), without))
			}
			h.err = nil
			gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1), "one with an ID is protected")
			_, err := c.Key(without)
			require.Equal(t, consume.ErrNoID, err)

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			runs := h.all.Load()
			v = c.Handle(ctx, without)
			gets(t, consume.Retry, consume.Unavailable, v)
			require.ErrorIs(t, v.Err, context.Canceled)
			assert.Equal(t, runs, h.all.Load())
			outer := e.consumer("outer", messages(), func(ctx context.Context, _ message) error {
				gets(t, consume.Ack, consume.Unprotected, c.Handle(ctx, without))
				return nil
			})
			gets(t, consume.Ack, consume.Processed, outer.Handle(t.Context(), m1), "nor is there another's operation")
		})
	})
}

// An ID that makes too long a key is told, and its key is not disclosed.
func TestIDTooLong(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		h := &handler{}
		c := e.billing(h)
		fits := message{strings.Repeat("i", idem.MaxKey-len("consume/billing/")), "x"}
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), fits))
		for _, long := range []string{fits.id + "i", fits.id[3:] + "//"} {
			v := c.Handle(t.Context(), message{long, "x"})
			gets(t, consume.Dead, consume.Invalid, v)
			require.ErrorIs(t, v.Err, idem.ErrInvalid)
			assert.NotContains(t, v.Err.Error(), "iiii")
		}
		assert.Equal(t, int64(1), h.all.Load())
	})
}

// A13: the last attempt that fails is the last; a message that kills its consumer
// ends too.
func TestExhausted(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 3}, func(t *testing.T, e *env) {
		h := &handler{err: errBank}
		c := e.billing(h)
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Exhausted, v, "there is nothing to redeliver it for")
		require.ErrorIs(t, v.Err, idem.ErrExhausted)
		require.ErrorIs(t, v.Err, errBank)
		v = c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Exhausted, v)
		require.ErrorIs(t, v.Err, idem.ErrExhausted)
		assert.Equal(t, int64(3), h.all.Load())
		assert.Equal(t, 3, v.Attempt)

		poison := message{"evt-2", "kills"}
		for range 3 {
			_, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, poison)})
			require.NoError(t, err)
			gets(t, consume.Retry, consume.InFlight, c.Handle(t.Context(), poison))
			e.clock.Advance(lease)
		}
		gets(t, consume.Dead, consume.Exhausted, c.Handle(t.Context(), poison))
		assert.Equal(t, int64(3), h.all.Load())
	})
}

// A permanent error in the last attempt is permanent.
func TestPermanentInTheLastAttempt(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 1}, func(t *testing.T, e *env) {
		c := e.billing(&handler{err: idem.Permanent(errBank)})
		gets(t, consume.Dead, consume.Permanent, c.Handle(t.Context(), m1))
		assert.Equal(t, idem.Failed, e.record(key(t, c, m1)).State)
	})
}

// D4: work longer than the lease keeps its claim, and hears when it is lost.
func TestHeartbeat(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			op := consume.FromContext(ctx)
			for range 10 {
				e.clock.BlockUntil(1)
				until := e.record(op.Token().Key).LeaseUntil
				e.clock.Advance(lease / 3)
				for e.record(op.Token().Key).LeaseUntil.Equal(until) {
					runtime.Gosched()
				}
			}
			assert.NoError(t, ctx.Err())
			if m != m1 {
				require.NoError(t, e.Forget(t.Context(), op.Token().Key))
				e.clock.BlockUntil(1)
				e.clock.Advance(lease / 3)
				<-ctx.Done()
				assert.Equal(t, idem.ErrFenced, context.Cause(ctx))
				return ctx.Err()
			}
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		v := c.Handle(t.Context(), message{"evt-2", "lost"})
		gets(t, consume.Retry, consume.Unrecorded, v)
		require.ErrorIs(t, v.Err, idem.ErrFenced)
		require.ErrorIs(t, v.Err, context.Canceled, "how the handler ended is told too")
		assert.Zero(t, e.clock.Pending(), "no heartbeat goes on")
	})
}

// A handler that succeeded after its claim was lost is not acknowledged: the attempt
// that has the claim now decides.
func TestClaimLost(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		for name, ends := range map[string]error{"nil": nil, "error": errBank, "permanent": idem.Permanent(errBank), "unknown": consume.ErrUnknown} {
			m := message{name, ""}
			c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
				require.NoError(t, e.Forget(ctx, consume.FromContext(ctx).Token().Key))
				return ends
			})
			v := c.Handle(t.Context(), m)
			gets(t, consume.Retry, consume.Unrecorded, v, name)
			require.ErrorIs(t, v.Err, idem.ErrFenced)
			if ends != nil {
				require.ErrorIs(t, v.Err, ends)
			}
		}
	})
}

// A broken, closed or full store: not run, not acknowledged.
func TestStoreUnavailable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ruin func(s *idem.Store, b *failing)
		err  error
	}{
		"breaks at the claim": {func(_ *idem.Store, b *failing) { b.fails.Store(true) }, idem.ErrBroken},
		"closed":              {func(s *idem.Store, _ *failing) { _ = s.Close() }, idem.ErrClosed},
		"full": {func(s *idem.Store, _ *failing) {
			_, err := s.Claim(context.Background(), idem.Request{Key: "another"})
			if err != nil {
				panic(err)
			}
		}, idem.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFailing()
			b.Backend = memory.New(memory.Options{MaxRecords: 1})
			s, err := idem.New(b, idem.Options{})
			require.NoError(t, err)
			defer s.Close()
			consumer, err := consume.New(s, "billing", mustNotRun, messages())
			require.NoError(t, err)
			c.ruin(s, b)
			for range 2 {
				v := consumer.Handle(t.Context(), m1)
				gets(t, consume.Retry, consume.Unavailable, v)
				require.ErrorIs(t, v.Err, c.err)
			}
		})
	}
}

// The store breaks under the handler: never a silent success.
func TestStoreBreaksUnderTheHandler(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]error{"nil": nil, "error": errBank, "permanent": idem.Permanent(errBank), "unknown": consume.ErrUnknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFailing()
			s, err := idem.New(b, idem.Options{})
			require.NoError(t, err)
			defer s.Close()
			c, err := consume.New(s, "billing", func(context.Context, message) error {
				b.fails.Store(true)
				return ends
			}, messages())
			require.NoError(t, err)
			v := c.Handle(t.Context(), m1)
			gets(t, consume.Retry, consume.Unrecorded, v)
			require.ErrorIs(t, v.Err, idem.ErrBroken)
			if ends != nil {
				require.ErrorIs(t, v.Err, ends)
			}
		})
	}
}

// ctx: cancelled before, nothing is run; cancelled in the handler, what it did is
// recorded all the same.
func TestContext(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		ctx, cancel := context.WithCancel(t.Context())
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			cancel()
			<-ctx.Done()
			if m != m1 {
				return ctx.Err()
			}
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(ctx, m1))
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))

		m2 := message{"evt-2", ""}
		v := c.Handle(ctx, m2)
		gets(t, consume.Retry, consume.Unavailable, v)
		require.ErrorIs(t, v.Err, context.Canceled)
		_, err := e.Get(t.Context(), key(t, c, m2))
		require.Equal(t, idem.ErrNotFound, err)

		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		v = c.Handle(ctx, m2)
		gets(t, consume.Retry, consume.Failed, v)
		require.Equal(t, context.Canceled, v.Err)
		assert.Equal(t, idem.Released, e.record(key(t, c, m2)).State)
	})
}

// D2: a panic or Goexit goes on after the claim is released, or held.
func TestPanicAndGoexit(t *testing.T) {
	for _, hold := range []bool{false, true} {
		want := map[bool]idem.State{false: idem.Released, true: idem.Held}[hold]
		t.Run(want.String(), func(t *testing.T) {
			each(t, idem.Options{}, func(t *testing.T, e *env) {
				o := messages()
				o.HoldUnknown = hold
				ctx, cancel := context.WithCancel(t.Context())
				c := e.consumer("billing", o, func(_ context.Context, m message) error {
					cancel()
					if m == m1 {
						panic("boom")
					}
					runtime.Goexit()
					return nil
				})
				require.PanicsWithValue(t, "boom", func() { c.Handle(ctx, m1) })
				assert.Equal(t, want, e.record(key(t, c, m1)).State)

				m2 := message{"evt-2", ""}
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					c.Handle(context.Background(), m2)
					t.Error("Handle returned")
				}()
				<-gone
				assert.Equal(t, want, e.record(key(t, c, m2)).State)
				assert.Zero(t, e.clock.Pending())
			})
		})
	}
}

// D7, and checkpoints: what an attempt knows of the ones before it.
func TestOperation(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		shown := map[string]int{}
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			op := consume.FromContext(ctx)
			shown[op.DownstreamKey("charge")]++
			shown[op.DownstreamKey("mail")]++
			assert.Equal(t, idem.DownstreamKey(idem.JoinKey("consume", "billing", m.id), "mail"), op.DownstreamKey("mail"))
			switch op.Attempt() {
			case 1:
				assert.Nil(t, op.Checkpoint())
				point := []byte("charged")
				require.NoError(t, op.SaveCheckpoint(ctx, point))
				point[0] = 'X'
				assert.Equal(t, "charged", string(op.Checkpoint()))
				return errBank
			case 2:
				assert.Equal(t, "charged", string(op.Checkpoint()))
				require.NoError(t, e.Release(ctx, op.Token()))
				require.Equal(t, idem.ErrFenced, op.SaveCheckpoint(ctx, []byte("more")))
				assert.Equal(t, "charged", string(op.Checkpoint()))
				return errBank
			}
			return nil
		})
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		assert.Len(t, shown, 2)
		for _, n := range shown {
			assert.Equal(t, 3, n)
		}
	})
}

func TestNoOperation(t *testing.T) {
	t.Parallel()
	op := consume.FromContext(t.Context())
	require.Nil(t, op)
	assert.Zero(t, op.Attempt())
	assert.Zero(t, op.Token())
	assert.Nil(t, op.Checkpoint())
	assert.Empty(t, op.DownstreamKey("x"))
	require.NoError(t, op.SaveCheckpoint(t.Context(), []byte("x")))
	assert.Zero(t, op.LogValue())
}

func TestOperationLogsNoKey(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			logged := consume.FromContext(ctx).LogValue().String()
			assert.Equal(t, fmt.Sprintf("[key_hash=%s attempt=1]", idem.KeyHash("consume/billing/evt-1")), logged)
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
	})
}

// A handler may settle its own claim: with its writes in the same commit, above all.
func TestHandlerSettles(t *testing.T) {
	durable(t, idem.Options{}, func(t *testing.T, e *env) {
		var then error
		book := func(ctx context.Context, m message) error {
			err := bolt.Complete(ctx, e.Store, consume.FromContext(ctx).Token(), func(tx *bbolt.Tx) ([]byte, error) {
				ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
				if err != nil {
					return nil, err
				}
				seq, err := ledger.NextSequence()
				if err != nil {
					return nil, err
				}
				line, err := json.Marshal(seq)
				return []byte("booked"), errors.Join(err, ledger.Put(line, []byte(m.body)))
			})
			return errors.Join(err, then)
		}
		c := e.consumer("billing", messages(), book)
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		e.die()
		c = e.consumer("billing", messages(), book)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))

		then = errBank
		m2 := message{"evt-2", "3.00"}
		v := c.Handle(t.Context(), m2)
		gets(t, consume.Ack, consume.Processed, v, "it is booked, whatever failed after that")
		require.ErrorIs(t, v.Err, errBank)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m2))
		require.NoError(t, e.Store.Backend().(*bolt.Backend).DB().View(func(tx *bbolt.Tx) error {
			assert.Equal(t, 2, tx.Bucket([]byte("ledger")).Stats().KeyN)
			return nil
		}))

		for _, ends := range []error{nil, errBank} {
			m3 := message{"evt-3", fmt.Sprint(ends)}
			c = e.consumer(fmt.Sprint("fails ", ends), messages(), func(ctx context.Context, _ message) error {
				require.NoError(t, e.Fail(ctx, consume.FromContext(ctx).Token(), []byte("why")))
				return ends
			})
			v = c.Handle(t.Context(), m3)
			gets(t, consume.Dead, consume.Permanent, v)
			require.Error(t, v.Err)
		}
	})
}
