package idem_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// expired returns a store with n records that have expired, one second apart.
func expired(t *testing.T, n int, o idem.Options) (*idem.Store, *storetest.Stub, *idemtest.Clock) {
	clock := newClock()
	b := storetest.NewStub()
	o.Clock, o.SweepInterval, o.Lease, o.Retention = clock, -1, time.Minute, time.Hour
	s := open(t, storetest.Rich{Stub: b}, o)
	for i := range n {
		mustClaim(t, s, idem.Request{Key: fmt.Sprint("key", i)})
		clock.Advance(time.Second)
	}
	clock.Advance(100 * time.Hour)
	return s, b, clock
}

// At most limit, in time order, so many a commit.
func TestSweepInSlices(t *testing.T) {
	t.Parallel()
	s, b, _ := expired(t, 10, idem.Options{SweepSlice: 3})
	var sizes []int
	b.OnApply = func(_ context.Context, ops []engine.Op) error {
		sizes = append(sizes, len(ops))
		return nil
	}
	n, err := s.Sweep(t.Context(), 7)
	require.NoError(t, err)
	assert.Equal(t, 7, n)
	assert.Equal(t, []int{3, 3, 1}, sizes)
	for i := range 10 {
		assert.Equal(t, i >= 7, b.Entries[fmt.Sprint("key", i)] != nil, "key%d", i)
	}
	n, err = s.Sweep(t.Context(), 100)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Empty(t, b.Places)
	n, err = s.Sweep(t.Context(), 100)
	require.NoError(t, err)
	assert.Zero(t, n)
}

// Slices go on where the one before ended in time, whatever the order of their
// keys, and pass over what they cannot read.
func TestSweepGoesOnInTime(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1, SweepSlice: 3, Lease: time.Minute, Retention: time.Hour})
	bad := map[string]error{}
	for i := range 12 {
		key := fmt.Sprintf("key%02d", 99-i) // the earlier the later
		mustClaim(t, s, idem.Request{Key: key})
		clock.Advance(time.Second)
		if i%3 == 2 {
			bad[key] = idem.ErrCorrupt
		}
	}
	b.Corrupt.Store(&bad)
	clock.Advance(100 * time.Hour)
	looks := b.Looks.Load()
	n, err := s.Sweep(t.Context(), 100)
	require.NoError(t, err)
	assert.Equal(t, 8, n)
	assert.Equal(t, looks+5, b.Looks.Load(), "four slices, and one to find no more")
}

// What a sweep has read and found expired was forgotten and claimed anew since:
// the new record stays.
func TestSweepReadBeforeAClaim(t *testing.T) {
	t.Parallel()
	s, b, _ := expired(t, 1, idem.Options{})
	raced := false
	b.AfterGet = func(string) {
		b.AfterGet, raced = nil, true
		mustClaim(t, s, idem.Request{Key: "key0"})
	}
	n, err := s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	require.True(t, raced)
	assert.Zero(t, n)
	assert.Equal(t, idem.InFlight, get(t, s, "key0").State)
	assert.Zero(t, b.Mistaken.Load())
}

// What lives on is put back at its time, and looked at no more before.
func TestSweepPutsBack(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{Clock: clock, SweepInterval: -1, Lease: time.Minute, Retention: time.Hour})
	c := mustClaim(t, s, k)
	clock.Advance(50 * time.Minute)
	require.NoError(t, s.Complete(t.Context(), c.Token, nil))
	clock.Advance(time.Hour - 1)
	n, err := s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Zero(t, n)
	get(t, s, "k")
	applies := b.Applies.Load()
	_, err = s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Equal(t, applies, b.Applies.Load())
	clock.Advance(1)
	n, err = s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
}

// A place that leads to nothing, or to a record that stands elsewhere, goes.
func TestSweepDropsStalePlaces(t *testing.T) {
	t.Parallel()
	s, b, clock := expired(t, 1, idem.Options{})
	b.Places[engine.Due{At: 5, Key: "nothing"}] = true
	b.Places[engine.Due{At: 6, Key: "key0"}] = true
	mustClaim(t, s, idem.Request{Key: "alive"})
	b.Places[engine.Due{At: 7, Key: "alive"}] = true
	n, err := s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	require.Len(t, b.Places, 1)
	get(t, s, "alive")
	clock.Advance(100 * time.Hour)
	n, err = s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Equal(t, 1, n, "its own place was left")
}

// A record that cannot be read is passed over.
func TestSweepPassesOverBadRecords(t *testing.T) {
	t.Parallel()
	var told recorder
	s, b, _ := expired(t, 5, idem.Options{SweepSlice: 2, Observer: told.observe})
	b.Damage("key0", "key1", "key3")
	told.take()
	n, err := s.Sweep(t.Context(), 10)
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	events := told.take()
	last := events[len(events)-1]
	assert.Equal(t, idem.SweepDone, last.Kind)
	assert.Equal(t, 3, last.Corrupt)
	assert.Len(t, b.Entries, 3)
}

func TestSweepErrors(t *testing.T) {
	t.Parallel()
	s, b, _ := expired(t, 6, idem.Options{SweepSlice: 2})
	applies := 0
	b.OnApply = func(context.Context, []engine.Op) error {
		if applies++; applies == 2 {
			return storetest.ErrDisk
		}
		return nil
	}
	n, err := s.Sweep(t.Context(), 10)
	require.ErrorIs(t, err, storetest.ErrDisk)
	assert.Equal(t, 2, n, "what was removed is told all the same")
	b.Blind.Store(true)
	n, err = s.Sweep(t.Context(), 10)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	assert.Zero(t, n)
}

// backgroundTest runs f in a bubble with a store that sweeps by itself.
func backgroundTest(t *testing.T, f func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder)) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		told := new(recorder)
		s := open(t, storetest.Rich{Stub: b}, idem.Options{
			Lease: time.Minute, Retention: time.Hour, SweepInterval: 10 * time.Second, SweepSlice: 4, Observer: told.observe,
		})
		f(t, s, b, told)
	})
}

func entries(b *storetest.Stub) (n int) {
	b.Locked(func() { n = len(b.Entries) })
	return n
}

// What expires is gone soon after, in bounded slices; while nothing is
// due nothing is looked at.
func TestBackgroundSweep(t *testing.T) {
	backgroundTest(t, func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder) {
		for i := range 10 {
			c := mustClaim(t, s, idem.Request{Key: fmt.Sprint("key", i)})
			require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		}
		forever := mustClaim(t, s, idem.Request{Key: "forever", Retention: idem.Forever})
		require.NoError(t, s.Complete(t.Context(), forever.Token, nil))
		told.take()
		time.Sleep(time.Hour - 1)
		synctest.Wait()
		assert.Equal(t, 11, entries(b))
		applies := b.Applies.Load()

		time.Sleep(20 * time.Second)
		synctest.Wait()
		assert.Equal(t, 1, entries(b))
		swept := 0
		for _, e := range told.take() {
			if e.Kind == idem.SweepDone {
				swept += e.Count
				assert.LessOrEqual(t, e.Count, 4)
				assert.Less(t, e.Duration, 20*time.Second, "the lag")
			}
		}
		assert.Equal(t, 10, swept)
		assert.Equal(t, applies+3, b.Applies.Load(), "slices of four")
		looks := b.Looks.Load()
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		assert.Equal(t, looks, b.Looks.Load(), "nothing is due, nobody looks")
	})
}

func TestBackgroundSweepOfBadRecords(t *testing.T) {
	backgroundTest(t, func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder) {
		mustClaim(t, s, idem.Request{Key: "bad"})
		mustClaim(t, s, idem.Request{Key: "good"})
		b.Damage("bad")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, 1, entries(b))
		told.take()
		applies := b.Applies.Load()
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		assert.Equal(t, applies, b.Applies.Load(), "what was passed over does not keep the sweeper awake")
	})
}

func TestBackgroundSweepAfterErrors(t *testing.T) {
	backgroundTest(t, func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder) {
		mustClaim(t, s, k)
		b.Blind.Store(true)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		failures := 0
		for _, e := range told.take() {
			if e.Kind == idem.SweepFailed {
				failures++
				assert.ErrorIs(t, e.Err, idem.ErrCorrupt)
			}
		}
		assert.Greater(t, failures, 10)
		assert.Less(t, failures, 200, "later and later, up to a minute apart")
		assert.Equal(t, 1, entries(b))
		b.Blind.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		assert.Zero(t, entries(b))
	})
}

// A broken store has nothing more to sweep: the goroutine ends by itself.
func TestBackgroundSweepEndsWithTheStore(t *testing.T) {
	backgroundTest(t, func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder) {
		mustClaim(t, s, k)
		told.take()
		synctest.Wait()
		looks := b.Looks.Load()
		b.Fail(storetest.ErrDisk)
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		assert.Equal(t, looks+1, b.Looks.Load())
		assert.Contains(t, kinds(told.take()), "store_broken", "and it told, for nobody else had asked")
	})
}

// A record that becomes due after the sweep's last look and before the sweeper goes to
// sleep is not left until something else is due.
func TestDueWhileTheSweepEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewStub()
		var once sync.Once
		var expiring atomic.Bool
		b.OnScan = func(string) error {
			if expiring.Load() && entries(b) == 1 { // the sweep that removed the first looks for another
				once.Do(func() { time.Sleep(2 * time.Second) })
			}
			return nil
		}
		s := open(t, storetest.Rich{Stub: b}, idem.Options{Lease: time.Minute, Retention: time.Hour})
		mustClaim(t, s, idem.Request{Key: "first"})
		time.Sleep(time.Second)
		mustClaim(t, s, idem.Request{Key: "second"})
		expiring.Store(true)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Zero(t, entries(b))
	})
}

// A sweep that Close ends, or its caller, has not failed.
func TestASweepThatIsEndedHasNotFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := storetest.NewRich()
		var looking gate
		looking.shut()
		b.OnScan = func(string) error { looking.pass(); return nil }
		told := new(recorder)
		s := open(t, b, idem.Options{Observer: told.observe})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { _, err := s.Sweep(ctx, 1); ended <- err }()
		synctest.Wait() // both sweeps are looking
		cancel()
		go func() { ended <- s.Close() }()
		synctest.Wait()
		looking.open()
		for range 2 {
			if err := <-ended; err != nil {
				require.NotErrorIs(t, err, idem.ErrBroken)
			}
		}
		synctest.Wait()
		assert.NotContains(t, kinds(told.take()), "sweep_failed")
	})
}

// What a sweep has removed is told, also if its caller ends it then.
func TestAnEndedSweepTellsWhatItRemoved(t *testing.T) {
	t.Parallel()
	told := new(recorder)
	s, b, _ := expired(t, 3, idem.Options{SweepSlice: 1, Observer: told.observe})
	told.take()
	ctx, cancel := context.WithCancel(t.Context())
	b.OnScan = func(string) error {
		if entries(b) < 3 {
			cancel()
		}
		return nil
	}
	n, err := s.Sweep(ctx, 3)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, n)
	events := told.take()
	require.Equal(t, "commit_done sweep_done", kinds(events))
	require.Equal(t, 1, events[1].Count)
}

// No timer is left when nothing will be due.
func TestIdleStoreHasNoTimer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clock := newClock()
		s := open(t, memory.New(memory.Options{}), idem.Options{Clock: clock})
		synctest.Wait()
		clock.Advance(time.Minute) // past the first sweep and its interval
		synctest.Wait()
		assert.Zero(t, clock.Pending())
		c := mustClaim(t, s, idem.Request{Key: "k", Retention: idem.Forever})
		require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		synctest.Wait()
		assert.Zero(t, clock.Pending(), "a record that stays forever")
		mustClaim(t, s, idem.Request{Key: "other"})
		synctest.Wait()
		assert.Equal(t, 1, clock.Pending())
		require.NoError(t, s.Forget(t.Context(), idem.Token{Key: "other"}))
		clock.Advance(100 * time.Hour)
		synctest.Wait()
		clock.Advance(time.Minute)
		synctest.Wait()
		assert.Zero(t, clock.Pending())
	})
}

// Beside calls of others a slice is a quarter as large.
func TestBackgroundSweepBesideOthers(t *testing.T) {
	backgroundTest(t, func(t *testing.T, s *idem.Store, b *storetest.Stub, told *recorder) {
		for i := range 8 {
			c := mustClaim(t, s, idem.Request{Key: fmt.Sprint("key", i)})
			require.NoError(t, s.Complete(t.Context(), c.Token, nil))
		}
		synctest.Wait()
		time.Sleep(time.Hour - 1)
		synctest.Wait()
		reading, release := make(chan struct{}), make(chan struct{})
		b.OnRead = func(key string) error {
			if key == "other" {
				close(reading)
				<-release
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Get(t.Context(), "other")
			assert.Equal(t, idem.ErrNotFound, err)
		})
		<-reading
		told.take()
		applies := b.Applies.Load()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		assert.Zero(t, entries(b))
		assert.Equal(t, applies+8, b.Applies.Load(), "slices of one")
		close(release)
		wg.Wait()
	})
}
