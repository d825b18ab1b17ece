package consume_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

var (
	m1      = message{"evt-1", "12.50"}
	errBank = errors.New("the bank is busy")
)

// A redelivery after the message was processed is acknowledged and not run.
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

// The process dies in the handler. The next delivery waits for its lease,
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
				require.NoError(t, e.Release(t.Context(), e.record(key(t, c, m1)).Token(), nil))
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

// Two consumers of one event each run it once, whatever their names and its ID
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

// The same ID with another body is told, and neither run nor dropped; also while
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

// A message without an ID meets a policy that was chosen.
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
			for _, final := range []error{idem.Permanent(errBank), idem.Unknown(errBank)} {
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

// In flight elsewhere is not acknowledged. The delay is what is left of the lease, whatever
// the wall clock shows; a lease without an end gives none.
func TestInFlightElsewhere(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), mustNotRun)
		claim := e.twin(c, m1)
		e.clock.Advance(10 * time.Second)
		for _, by := range []time.Duration{-48 * time.Hour, 96 * time.Hour} {
			e.clock.StepWall(by)
			v := c.Handle(t.Context(), m1)
			gets(t, consume.Retry, consume.InFlight, v)
			require.ErrorIs(t, v.Err, idem.ErrInFlight)
			assert.Equal(t, lease-10*time.Second, v.After)
			assert.Equal(t, 1, v.Attempt)
		}
		require.NoError(t, e.Complete(t.Context(), claim.Token, nil))
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))

		m2 := message{"evt-2", ""}
		_, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, m2), Lease: idem.Forever, Fingerprint: idem.FingerprintOf(nil)})
		require.NoError(t, err)
		v := c.Handle(t.Context(), m2)
		gets(t, consume.Retry, consume.InFlight, v)
		assert.Zero(t, v.After)
	})
}
