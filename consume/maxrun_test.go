package consume_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

const maxRun = lease + lease/2

// hung is a handler that goes on after its context has ended, until it is let go.
type hung struct {
	entered, let chan struct{}
	cause        error
}

func newHung() *hung { return &hung{entered: make(chan struct{}), let: make(chan struct{})} }

func (h *hung) handle(ctx context.Context, _ message) error {
	close(h.entered)
	<-ctx.Done()
	h.cause = context.Cause(ctx)
	<-h.let
	return nil
}

// runOut lets MaxRun pass, with n timers besides its own.
func (e *env) runOut(n int) {
	for range maxRun / (lease / 3) {
		e.clock.BlockUntil(1 + n)
		e.clock.Advance(lease / 3)
	}
	e.clock.BlockUntil(1 + n)
	e.clock.Advance(maxRun % (lease / 3))
	for e.clock.Pending() > 0 { // until the last heartbeat has ended
		runtime.Gosched()
	}
}

// A handler that hangs keeps its message for MaxRun and one lease, and nothing is released
// while it runs. Whoever takes it over then has it alone. If nobody has, what the handler
// returns in the end is recorded, also where the lapsed lease has the message held.
func TestMaxRun(t *testing.T) {
	for name, c := range map[string]struct{ takenOver, hold bool }{
		"taken over": {takenOver: true}, "late": {}, "late, and held": {hold: true},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{}, func(t *testing.T, e *env) {
				o := messages()
				o.MaxRun, o.HoldUnknown = maxRun, c.hold
				h := newHung()
				consumer := e.consumer("billing", o, h.handle)
				answer := handling(t.Context(), consumer, m1)
				<-h.entered
				gets(t, consume.Retry, consume.InFlight, consumer.Handle(t.Context(), m1))
				e.runOut(1)
				e.clock.Advance(lease)
				assert.Equal(t, idem.InFlight, e.record(key(t, consumer, m1)).State)
				switch {
				case c.takenOver:
					v := e.billing(&handler{}).Handle(t.Context(), m1)
					gets(t, consume.Ack, consume.Processed, v)
					assert.Equal(t, 2, v.Attempt)
				case c.hold:
					gets(t, consume.Dead, consume.Held, consumer.Handle(t.Context(), m1))
				}
				close(h.let)
				late := (<-answer)[0]
				assert.Equal(t, consume.ErrMaxRun, h.cause)
				if c.takenOver {
					gets(t, consume.Retry, consume.Unrecorded, late)
					require.ErrorIs(t, late.Err, idem.ErrFenced)
				} else {
					gets(t, consume.Ack, consume.Processed, late)
				}
				gets(t, consume.Ack, consume.Duplicate, consumer.Handle(t.Context(), m1))
			})
		})
	}
}

// A handler that hangs in a batch keeps nothing but its own message: what was handled
// before it is recorded, and what waits behind it is given back.
func TestMaxRunInABatch(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.MaxRun, o.MissingID = maxRun, consume.RunUnprotected
		h := newHung()
		other := &handler{}
		c := e.consumer("billing", o, func(ctx context.Context, m message) error {
			if m.id == "hangs" {
				return h.handle(ctx, m)
			}
			return other.handle(ctx, m)
		})
		batch := []message{{"done", ""}, {"hangs", ""}, {"waits", ""}, {"", "unprotected"}, {"waits", ""}}
		answer := handling(t.Context(), c, batch...)
		<-h.entered
		e.runOut(3)
		elsewhere := e.billing(&handler{})
		r, err := e.Wait(t.Context(), key(t, c, batch[0]))
		require.NoError(t, err)
		assert.Equal(t, idem.Completed, r.State)
		_, err = e.Wait(t.Context(), key(t, c, batch[2]))
		require.Equal(t, idem.ErrNotFound, err)
		v := elsewhere.Handle(t.Context(), batch[2])
		gets(t, consume.Ack, consume.Processed, v)
		assert.Equal(t, 1, v.Attempt)
		close(h.let)
		verdicts := <-answer
		assert.Equal(t, []string{"ack: processed", "ack: processed", "retry: unavailable", "ack: unprotected", "retry: unavailable"}, decisions(verdicts))
		assert.Equal(t, consume.ErrMaxRun, verdicts[2].Err)
		assert.Equal(t, map[message]int{{"done", ""}: 1, {"", "unprotected"}: 1}, other.runs)
	})
}

// A message without protection has nothing to lose but its time.
func TestMaxRunUnprotected(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.MaxRun, o.MissingID = time.Second, consume.RunUnprotected
		c := e.consumer("billing", o, func(ctx context.Context, _ message) error {
			e.clock.BlockUntil(1)
			e.clock.Advance(time.Second)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		v := c.Handle(t.Context(), message{"", "x"})
		gets(t, consume.Retry, consume.Unprotected, v)
		require.Equal(t, consume.ErrMaxRun, v.Err)
	})
}

// Handlers that end in time, panic or call Goexit leave no timer.
func TestMaxRunLeavesNoTimer(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.MaxRun = maxRun
		gets(t, consume.Ack, consume.Processed, e.consumer("billing", o, func(ctx context.Context, _ message) error {
			return ctx.Err()
		}).Handle(t.Context(), m1))
		assert.Zero(t, e.clock.Pending())
		require.Panics(t, func() { e.consumer("mail", o, mustNotRun).Handle(t.Context(), m1) })
		assert.Zero(t, e.clock.Pending())
	})
}
