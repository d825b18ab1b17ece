package idemprom_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/memory"
)

// Each event changes these series by one, and no others besides a histogram's.
func TestEventsAreCounted(t *testing.T) {
	t.Parallel()
	for kind, want := range map[idem.EventKind][]string{
		0:                       nil,
		idem.ClaimGranted:       {`idem_claims_total{outcome="granted"}`},
		idem.ClaimTakeover:      {`idem_claims_total{outcome="takeover"}`},
		idem.ClaimReplayed:      {`duplicate_request_count`, `idem_claims_total{outcome="replayed"}`},
		idem.ClaimInFlight:      {`duplicate_request_count`, `idem_claims_total{outcome="in_flight"}`},
		idem.ClaimMismatch:      {`idem_claims_total{outcome="mismatch"}`},
		idem.ClaimFailed:        {`duplicate_request_count`, `idem_claims_total{outcome="failed"}`},
		idem.ClaimHeld:          {`duplicate_request_count`, `idem_claims_total{outcome="held"}`},
		idem.ClaimExhausted:     {`duplicate_request_count`, `idem_claims_total{outcome="exhausted"}`},
		idem.ClaimFull:          {`idem_claims_total{outcome="full"}`},
		idem.ClaimTooLate:       {`idem_claims_total{outcome="too_late"}`},
		idem.OperationCompleted: {`idem_attempt_duration_seconds_count{outcome="completed"}`},
		idem.OperationFailed:    {`idem_attempt_duration_seconds_count{outcome="failed"}`},
		idem.OperationReleased:  {`idem_attempt_duration_seconds_count{outcome="released"}`},
		idem.OperationHeld:      {`idem_attempt_duration_seconds_count{outcome="held"}`},
		idem.OperationUnclaimed: {`idem_unclaimed_total`},
		idem.LeaseExtended:      {`idem_lease_extensions_total`},
		idem.CheckpointSaved:    {`idem_checkpoints_total`},
		idem.TokenRefused:       {`idem_stale_tokens_total`},
		idem.RecordForgotten:    {`idem_forgotten_total`},
		idem.CacheHit:           {`idem_cache_lookups_total{result="hit"}`, `idempotency_cache_hits`},
		idem.CacheMiss:          {`idem_cache_lookups_total{result="miss"}`},
		idem.SweepDone:          nil, // of nothing
		idem.SweepFailed:        {`idem_sweep_failures_total`},
		idem.CommitDone:         {`idem_commit_duration_seconds_count`, `idem_commit_group_size_count`},
		idem.StoreBroken:        nil, // idem_store_state says so
		idem.StoreBroken + 1:    nil, // of a store that is newer than this module
		255:                     nil,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			m := newMetrics(idemprom.Options{})
			server := scraper(t, m)
			before := scrape(t, server)
			m.Observe(t.Context(), idem.Event{Kind: kind})
			after := scrape(t, server)
			require.Len(t, after, len(before), "no series comes with an event")
			var changed []string
			for series, value := range after {
				if value == before[series] || strings.Contains(series, "_bucket{") {
					continue
				}
				assert.Equal(t, "0", before[series], series)
				assert.Equal(t, "1", value, series)
				series = strings.Replace(series, `,store="default"`, "", 1)
				changed = append(changed, strings.Replace(series, `{store="default"}`, "", 1))
			}
			slices.Sort(changed)
			assert.Equal(t, want, changed)
		})
	}
}

// The test above misses no kind.
func TestEveryKindIsKnown(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "unknown", (idem.StoreBroken + 1).String(), "the last kind is another now: the metrics must know it")
}

func TestMeasuresOfEvents(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{Store: "orders"})
	server := scraper(t, m)
	for _, e := range []idem.Event{
		{Kind: idem.OperationCompleted, Duration: 1500 * time.Millisecond},
		{Kind: idem.CommitDone, Count: 3, Duration: 2 * time.Millisecond},
		{Kind: idem.CommitDone, Count: 1, Duration: 31 * time.Second},
		{Kind: idem.SweepDone, Count: 5, Corrupt: 2, Duration: time.Minute},
		{Kind: idem.SweepDone, Corrupt: 2},
		{Kind: idem.SweepFailed, Count: 1, Duration: time.Hour, Err: idem.ErrCorrupt},
		{Kind: idem.OperationFailed, Duration: -time.Hour}, // a clock that fell: sums are counters and must not
	} {
		m.Observe(t.Context(), e)
	}
	got := scrape(t, server)
	for series, want := range map[string]string{
		`idem_attempt_duration_seconds_sum{outcome="completed",store="orders"}`:           "1.5",
		`idem_attempt_duration_seconds_bucket{outcome="completed",store="orders",le="1"}`: "0",
		`idem_attempt_duration_seconds_sum{outcome="failed",store="orders"}`:              "0",
		`idem_attempt_duration_seconds_count{outcome="failed",store="orders"}`:            "1",
		`idem_commit_group_size_sum{store="orders"}`:                                      "4",
		`idem_commit_group_size_bucket{store="orders",le="1"}`:                            "1",
		`idem_commit_duration_seconds_bucket{store="orders",le="0.0025"}`:                 "1",
		`idem_commit_duration_seconds_bucket{store="orders",le="30"}`:                     "1",
		`idem_commit_duration_seconds_count{store="orders"}`:                              "2",
		`idem_swept_records_total{store="orders"}`:                                        "6",
		`idem_sweep_skipped_total{store="orders"}`:                                        "4",
		`idem_sweep_lag_seconds_sum{store="orders"}`:                                      "3660",
		`idem_sweep_lag_seconds_count{store="orders"}`:                                    "2",
	} {
		assert.Equal(t, want, got[series], series)
	}
}

// everyMetric is m of a store that has been asked everything.
func everyMetric(t *testing.T, m *idemprom.Metrics) *idem.Store {
	s := open(t, newToy(memory.Options{}), m, idem.Options{SweepInterval: -1})
	require.NoError(t, s.Complete(t.Context(), claim(t, s, idem.Request{Key: "done"}), nil))
	claim(t, s, idem.Request{Key: "open"})
	return s
}

func TestNamesAndHelpPassPromlint(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{})
	everyMetric(t, m)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(m))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
	count, err := testutil.GatherAndCount(registry, "idem_store_state")
	require.NoError(t, err)
	assert.Equal(t, 6, count, "what the store is asked was looked at too")
}

// The two names are the same in both formats, and no unit or _total is added to them.
func TestNamesOfDuplicatesAndHits(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{})
	s := open(t, newToy(memory.Options{}), m, idem.Options{})
	require.NoError(t, s.Complete(t.Context(), claim(t, s, idem.Request{Key: "k"}), nil))
	for range 2 { // the first fills the cache
		_, err := s.Claim(t.Context(), idem.Request{Key: "k"})
		require.Equal(t, idem.ErrCompleted, err)
	}
	server := scraper(t, m)
	for _, format := range []string{"text/plain", "application/openmetrics-text;version=1.0.0"} {
		text := scrapeText(t, server, format)
		assert.Regexp(t, `(?m)^duplicate_request_count{store="default"} 2(\.0)?$`, text)
		assert.Regexp(t, `(?m)^idempotency_cache_hits{store="default"} 1(\.0)?$`, text)
	}
}

// However many keys and callers there are, the series and their labels stay the same.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{})
	var hashes []string
	s := everyMetric(t, m)
	server := scraper(t, m)
	before := scrape(t, server)
	for i := range 300 {
		key := fmt.Sprintf("customer-%d", i)
		hashes = append(hashes, s.KeyHash(key))
		token := claim(t, s, idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte(key))})
		switch i % 4 {
		case 0:
			require.NoError(t, s.Complete(t.Context(), token, []byte("secret")))
		case 1:
			require.NoError(t, s.Fail(t.Context(), token, []byte("secret")))
		case 2:
			require.NoError(t, s.Hold(t.Context(), token, []byte("secret")))
		}
		_, err := s.Claim(t.Context(), idem.Request{Key: key})
		require.Error(t, err)
		_, err = s.Claim(t.Context(), idem.Request{Key: key, Fingerprint: idem.FingerprintOf(nil)})
		require.Equal(t, idem.ErrMismatch, err)
	}
	text := scrapeText(t, server, "text/plain")
	after := scrape(t, server)
	require.Len(t, after, len(before))
	for series := range after {
		assert.Contains(t, before, series)
	}
	assert.Less(t, len(after), 200)
	assert.NotContains(t, text, "customer")
	assert.NotContains(t, text, "secret")
	for _, hash := range hashes {
		assert.NotContains(t, text, hash)
	}
	names := map[string]bool{}
	for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(text, -1) {
		names[label[1]] = true
	}
	assert.Equal(t, map[string]bool{"store": true, "outcome": true, "result": true, "state": true, "le": true}, names)
}

// Two stores share a registry if their names differ, and are refused if not.
func TestSeveralStores(t *testing.T) {
	t.Parallel()
	orders, refunds := newMetrics(idemprom.Options{Store: "orders"}), newMetrics(idemprom.Options{Store: "refunds"})
	for _, m := range []*idemprom.Metrics{orders, refunds} {
		claim(t, open(t, memory.New(memory.Options{}), m, idem.Options{}), idem.Request{Key: "k"})
	}
	claim(t, open(t, memory.New(memory.Options{}), refunds, idem.Options{}), idem.Request{Key: "k"})
	got := scrape(t, scraper(t, orders, refunds))
	assert.Equal(t, "1", got[`idem_claims_total{outcome="granted",store="orders"}`])
	assert.Equal(t, "2", got[`idem_claims_total{outcome="granted",store="refunds"}`])
	assert.Equal(t, "1", got[`idem_records{state="in_flight",store="orders"}`])

	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(orders))
	var twice prometheus.AlreadyRegisteredError
	require.ErrorAs(t, registry.Register(newMetrics(idemprom.Options{Store: "orders"})), &twice)
}

// A service that replaces its store can take the old one's metrics out of the registry and
// register others under the same name.
func TestUnregister(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for range 2 {
		m := newMetrics(idemprom.Options{Store: "orders"})
		require.NoError(t, registry.Register(m))
		s := everyMetric(t, m)
		count, err := testutil.GatherAndCount(registry)
		require.NoError(t, err)
		require.Positive(t, count)
		require.True(t, registry.Unregister(m))
		require.NoError(t, s.Close())
		count, err = testutil.GatherAndCount(registry)
		require.NoError(t, err)
		require.Zero(t, count)
	}
}

// An observer after Observe takes nothing from the counts, whatever it does.
func TestObserveNextToAnObserverThatPanics(t *testing.T) {
	t.Parallel()
	m := newMetrics(idemprom.Options{})
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: newClock(), Observer: func(ctx context.Context, e idem.Event) {
		m.Observe(ctx, e)
		panic("a log that is closed")
	}})
	require.NoError(t, err)
	defer s.Close()
	m.Watch(s)
	require.NoError(t, s.Complete(t.Context(), claim(t, s, idem.Request{Key: "k"}), nil))
	got := scrape(t, scraper(t, m))
	assert.Equal(t, "1", got[`idem_claims_total{outcome="granted",store="default"}`])
	assert.Equal(t, "1", got[`idem_attempt_duration_seconds_count{outcome="completed",store="default"}`])
}

// An event costs no allocation, so a hot path with metrics is as good as one without.
func TestObserveDoesNotAllocate(t *testing.T) {
	m := newMetrics(idemprom.Options{})
	ctx := context.Background()
	for kind := idem.EventKind(0); kind <= idem.StoreBroken; kind++ {
		e := idem.Event{Kind: kind, KeyHash: "0123456789abcdef", Fence: 7, Attempt: 1, Count: 3, Duration: time.Millisecond}
		assert.Zero(t, testing.AllocsPerRun(100, func() { m.Observe(ctx, e) }), "%s", kind)
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, kind := range []idem.EventKind{idem.ClaimGranted, idem.ClaimReplayed, idem.OperationCompleted, idem.CommitDone} {
		e := idem.Event{Kind: kind, Count: 3, Duration: time.Millisecond}
		b.Run(kind.String(), func(b *testing.B) {
			m := newMetrics(idemprom.Options{})
			b.ReportAllocs()
			for b.Loop() {
				m.Observe(context.Background(), e)
			}
		})
	}
}

// BenchmarkReplay is a claim that the cache answers, without and with metrics.
func BenchmarkReplay(b *testing.B) {
	m := newMetrics(idemprom.Options{})
	for name, observer := range map[string]func(context.Context, idem.Event){"observer=none": nil, "observer=metrics": m.Observe} {
		b.Run(name, func(b *testing.B) {
			s, err := idem.New(newToy(memory.Options{}), idem.Options{Observer: observer})
			require.NoError(b, err)
			defer s.Close()
			ctx := context.Background()
			require.NoError(b, s.Complete(ctx, claim(b, s, idem.Request{Key: "payments/txn_000000000001"}), nil))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Claim(ctx, idem.Request{Key: "payments/txn_000000000001"})
			}
		})
	}
}
