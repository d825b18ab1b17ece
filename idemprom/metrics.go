// Package idemprom shows what a store does as Prometheus metrics.
//
//	metrics := idemprom.New(idemprom.Options{})
//	store, err := idem.New(backend, idem.Options{Observer: metrics.Observe})
//	…
//	metrics.Watch(store)
//	prometheus.MustRegister(metrics)
//
// # Metrics
//
// Counted as it happens, from the store's events:
//
//	idem_claims_total{outcome}               granted, takeover, replayed, in_flight, mismatch,
//	                                         failed, held, exhausted, full, too_late; a claim
//	                                         that got another error is not counted
//	idem_attempt_duration_seconds{outcome}   from grant to settlement: completed, failed,
//	                                         released, held (histogram); 0 for work that is
//	                                         claimed and settled in one commit
//	idem_unclaimed_total                     claims undone before their work began
//	idem_stale_tokens_total                  token operations refused with ErrFenced
//	idem_lease_extensions_total              heartbeats among them
//	idem_checkpoints_total
//	idem_forgotten_total                     records removed by an operator
//	idem_cache_lookups_total{result}         hit, miss
//	idem_commit_group_size                   operations that shared a commit (histogram)
//	idem_commit_duration_seconds             (histogram)
//	idem_swept_records_total
//	idem_sweep_skipped_total                 records that a sweep could not read, each time
//	idem_sweep_failures_total
//	idem_sweep_lag_seconds                   how long the oldest record of a sweep had been
//	                                         expired (histogram)
//	duplicate_request_count                  claims refused over a record of the same operation
//	idempotency_cache_hits                   the same as idem_cache_lookups_total{result="hit"}
//
// Asked of the watched store by each scrape, and never for longer than
// Options.ScrapeWait:
//
//	idem_store_state{state}                  1 for the store's state, 0 for the others: open,
//	                                         full, draining (or closed), read_only (opened so,
//	                                         or an import has not ended), broken, unknown (no
//	                                         answer from Store.Health, or another error)
//
// Counted by a walk over all records (Store.Stats), at most every Options.StatsInterval.
// Scrapes show the latest walk:
//
//	idem_records{state}                      live records: in_flight, released, held,
//	                                         completed, failed
//	idem_lapsed_records                      those in flight whose lease no longer holds
//	idem_unsettled_records                   claims of these get ErrHeld; somebody must settle them
//	idem_expired_records                     not swept yet
//	idem_corrupt_records                     cannot be read
//	idem_oldest_in_flight_seconds
//	idem_engine_bytes                        on disk; in memory for the memory engine
//	idem_cache_entries, idem_cache_bytes
//	idem_stats_timestamp_seconds             when the walk began; when Watch was called if
//	                                         none has succeeded yet
//	idem_stats_duration_seconds              how long it took
//
// Each metric has the label store, which is Options.Store. No other label has values
// besides those above: no key, no hash of one, nothing that a client chooses. That makes
// about 150 series a store, however many keys it holds. idem_claims_total shows every
// outcome from the start, with 0, so the first refusal counts in rate and increase.
//
// duplicate_request_count and idempotency_cache_hits only go up, like counters, but are
// untyped in the exposition: the name of a Prometheus counter has to end in _total.
//
// Dashboards and alerts for these metrics are in the folder ops of the repository.
package idemprom

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idemkv/idem"
)

// Options configures New. The zero value is good.
type Options struct {
	// Store is the value of the label store. Two stores whose metrics go to one registry
	// need different names, and a Metrics each. Default "default".
	Store string
	// StatsInterval is the shortest time between two walks over the records; see
	// Store.Stats. After a long walk it is 20 times as long as that walk took, so walks take
	// no more than a twentieth of the time. They are made when a scrape asks, never without
	// one. Default 1 minute; negative: none, and no metrics that need one.
	StatsInterval time.Duration
	// ScrapeWait is how long a scrape waits for the store: for Health, and for a walk if
	// one is due. A scrape never takes longer than that, whatever the disk does. A walk
	// goes on after it, and a later scrape shows what it found. Default 1 second.
	ScrapeWait time.Duration
}

// Metrics collects the metrics of one store, and goes on with the one opened after it. It
// is a prometheus.Collector. It needs no closing: it runs nothing between scrapes.
type Metrics struct {
	opts       Options
	collectors []prometheus.Collector

	byKind     [kinds]prometheus.Counter
	attempts   [kinds]prometheus.Observer
	duplicates atomic.Uint64
	cacheHits  atomic.Uint64

	groupSize, commitDuration, sweepLag prometheus.Histogram
	swept, skipped                      prometheus.Counter

	asked   *askedMetrics
	watched atomic.Pointer[watched]
}

var _ prometheus.Collector = (*Metrics)(nil)

// kinds is how many kinds of event there are, with none.
const kinds = idem.StoreBroken + 1

// New returns the metrics of a store that is yet to be made: give its Observe to
// idem.New as Options.Observer, and then the store to Watch.
func New(o Options) *Metrics {
	if o.Store == "" {
		o.Store = "default"
	}
	if o.StatsInterval == 0 {
		o.StatsInterval = time.Minute
	}
	if o.ScrapeWait <= 0 {
		o.ScrapeWait = time.Second
	}
	m := &Metrics{opts: o}
	labels := prometheus.Labels{"store": o.Store}
	m.asked = newAskedMetrics(labels)

	m.countKinds(labels, "idem_claims_total", "Claims by outcome.", "outcome", "claim_",
		idem.ClaimGranted, idem.ClaimTakeover, idem.ClaimReplayed, idem.ClaimInFlight, idem.ClaimMismatch,
		idem.ClaimFailed, idem.ClaimHeld, idem.ClaimExhausted, idem.ClaimFull, idem.ClaimTooLate)
	m.countKinds(labels, "idem_cache_lookups_total", "Look-ups in the cache of final records, by result.", "result", "cache_",
		idem.CacheHit, idem.CacheMiss)
	m.timeAttempts(labels)

	counter := func(name, help string) prometheus.Counter {
		return add(m, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}))
	}
	m.byKind[idem.OperationUnclaimed] = counter("idem_unclaimed_total", "Claims undone before their work began.")
	m.byKind[idem.TokenRefused] = counter("idem_stale_tokens_total", "Token operations refused because the token was stale.")
	m.byKind[idem.LeaseExtended] = counter("idem_lease_extensions_total", "Leases extended.")
	m.byKind[idem.CheckpointSaved] = counter("idem_checkpoints_total", "Checkpoints saved.")
	m.byKind[idem.RecordForgotten] = counter("idem_forgotten_total", "Records removed by an operator.")
	m.byKind[idem.SweepFailed] = counter("idem_sweep_failures_total", "Sweeps that ended with an error.")
	m.swept = counter("idem_swept_records_total", "Expired records removed by sweeps.")
	m.skipped = counter("idem_sweep_skipped_total", "Records skipped by sweeps because they could not be read, each time they were met.")

	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		return add(m, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: labels, Buckets: buckets}))
	}
	m.groupSize = histogram("idem_commit_group_size", "Operations that shared a commit.", 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
	m.commitDuration = histogram("idem_commit_duration_seconds", "How long a commit took to become durable.",
		.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
	m.sweepLag = histogram("idem_sweep_lag_seconds", "How long the oldest record that a sweep removed had been expired.",
		1, 5, 15, 60, 300, 900, 3600, 4*3600, 24*3600, 7*24*3600)

	untyped := func(name, help string, n *atomic.Uint64) {
		add(m, prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(n.Load()) }))
	}
	untyped("duplicate_request_count", "Claims refused because the same operation was asked for before.", &m.duplicates)
	untyped("idempotency_cache_hits", "Look-ups that found their record in the cache of final records.", &m.cacheHits)
	return m
}

// add adds c to what m collects.
func add[C prometheus.Collector](m *Metrics, c C) C {
	m.collectors = append(m.collectors, c)
	return c
}

// countKinds counts events of some kinds in one metric. The label's values are the
// names of the kinds without prefix.
func (m *Metrics) countKinds(labels prometheus.Labels, name, help, label, prefix string, of ...idem.EventKind) {
	vec := add(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{label}))
	for _, kind := range of {
		m.byKind[kind] = vec.WithLabelValues(strings.TrimPrefix(kind.String(), prefix))
	}
}

// timeAttempts makes the histograms of attempts by how they were settled.
func (m *Metrics) timeAttempts(labels prometheus.Labels) {
	vec := add(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "idem_attempt_duration_seconds", Help: "Time from the grant of a claim to its settlement, by outcome.", ConstLabels: labels,
		Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 120, 600, 3600},
	}, []string{"outcome"}))
	for _, kind := range [...]idem.EventKind{idem.OperationCompleted, idem.OperationFailed, idem.OperationReleased, idem.OperationHeld} {
		m.attempts[kind] = vec.WithLabelValues(strings.TrimPrefix(kind.String(), "operation_"))
	}
}

// Observe counts an event. It is an idem.Options.Observer, takes no lock that is held
// for long and allocates nothing. To have other observers too, call them one after the
// other. Observe comes first, so a panic of another takes nothing from the counts:
//
//	Observer: func(ctx context.Context, e idem.Event) { metrics.Observe(ctx, e); idemotel.Observe(ctx, e) }
func (m *Metrics) Observe(_ context.Context, e idem.Event) {
	if e.Kind >= kinds {
		return
	}
	if c := m.byKind[e.Kind]; c != nil {
		c.Inc()
	}
	if h := m.attempts[e.Kind]; h != nil {
		h.Observe(seconds(e.Duration))
	}
	switch e.Kind {
	case idem.CacheHit:
		m.cacheHits.Add(1)
	case idem.CommitDone:
		m.groupSize.Observe(float64(e.Count))
		m.commitDuration.Observe(seconds(e.Duration))
	case idem.SweepDone, idem.SweepFailed:
		m.swept.Add(float64(e.Count))
		m.skipped.Add(float64(e.Corrupt))
		if e.Count > 0 {
			m.sweepLag.Observe(seconds(e.Duration))
		}
	default:
		if e.Kind.Duplicate() {
			m.duplicates.Add(1)
		}
	}
}

// seconds returns d for a histogram. The sum of one is a counter and must not fall, even if
// the store's clock does.
func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
	m.asked.describe(ch)
}

// Collect implements prometheus.Collector. It returns within Options.ScrapeWait.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
	if w := m.watched.Load(); w != nil {
		w.collect(ch, m)
	}
}
