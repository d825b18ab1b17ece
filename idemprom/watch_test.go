package idemprom_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/memory"
)

// gather collects m without a network, for synctest. Values are by series, as in text.
func gather(t *testing.T, m *idemprom.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(m))
	families, err := registry.Gather()
	require.NoError(t, err)
	series := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				if label.GetName() != "store" {
					name += fmt.Sprintf("{%s=%q}", label.GetName(), label.GetValue())
				}
			}
			series[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + metric.GetUntyped().GetValue()
		}
	}
	return series
}

// state returns the one state that is set.
func state(t *testing.T, got map[string]float64) (state string) {
	t.Helper()
	for name, value := range got {
		if name, ok := strings.CutPrefix(name, `idem_store_state{state="`); ok && value == 1 {
			require.Empty(t, state, "two states at once")
			state = strings.TrimSuffix(name, `"}`)
		}
	}
	return state
}

func TestStoreState(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{MaxRecords: 1})
	m := newMetrics(idemprom.Options{})
	require.Empty(t, state(t, gather(t, m)), "before Watch it is not known")
	s := open(t, b, m, idem.Options{SweepInterval: -1})
	require.Equal(t, "open", state(t, gather(t, m)))
	token := claim(t, s, idem.Request{Key: "k"})
	require.Equal(t, "full", state(t, gather(t, m)))

	down := make(chan error)
	go func() { down <- s.Shutdown(t.Context()) }()
	for { // until it has begun
		if _, err := s.Claim(t.Context(), idem.Request{Key: "another"}); errors.Is(err, idem.ErrClosed) {
			break
		}
	}
	require.Equal(t, "draining", state(t, gather(t, m)))
	require.NoError(t, s.Complete(t.Context(), token, nil))
	require.NoError(t, <-down)
	require.Equal(t, "draining", state(t, gather(t, m)), "closed")
}

func TestStateOfABrokenStore(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	m := newMetrics(idemprom.Options{})
	s := open(t, b, m, idem.Options{SweepInterval: -1})
	claim(t, s, idem.Request{Key: "before"})
	cause := errors.New("the disk is gone")
	b.failure.Store(&cause)
	_, err := s.Claim(t.Context(), idem.Request{Key: "k"})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.Equal(t, "broken", state(t, gather(t, m)))
	require.NoError(t, s.Close())

	claim(t, open(t, newToy(memory.Options{}), m, idem.Options{}), idem.Request{Key: "k"})
	got := gather(t, m)
	require.Equal(t, "open", state(t, got), "of the store opened in its place")
	require.Equal(t, 2.0, got[`idem_claims_total{outcome="granted"}`], "counters go on")

	m.Watch(nil)
	got = gather(t, m)
	require.Empty(t, state(t, got))
	require.NotContains(t, got, "idem_lapsed_records")
	require.NotContains(t, got, "idem_stats_timestamp_seconds")
	require.Equal(t, 2.0, got[`idem_claims_total{outcome="granted"}`])
}

// A store that grants no claims because of how it was opened, or because an import has not
// ended, is not taken for one that does not answer.
func TestStateOfAStoreThatIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	reading := newToy(memory.Options{})
	reading.readOnly = true
	m := newMetrics(idemprom.Options{})
	open(t, reading, m, idem.Options{})
	got := gather(t, m)
	assert.Equal(t, "read_only", state(t, got))
	assert.Contains(t, got, "idem_lapsed_records", "it can be counted")

	all := exportOf(t, 1)
	half := len(all) - 8
	s := open(t, newToy(memory.Options{}), m, idem.Options{SweepInterval: -1})
	assert.Equal(t, "open", state(t, gather(t, m)))
	var during string
	_, err := s.Import(t.Context(), io.MultiReader(bytes.NewReader(all[:half]), readFunc(func(p []byte) (int, error) {
		during += state(t, gather(t, m))
		n := copy(p, all[half:])
		half += n
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	})))
	require.NoError(t, err)
	assert.Regexp(t, "^(read_only)+$", during)
	assert.Equal(t, "open", state(t, gather(t, m)))
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// An engine that panics when asked costs the answer and not the process: client_golang
// catches nothing, and the question is put on a goroutine of its own.
func TestScrapeOfAStoreThatPanics(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	m := newMetrics(idemprom.Options{})
	s := open(t, b, m, idem.Options{SweepInterval: -1})
	claim(t, s, idem.Request{Key: "k"})
	check, scan := func() { panic("check") }, func() error { panic("scan") }
	b.onCheck.Store(&check)
	b.onScan.Store(&scan)
	got := gather(t, m)
	assert.Equal(t, "unknown", state(t, got))
	assert.NotContains(t, got, "idem_lapsed_records")
	assert.Equal(t, 1.0, got[`idem_claims_total{outcome="granted"}`])
	require.NoError(t, s.Close(), "it waits for no call that ended so")
}

// When only the walk is late, the state is known. That it is late must not be mistaken for
// a store that does not answer.
func TestWalkHangsAndHealthAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := newToy(memory.Options{})
		m := idemprom.New(idemprom.Options{ScrapeWait: time.Second})
		open(t, b, m, idem.Options{SweepInterval: -1})
		scan := func() error { <-stuck; return nil }
		b.onScan.Store(&scan)
		for range 3 {
			before := time.Now()
			assert.Equal(t, "open", state(t, gather(t, m)))
			assert.Equal(t, time.Second, time.Since(before))
		}
		close(stuck)
		synctest.Wait()
	})
}

// A store that does not answer delays a scrape by ScrapeWait and no more. The events
// are there, and the state is unknown.
func TestScrapeOfAStoreThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := newToy(memory.Options{})
		m := idemprom.New(idemprom.Options{ScrapeWait: 2 * time.Second})
		s := open(t, b, m, idem.Options{SweepInterval: -1})
		claim(t, s, idem.Request{Key: "k"})
		check, scan := func() { <-stuck }, func() error { <-stuck; return nil }
		b.onCheck.Store(&check)
		b.onScan.Store(&scan)
		for range 3 {
			before := time.Now()
			got := gather(t, m)
			assert.Equal(t, 2*time.Second, time.Since(before))
			assert.Equal(t, "unknown", state(t, got))
			assert.Equal(t, 1.0, got[`idem_claims_total{outcome="granted"}`])
			assert.NotContains(t, got, `idem_records{state="in_flight"}`)
		}
		assert.Equal(t, int64(1), b.scans.Load(), "the walk that hangs is not joined by others")
		close(stuck)
		synctest.Wait()
		before := time.Now()
		got := gather(t, m)
		assert.Equal(t, time.Duration(0), time.Since(before))
		assert.Equal(t, "open", state(t, got))
		assert.Equal(t, 1.0, got[`idem_records{state="in_flight"}`], "what the walk found after the scrapes had left")
	})
}

// Scrapes that come at once share the questions, and all see the state.
func TestScrapesAtOnce(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{})
	s := open(t, newToy(memory.Options{}), m, idem.Options{SweepInterval: -1})
	var scrapes, callers sync.WaitGroup
	stop := make(chan struct{})
	callers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c, err := s.Claim(t.Context(), idem.Request{Key: fmt.Sprint("k", i%10)})
				if err == nil {
					_ = s.Release(t.Context(), c.Token, nil)
				}
			}
		}
	})
	for range 8 {
		scrapes.Go(func() {
			for range 20 {
				got := gather(t, m)
				assert.Equal(t, "open", state(t, got))
				assert.Contains(t, got, "idem_lapsed_records")
			}
		})
	}
	scrapes.Wait()
	close(stop)
	callers.Wait()
}

// Records are counted by a scrape, at most every StatsInterval.
func TestWalksArePaced(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	clock := newClock()
	m := newMetrics(idemprom.Options{StatsInterval: 10 * time.Minute})
	s := open(t, b, m, idem.Options{SweepInterval: -1, Clock: clock, Lease: time.Minute})
	inFlight := func() float64 { return gather(t, m)[`idem_records{state="in_flight"}`] }
	assert.Zero(t, b.scans.Load(), "nobody has scraped")
	assert.Equal(t, 0.0, inFlight())
	claim(t, s, idem.Request{Key: "k"})
	clock.Advance(10*time.Minute - 1)
	assert.Equal(t, 0.0, inFlight(), "still the walk before")
	assert.Equal(t, 0.0, gather(t, m)["idem_stats_timestamp_seconds"])
	clock.Advance(1)
	assert.Equal(t, 1.0, inFlight())
	assert.Equal(t, 600.0, gather(t, m)["idem_stats_timestamp_seconds"])

	// A long walk has the store left alone for longer.
	slow := func() error {
		b.onScan.Store(nil)
		clock.Advance(2 * time.Minute)
		return nil
	}
	b.onScan.Store(&slow)
	clock.Advance(10 * time.Minute)
	assert.Equal(t, 1.0, inFlight())
	assert.Equal(t, 120.0, gather(t, m)["idem_stats_duration_seconds"])
	scans := b.scans.Load()
	clock.Advance(38*time.Minute - 1)
	inFlight()
	assert.Equal(t, scans, b.scans.Load())
	clock.Advance(1)
	inFlight()
	assert.Greater(t, b.scans.Load(), scans)
}

func TestRecordsByState(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	clock := newClock()
	m := newMetrics(idemprom.Options{})
	s := open(t, b, m, idem.Options{SweepInterval: -1, Clock: clock, Lease: time.Minute, Retention: time.Hour})
	ctx := t.Context()
	claim(t, s, idem.Request{Key: "expired", Retention: time.Second})
	claim(t, s, idem.Request{Key: "lapsed"})
	claim(t, s, idem.Request{Key: "unknown", HoldUnknown: true})
	clock.Advance(2 * time.Minute)
	require.NoError(t, s.Hold(ctx, claim(t, s, idem.Request{Key: "held"}), nil))
	require.NoError(t, s.Release(ctx, claim(t, s, idem.Request{Key: "released"}), nil))
	require.NoError(t, s.Complete(ctx, claim(t, s, idem.Request{Key: "completed"}), []byte("r")))
	require.NoError(t, s.Fail(ctx, claim(t, s, idem.Request{Key: "failed"}), nil))
	claim(t, s, idem.Request{Key: "flying"})
	_, err := s.Get(ctx, "completed")
	require.NoError(t, err)
	got := gather(t, m)
	for series, want := range map[string]float64{
		`idem_records{state="in_flight"}`: 3, `idem_records{state="released"}`: 1, `idem_records{state="held"}`: 1,
		`idem_records{state="completed"}`: 1, `idem_records{state="failed"}`: 1, "idem_lapsed_records": 2,
		"idem_unsettled_records": 2, "idem_expired_records": 1, "idem_corrupt_records": 0, "idem_oldest_in_flight_seconds": 120,
		"idem_cache_entries": 1, "idem_stats_duration_seconds": 0,
	} {
		assert.Equal(t, want, got[series], series)
	}
	assert.Positive(t, got["idem_engine_bytes"])
	assert.Positive(t, got["idem_cache_bytes"])
}

// A walk that fails leaves the numbers of the one before, with their time.
func TestWalkFails(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	clock := newClock()
	m := newMetrics(idemprom.Options{})
	s := open(t, b, m, idem.Options{SweepInterval: -1, Clock: clock})
	fail := func() error { return errors.New("not now") }
	b.onScan.Store(&fail)
	clock.Advance(30 * time.Second)
	got := gather(t, m)
	assert.NotContains(t, got, "idem_lapsed_records", "there are none yet")
	require.Contains(t, got, "idem_stats_timestamp_seconds", "an alert must tell that there are none")
	assert.Equal(t, 0.0, got["idem_stats_timestamp_seconds"], "since Watch")
	b.onScan.Store(nil)
	claim(t, s, idem.Request{Key: "k"})
	clock.Advance(time.Minute)
	got = gather(t, m)
	require.Equal(t, 1.0, got[`idem_records{state="in_flight"}`])
	require.Equal(t, 90.0, got["idem_stats_timestamp_seconds"])
	b.onScan.Store(&fail)
	clock.Advance(time.Minute)
	got = gather(t, m)
	assert.Equal(t, 1.0, got[`idem_records{state="in_flight"}`])
	assert.Equal(t, 90.0, got["idem_stats_timestamp_seconds"])
}

// Without walks, and with an engine that cannot list its records, the rest is there.
func TestWithoutWalks(t *testing.T) {
	t.Parallel()
	b := newToy(memory.Options{})
	m := newMetrics(idemprom.Options{StatsInterval: -1})
	open(t, b, m, idem.Options{SweepInterval: -1})
	got := gather(t, m)
	assert.Equal(t, "open", state(t, got))
	assert.NotContains(t, got, "idem_lapsed_records")
	assert.NotContains(t, got, "idem_stats_timestamp_seconds", "nothing is stale")
	assert.Zero(t, b.scans.Load())

	m = newMetrics(idemprom.Options{})
	open(t, plain{memory.New(memory.Options{})}, m, idem.Options{})
	got = gather(t, m)
	assert.Equal(t, "open", state(t, got))
	assert.NotContains(t, got, "idem_lapsed_records")
	assert.NotContains(t, got, "idem_stats_timestamp_seconds", "nothing is stale")
}
