package consume_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/memory"
)

// The last attempt that fails is the last; a message that kills its consumer
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

// Work longer than the lease keeps its claim, and hears when it is lost.
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
				require.NoError(t, e.Forget(t.Context(), idem.Token{Key: op.Token().Key}))
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
		for name, ends := range map[string]error{"nil": nil, "error": errBank, "permanent": idem.Permanent(errBank), "unknown": idem.Unknown(errBank)} {
			m := message{name, ""}
			c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
				require.NoError(t, e.Forget(ctx, idem.Token{Key: consume.FromContext(ctx).Token().Key}))
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
	for name, ends := range map[string]error{"nil": nil, "error": errBank, "permanent": idem.Permanent(errBank), "unknown": idem.Unknown(errBank)} {
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

// A panic or Goexit goes on after the claim is released, or held.
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
