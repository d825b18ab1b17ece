package consume_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

const wait = 5 * time.Second

// waiting are options with a Wait.
func waiting(d time.Duration) consume.Options[message] {
	o := messages()
	o.Wait = d
	return o
}

// twin claims m as another delivery of it has.
func (e *env) twin(c *consume.Consumer[message], m message) idem.Claim {
	e.t.Helper()
	k, err := c.Key(m)
	require.NoError(e.t, err)
	claim, err := e.Claim(context.Background(), idem.Request{Key: k, Fingerprint: idem.FingerprintOf([]byte(m.body))})
	require.NoError(e.t, err)
	return claim
}

// handling handles a batch elsewhere. Its answer is there when that has returned.
func handling(ctx context.Context, c *consume.Consumer[message], ms ...message) <-chan []consume.Verdict {
	answer := make(chan []consume.Verdict, 1)
	go func() { answer <- c.HandleBatch(ctx, ms) }()
	return answer
}

// twinEnds are the ways in which a twin ends: what the delivery that waits for it is told,
// now and if the store is shutting down, and the attempts there were then.
var twinEnds = map[string]struct {
	end              func(*idem.Store, idem.Token) error
	want, inShutdown string
	attempts         int
}{
	"completed": {
		func(s *idem.Store, t idem.Token) error { return s.Complete(context.Background(), t, nil) },
		"ack: duplicate", "ack: duplicate", 1,
	},
	"failed": {
		func(s *idem.Store, t idem.Token) error { return s.Fail(context.Background(), t, []byte("no account")) },
		"dead: permanent: idem: operation has failed for good: no account",
		"dead: permanent: idem: operation has failed for good: no account", 1,
	},
	"held": {
		func(s *idem.Store, t idem.Token) error { return s.Hold(context.Background(), t, []byte("no answer")) },
		"dead: held: idem: operation is held, its outcome is unknown: no answer",
		"dead: held: idem: operation is held, its outcome is unknown: no answer", 1,
	},
	"released": {
		func(s *idem.Store, t idem.Token) error { return s.Release(context.Background(), t, nil) },
		"ack: processed", "retry: unavailable: idem: store is closed", 2,
	},
	"undone":    {func(s *idem.Store, t idem.Token) error { return s.Unclaim(context.Background(), t) }, "ack: processed", "", 1},
	"forgotten": {func(s *idem.Store, t idem.Token) error { return s.Forget(context.Background(), t) }, "ack: processed", "", 1},
}

// A delivery that waits is told at once how its twin ended, and runs if nobody has.
func TestWait(t *testing.T) {
	for name, c := range twinEnds {
		for mode, max := range map[string]int{"": 0, ", attempts counted": 9} {
			t.Run(name+mode, func(t *testing.T) {
				each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
					consumer := e.consumer("billing", waiting(wait), func(context.Context, message) error { return nil })
					twin := e.twin(consumer, m1)
					answer := handling(t.Context(), consumer, m1)
					e.clock.BlockUntil(2) // the end of the twin's lease, and that of Wait
					require.Empty(t, answer)
					require.NoError(t, c.end(e.Store, twin.Token))
					v := (<-answer)[0]
					assert.Equal(t, c.want, v.String())
					assert.Equal(t, c.attempts, v.Attempt)
					assert.Zero(t, e.clock.Pending())
				})
			})
		}
	}
}

// It is told also where the store has begun to shut down and answers no claim any more.
func TestWaitDuringShutdown(t *testing.T) {
	for name, c := range twinEnds {
		if c.inShutdown == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{}, func(t *testing.T, e *env) {
				consumer := e.consumer("billing", waiting(wait), mustNotRun)
				twin := e.twin(consumer, m1)
				answer := handling(t.Context(), consumer, m1)
				e.clock.BlockUntil(2) // the end of the twin's lease, and that of Wait
				down := make(chan error, 1)
				go func() { down <- e.Shutdown(context.Background()) }()
				e.clock.BlockUntil(3)
				require.NoError(t, c.end(e.Store, twin.Token))
				assert.Equal(t, c.inShutdown, (<-answer)[0].String())
				require.NoError(t, <-down)
			})
		})
	}
}

// A twin that does not end in time is in flight; the delay is what is left of its lease.
func TestWaitIsOver(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", waiting(wait), mustNotRun)
		e.twin(c, m1)
		answer := handling(t.Context(), c, m1)
		e.clock.BlockUntil(2)
		e.clock.Advance(wait - 1)
		require.Empty(t, answer)
		e.clock.Advance(1)
		v := (<-answer)[0]
		gets(t, consume.Retry, consume.InFlight, v)
		assert.Equal(t, idem.ErrInFlight, v.Err)
		assert.Equal(t, lease-wait, v.After)
		assert.Zero(t, e.clock.Pending())
	})
}

// A twin that died is taken over when its lease ends.
func TestWaitOutlivesTheLease(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", waiting(2*lease), func(context.Context, message) error { return nil })
		e.twin(c, m1)
		answer := handling(t.Context(), c, m1)
		e.clock.BlockUntil(2)
		e.clock.Advance(lease)
		v := (<-answer)[0]
		gets(t, consume.Ack, consume.Processed, v)
		assert.Equal(t, 2, v.Attempt)
	})
}

// In a batch the others go first, and nothing is claimed while it waits. What it waits in
// all is bounded, and whatever ended within that is told.
func TestWaitInABatch(t *testing.T) {
	for name, max := range map[string]int{"in one commit": 0, "one by one": 9} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
				var ran []string
				second := make(chan struct{})
				c := e.consumer("billing", waiting(wait), func(_ context.Context, m message) error {
					if ran = append(ran, m.id); m.id == "2" {
						close(second)
					}
					return nil
				})
				e.twin(c, message{"slow", ""})
				ends, released := e.twin(c, message{"ends", ""}), e.twin(c, message{"released", ""})
				answer := handling(t.Context(), c,
					message{"1", ""}, message{"slow", ""}, message{"ends", ""}, message{"2", ""}, message{"released", ""}, message{"ends", ""})
				<-second
				for _, id := range []string{"1", "2"} {
					r, err := e.Wait(t.Context(), "consume/billing/"+id)
					require.NoError(t, err)
					assert.Equal(t, idem.Completed, r.State, "it is recorded before the others are waited for")
				}
				e.clock.BlockUntil(2)
				assert.Equal(t, 2, e.clock.Pending(), "no heartbeat goes on")
				require.NoError(t, e.Complete(t.Context(), ends.Token, nil))
				require.NoError(t, e.Release(t.Context(), released.Token, nil))
				require.Empty(t, answer)
				e.clock.Advance(wait)
				assert.Equal(t, []string{
					"ack: processed", "retry: in_flight", "ack: duplicate", "ack: processed", "ack: processed", "ack: duplicate",
				}, decisions(<-answer))
				assert.Equal(t, []string{"1", "2", "released"}, ran)
			})
		})
	}
}

// What one call waits in all is bounded, however many messages it waits for.
func TestWaitIsOfTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
		c, err := consume.New(s, "billing", mustNotRun, waiting(wait))
		require.NoError(t, err)
		batch := []message{{"1", ""}, {"2", ""}, {"3", ""}}
		var twins []idem.Claim
		for _, m := range batch {
			claim, err := s.Claim(t.Context(), idem.Request{Key: key(t, c, m), Fingerprint: idem.FingerprintOf(nil)})
			require.NoError(t, err)
			twins = append(twins, claim)
		}
		start := time.Now()
		answer := handling(t.Context(), c, batch...)
		time.Sleep(wait - time.Second)
		require.NoError(t, s.Complete(t.Context(), twins[0].Token, nil))
		assert.Equal(t, []string{"ack: duplicate", "retry: in_flight", "retry: in_flight"}, decisions(<-answer))
		assert.Equal(t, wait, time.Since(start))
	})
}

// Two consumers, each with a message that the other waits for, do not keep each other.
func TestWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
		m1, m2 := message{"1", ""}, message{"2", ""}
		running := map[message]chan struct{}{m1: make(chan struct{}), m2: make(chan struct{})}
		c, err := consume.New(s, "billing", func(_ context.Context, m message) error {
			close(running[m])
			for _, begun := range running {
				<-begun
			}
			return nil
		}, waiting(time.Hour))
		require.NoError(t, err)
		// One gets the first while somebody else has the second, the other the second.
		start := time.Now()
		second, err := s.Claim(t.Context(), idem.Request{Key: key(t, c, m2)})
		require.NoError(t, err)
		one := handling(t.Context(), c, m1, m2)
		<-running[m1]
		require.NoError(t, s.Unclaim(t.Context(), second.Token))
		other := handling(t.Context(), c, m2, m1)
		assert.Equal(t, []string{"ack: processed", "ack: duplicate"}, decisions(<-one))
		assert.Equal(t, []string{"ack: processed", "ack: duplicate"}, decisions(<-other))
		assert.Zero(t, time.Since(start))
	})
}

// A handler that handles its own message again would wait for itself.
func TestWaitForOneself(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		var c *consume.Consumer[message]
		c = e.consumer("billing", waiting(wait), func(ctx context.Context, m message) error {
			gets(t, consume.Retry, consume.InFlight, c.Handle(ctx, m))
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
	})
}

// Another message under the ID of one in flight is no twin to wait for.
func TestNoWaitForAMismatch(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", waiting(wait), mustNotRun)
		e.twin(c, m1)
		gets(t, consume.Dead, consume.Mismatch, c.Handle(t.Context(), message{m1.id, "other"}))
	})
}

// Waiting ends with ctx, and with the store.
func TestWaitIsCutShort(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", waiting(wait), mustNotRun)
		m2 := message{"evt-2", ""}
		e.twin(c, m1)
		e.twin(c, m2)
		ctx, cancel := context.WithCancelCause(t.Context())
		answer := handling(ctx, c, m1, m2)
		e.clock.BlockUntil(2)
		cancel(errors.New("shutting down"))
		assert.Equal(t, []string{"retry: in_flight", "retry: in_flight"}, decisions(<-answer))
		assert.Zero(t, e.clock.Pending())

		answer = handling(t.Context(), c, m1)
		e.clock.BlockUntil(2)
		require.NoError(t, e.Close())
		v := (<-answer)[0]
		gets(t, consume.Retry, consume.Unavailable, v)
		require.ErrorIs(t, v.Err, idem.ErrClosed)
	})
}

// Many workers that wait: each message is run once, and every delivery of it is told.
func TestManyWorkersWait(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		h := &handler{}
		c := e.consumer("billing", waiting(wait), h.handle)
		batch := []message{{"1", ""}, {"2", ""}, {"3", ""}}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for _, v := range c.HandleBatch(context.Background(), batch) {
					assert.Equal(t, consume.Ack, v.Decision, v.String())
				}
			})
		}
		wg.Wait()
		assert.Equal(t, int64(3), h.all.Load())
	})
}
