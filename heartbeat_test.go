package idem_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

// A claim of ClaimMany is held as one of Do is, also when the ctx of its work has
// been cancelled, until stop.
func TestHeartbeatHolds(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		claim := s.ClaimMany(t.Context(), []idem.Request{{Key: "k", Lease: time.Second}})[0].Claim
		ctx, cancel := context.WithCancel(t.Context())
		kept, stop := s.Heartbeat(ctx, claim)
		time.Sleep(10 * time.Second)
		require.NoError(t, kept.Err())
		cancel()
		<-kept.Done()
		assert.Equal(t, context.Canceled, context.Cause(kept))
		time.Sleep(10 * time.Second)
		refused, err := s.Claim(t.Context(), k)
		require.Equal(t, idem.ErrInFlight, err)
		left := time.Until(refused.Record.LeaseUntil)
		assert.Greater(t, left, 500*time.Millisecond, "a third of the claim's own lease has passed at most")
		assert.LessOrEqual(t, left, time.Second)

		stop()
		stop()
		time.Sleep(time.Second)
		second, err := s.Claim(t.Context(), k)
		require.NoError(t, err, "nobody extends it now")
		assert.Equal(t, 2, second.Record.Attempt)
	})
}

// A claim that is lost all the same cancels the work, with why.
func TestHeartbeatLost(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(s *idem.Store) error
		why  error
	}{
		"forgotten": {func(s *idem.Store) error { return s.Forget(context.Background(), idem.Token{Key: "k"}) }, idem.ErrFenced},
		"closed":    {(*idem.Store).Close, idem.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				kept, stop := s.Heartbeat(t.Context(), mustClaim(t, s, k))
				defer stop()
				synctest.Wait()
				require.NoError(t, c.lose(s))
				start := time.Now()
				<-kept.Done()
				assert.Equal(t, c.why, context.Cause(kept))
				assert.Equal(t, time.Minute/3, time.Since(start))
				stop()
				assert.Equal(t, c.why, context.Cause(kept), "stopping does not hide it")
			})
		})
	}
}

func TestHeartbeatStopCancels(t *testing.T) {
	doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
		kept, stop := s.Heartbeat(t.Context(), mustClaim(t, s, k))
		stop()
		require.Equal(t, context.Canceled, kept.Err())
		synctest.Wait()
	})
}

// Whatever the wall clock shows, beats come at the pace of elapsed time.
func TestHeartbeatAtTheEdges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		start time.Time
		step  time.Duration // of the wall clock, before the claim
		lease time.Duration
		beats time.Duration
	}{
		"from the epoch":          {time.Unix(0, 0), 0, 3 * time.Second, time.Second},
		"the longest":             {time.Unix(1e9, 0), 0, idem.Forever, 0},
		"a clock beyond all time": {time.Unix(8e9, 0), idem.Forever, 3 * time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := idemtest.NewClock(c.start)
			beats := make(chan struct{}, 1)
			s := open(t, memory.New(memory.Options{}), idem.Options{
				Clock: clock, Lease: 30 * time.Second, SweepInterval: -1,
				Observer: func(_ context.Context, e idem.Event) {
					if e.Kind == idem.LeaseExtended {
						beats <- struct{}{}
					}
				},
			})
			clock.StepWall(c.step)
			kept, stop := s.Heartbeat(t.Context(), mustClaim(t, s, idem.Request{Key: "k", Lease: c.lease}))
			defer stop()
			clock.BlockUntil(1)
			if c.beats == 0 {
				clock.Advance(1000 * time.Hour)
			} else {
				clock.Advance(c.beats - 1)
			}
			assert.Equal(t, 1, clock.Pending(), "not yet")
			assert.Empty(t, beats)
			if c.beats > 0 {
				clock.Advance(1)
				<-beats
			}
			assert.NoError(t, kept.Err())
		})
	}
}

func TestOptionsInEffect(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{MaxBatch: 7})
	o := s.Options()
	assert.Equal(t, 7, o.MaxBatch)
	assert.Equal(t, 30*time.Second, o.Lease)
	assert.Equal(t, 24*time.Hour, o.Retention)
	assert.Equal(t, 1<<20, o.MaxResult)
	assert.NotNil(t, o.Clock)
}
