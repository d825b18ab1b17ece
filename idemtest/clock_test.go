package idemtest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
)

var _ idem.Clock = (*idemtest.Clock)(nil)

func TestClockMoves(t *testing.T) {
	t.Parallel()
	start := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	c := idemtest.NewClock(start)
	at := func(wall time.Time, elapsed time.Duration) {
		t.Helper()
		w, e := c.Now()
		require.True(t, wall.Equal(w), "the wall clock reads %v, not %v", w, wall)
		require.Equal(t, elapsed, e)
	}
	at(start, 0)
	c.Advance(time.Hour)
	at(start.Add(time.Hour), time.Hour)
	c.StepWall(-2 * time.Hour)
	at(start.Add(-time.Hour), time.Hour)
	c.StepWall(50 * 365 * 24 * time.Hour)
	c.Advance(0)
	at(start.Add(50*365*24*time.Hour-time.Hour), time.Hour)
	require.Panics(t, func() { c.Advance(-1) }, "elapsed time does not go back")
}

func TestClockTimers(t *testing.T) {
	t.Parallel()
	c := idemtest.NewClock(time.Unix(0, 0))
	fired := make(chan string, 10)
	timer := func(name string, d time.Duration) (stop func() bool) {
		return c.AfterFunc(d, func() { fired <- name })
	}
	timer("at once", 0)
	require.Equal(t, "at once", <-fired)

	stopA := timer("a", time.Second)
	stopB := timer("b", 2*time.Second)
	timer("never", 1<<63-1)
	require.Equal(t, 3, c.Pending())
	c.Advance(time.Second - 1)
	require.Equal(t, 3, c.Pending(), "a nanosecond is left")
	c.StepWall(time.Hour)
	require.Equal(t, 3, c.Pending(), "timers go by elapsed time")
	c.Advance(1)
	require.Equal(t, "a", <-fired)
	require.False(t, stopA(), "it has fired")
	require.True(t, stopB())
	require.False(t, stopB(), "it was stopped before")
	c.Advance(1000 * time.Hour)
	require.Equal(t, 1, c.Pending())
	require.Empty(t, fired)

	// A timer may start another, and use the clock.
	c.AfterFunc(1, func() {
		c.Now()
		timer("second", 1)
	})
	c.Advance(1)
	c.BlockUntil(2)
	c.Advance(1)
	require.Equal(t, "second", <-fired)
}

func TestClockBlockUntil(t *testing.T) {
	t.Parallel()
	const n = 50
	c := idemtest.NewClock(time.Unix(0, 0))
	c.BlockUntil(0)
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			done := make(chan struct{})
			c.AfterFunc(time.Minute, func() { close(done) })
			<-done
			wg.Done()
		}()
	}
	c.BlockUntil(n)
	require.Equal(t, n, c.Pending())
	c.Advance(time.Minute)
	wg.Wait()
	require.Zero(t, c.Pending())
}
