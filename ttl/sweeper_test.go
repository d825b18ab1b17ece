package ttl_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem/ttl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errSweep = errors.New("the sweep failed")

// script is a Sweep that answers as it is told, and notes when it was called. Its
// bubble's time starts at zero.
type script struct {
	start  time.Time
	timers atomic.Int64 // pending

	mu     sync.Mutex
	at     []time.Duration
	answer func(n int) (more bool, next time.Duration, err error) // of the nth call, from 1
}

func (s *script) now() time.Duration { return time.Since(s.start) }

func (s *script) sweep(context.Context) (bool, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, s.now())
	return s.answer(len(s.at))
}

// calls returns when Sweep was called since the last time.
func (s *script) calls() []time.Duration {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.at = nil }()
	return s.at
}

func (s *script) afterFunc(d time.Duration, f func()) func() bool {
	s.timers.Add(1)
	var once sync.Once
	done := func() { once.Do(func() { s.timers.Add(-1) }) }
	t := time.AfterFunc(d, func() { done(); f() })
	return func() bool { done(); return t.Stop() }
}

func idle(int) (bool, time.Duration, error) { return false, ttl.Idle, nil }

// sweeping runs f in a bubble with a Sweeper that follows the script, has an
// interval of a second and no jitter unless o says so.
func sweeping(t *testing.T, o ttl.Options, answer func(n int) (bool, time.Duration, error), f func(t *testing.T, s *script, w *ttl.Sweeper)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{start: time.Now(), answer: answer}
		if o.Jitter == 0 {
			o.Jitter = -1
		}
		o.Sweep, o.Now, o.AfterFunc = s.sweep, s.now, s.afterFunc
		w := ttl.New(o)
		f(t, s, w)
		w.Close()
		assert.Zero(t, s.timers.Load(), "Close leaves no timer")
	})
}

func seconds(at ...float64) (out []time.Duration) {
	for _, s := range at {
		out = append(out, time.Duration(s*float64(time.Second)))
	}
	return out
}

func TestFirstSweepIsAtOnce(t *testing.T) {
	sweeping(t, ttl.Options{}, idle, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		assert.Equal(t, seconds(0), s.calls())
	})
}

func TestIdleMeansNoTimerAndNoSweep(t *testing.T) {
	sweeping(t, ttl.Options{}, idle, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		s.calls()
		assert.Zero(t, s.timers.Load())
		time.Sleep(10_000 * time.Hour)
		assert.Empty(t, s.calls())
		assert.Zero(t, s.timers.Load())
	})
}

func TestSweepsWhenSomethingIsDue(t *testing.T) {
	next := []time.Duration{5 * time.Second, 100 * time.Second, ttl.Idle}
	answer := func(n int) (bool, time.Duration, error) { return false, next[n-1], nil }
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		time.Sleep(1000 * time.Second)
		assert.Equal(t, seconds(0, 5, 100), s.calls())
	})
}

func TestDueWakesIt(t *testing.T) {
	sweeping(t, ttl.Options{}, idle, func(t *testing.T, s *script, w *ttl.Sweeper) {
		time.Sleep(10 * time.Second)
		s.calls()
		w.Due(60 * time.Second)
		w.Due(90 * time.Second) // later than what is known
		w.Due(30 * time.Second) // sooner
		w.Due(30 * time.Second)
		synctest.Wait()
		assert.Equal(t, int64(1), s.timers.Load(), "one timer, for the soonest")
		time.Sleep(1000 * time.Second)
		assert.Equal(t, seconds(30), s.calls(), "what a sweep leaves, it names")
		w.Due(0) // long past
		assert.Equal(t, seconds(1010), s.calls())
	})
}

// Slices that follow each other rest half as long as they took, so that they have
// two thirds of the time at most.
func TestSlicesRest(t *testing.T) {
	took := []time.Duration{3 * time.Second, 200 * time.Millisecond, time.Millisecond, 0, 0}
	answer := func(n int) (bool, time.Duration, error) {
		time.Sleep(took[n-1])
		return n < len(took), ttl.Idle, nil
	}
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, w *ttl.Sweeper) {
		time.Sleep(3500 * time.Millisecond)
		w.Due(0) // does not cut the rest short
		time.Sleep(1000 * time.Second)
		assert.Equal(t, seconds(0, 4.5, 4.8, 4.8015, 4.8015), s.calls()[:5])
	})
}

// What is named while a sweep runs may not be in what the sweep saw.
func TestDueDuringASweepCounts(t *testing.T) {
	var w *ttl.Sweeper
	answer := func(n int) (bool, time.Duration, error) {
		if n == 2 {
			w.Due(50 * time.Second)
		}
		return false, ttl.Idle, nil
	}
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, sweeper *ttl.Sweeper) {
		synctest.Wait()
		w = sweeper
		w.Due(20 * time.Second)
		time.Sleep(100 * time.Second)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		assert.Equal(t, seconds(0, 20, 50), s.at)
	})
}

func TestIntervalIsRespected(t *testing.T) {
	answer := func(int) (bool, time.Duration, error) { return false, 0, nil } // always due
	sweeping(t, ttl.Options{Interval: 10 * time.Second}, answer, func(t *testing.T, s *script, w *ttl.Sweeper) {
		for range 35 {
			w.Due(0)
			time.Sleep(time.Second)
		}
		assert.Equal(t, seconds(0, 10, 20, 30), s.calls())
	})
}

func TestDefaultInterval(t *testing.T) {
	answer := func(int) (bool, time.Duration, error) { return false, 0, nil }
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		time.Sleep(3*time.Second + time.Millisecond)
		assert.Equal(t, seconds(0, 1, 2, 3), s.calls())
	})
}

func TestAFullSliceIsFollowedAtOnce(t *testing.T) {
	answer := func(n int) (bool, time.Duration, error) { return n < 5, ttl.Idle, nil }
	sweeping(t, ttl.Options{Interval: time.Hour}, answer, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		assert.Equal(t, seconds(0, 0, 0, 0, 0), s.calls())
	})
}

func TestBackoff(t *testing.T) {
	answer := func(n int) (bool, time.Duration, error) {
		switch {
		case n <= 9:
			return true, ttl.Idle, errSweep // its other answers do not count
		case n == 10:
			return false, 300 * time.Second, nil
		case n <= 12:
			return false, 0, errSweep
		}
		return false, ttl.Idle, nil
	}
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, _ *ttl.Sweeper) {
		time.Sleep(10_000 * time.Second)
		assert.Equal(t, seconds(0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 300, 301, 303), s.calls(),
			"each time later, up to a minute, and from the start after one that went well")
	})
}

func TestBackoffWithALongInterval(t *testing.T) {
	answer := func(int) (bool, time.Duration, error) { return false, 0, errSweep }
	sweeping(t, ttl.Options{Interval: 5 * time.Minute}, answer, func(t *testing.T, s *script, w *ttl.Sweeper) {
		time.Sleep(11 * time.Minute)
		w.Due(0)
		assert.Equal(t, seconds(0, 300, 600), s.calls(), "never sooner than the interval")
	})
}

func TestEnded(t *testing.T) {
	answer := func(n int) (bool, time.Duration, error) {
		if n == 3 {
			return false, 0, errSweep
		}
		return false, 0, context.Canceled
	}
	o := ttl.Options{Ended: func(err error) bool { return err == errSweep }}
	sweeping(t, o, answer, func(t *testing.T, s *script, w *ttl.Sweeper) {
		time.Sleep(time.Hour)
		assert.Equal(t, seconds(0, 1, 3), s.calls())
		w.Due(0)
		time.Sleep(time.Hour)
		assert.Empty(t, s.calls())
	})
}

// Close ends the context of a sweep that runs, and returns when it has returned.
func TestCloseWaitsForASweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Bool
		w := ttl.New(ttl.Options{Sweep: func(ctx context.Context) (bool, time.Duration, error) {
			running.Store(true)
			defer running.Store(false)
			<-ctx.Done()
			time.Sleep(time.Minute) // it takes its time
			return true, 0, ctx.Err()
		}})
		synctest.Wait()
		require.True(t, running.Load())
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				w.Close()
				assert.False(t, running.Load())
			})
		}
		wg.Wait()
		assert.Equal(t, time.Minute, time.Since(start))
		w.Close()
		w.Due(0)
	})
}

func TestCloseWhileAsleep(t *testing.T) {
	answer := func(int) (bool, time.Duration, error) { return false, time.Hour, nil }
	sweeping(t, ttl.Options{}, answer, func(t *testing.T, s *script, w *ttl.Sweeper) {
		s.calls()
		require.Equal(t, int64(1), s.timers.Load())
		start := time.Now()
		w.Close()
		assert.Zero(t, time.Since(start))
	})
}

// Jitter spreads the sweeps of many stores; it adds up to its part of the interval
// and takes nothing away.
func TestJitter(t *testing.T) {
	for name, c := range map[string]struct{ jitter, want float64 }{"default": {0, 0.1}, "half": {0.5, 0.5}, "all": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &script{start: time.Now(), answer: func(int) (bool, time.Duration, error) { return false, 0, nil }}
				w := ttl.New(ttl.Options{Sweep: s.sweep, Interval: time.Second, Jitter: c.jitter, Now: s.now})
				time.Sleep(500 * time.Second)
				at := s.calls()
				w.Close()
				least, most := time.Hour, time.Duration(0)
				for i := 1; i < len(at); i++ {
					least, most = min(least, at[i]-at[i-1]), max(most, at[i]-at[i-1])
				}
				assert.GreaterOrEqual(t, least, time.Second)
				assert.LessOrEqual(t, most, time.Second+time.Duration(c.want*float64(time.Second)))
				assert.Greater(t, most-least, time.Duration(c.want*float64(time.Second))/2, "it does spread")
			})
		})
	}
}

// The defaults of time are the machine's own.
func TestDefaultTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		w := ttl.New(ttl.Options{Jitter: -1, Sweep: func(context.Context) (bool, time.Duration, error) {
			at = append(at, time.Since(start))
			return false, time.Duration(len(at)) * time.Minute, nil
		}})
		time.Sleep(150 * time.Second)
		w.Close()
		assert.Equal(t, seconds(0, 60, 120), at)
	})
}

// Due is on the way of every commit: it neither allocates nor blocks, and none is
// lost among many.
func TestDueFromManyGoroutines(t *testing.T) {
	sweeping(t, ttl.Options{}, idle, func(t *testing.T, s *script, w *ttl.Sweeper) {
		s.calls()
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := 200; i > 0; i-- {
					w.Due(time.Duration(100+i+g) * time.Second)
				}
			})
		}
		wg.Wait()
		time.Sleep(1000 * time.Second)
		assert.Equal(t, seconds(101), s.calls())
	})
}

func TestDueAllocatesNothing(t *testing.T) {
	w := ttl.New(ttl.Options{Sweep: func(context.Context) (bool, time.Duration, error) { return false, ttl.Idle, nil }})
	defer w.Close()
	at := 1000 * time.Hour
	w.Due(at)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { w.Due(at) }))
}
