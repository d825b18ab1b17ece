package idemprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idemkv/idem"
)

// askedMetrics describes the metrics whose values come from asking the store.
type askedMetrics struct {
	state, records                *prometheus.Desc
	lapsed, unsettled             *prometheus.Desc
	expired, corrupt              *prometheus.Desc
	oldest                        *prometheus.Desc
	engineBytes                   *prometheus.Desc
	cacheEntries, cacheBytes      *prometheus.Desc
	statsTimestamp, statsDuration *prometheus.Desc
	all                           []*prometheus.Desc
}

func newAskedMetrics(labels prometheus.Labels) *askedMetrics {
	a := new(askedMetrics)
	gauge := func(name, help string, label ...string) *prometheus.Desc {
		d := prometheus.NewDesc(name, help, label, labels)
		a.all = append(a.all, d)
		return d
	}
	a.state = gauge("idem_store_state", "1 for the state that the store is in, 0 for the others.", "state")
	a.records = gauge("idem_records", "Live records by state, as of the last walk.", "state")
	a.lapsed = gauge("idem_lapsed_records", "Records in flight whose lease no longer holds, as of the last walk.")
	a.unsettled = gauge("idem_unsettled_records", "Records whose outcome is unknown and that somebody must settle, as of the last walk.")
	a.expired = gauge("idem_expired_records", "Expired records that are not swept yet, as of the last walk.")
	a.corrupt = gauge("idem_corrupt_records", "Records that cannot be read, as of the last walk.")
	a.oldest = gauge("idem_oldest_in_flight_seconds", "Age of the oldest claim in flight, 0 if there is none, as of the last walk.")
	a.engineBytes = gauge("idem_engine_bytes", "What the engine takes on disk, or in memory if it has no disk.")
	a.cacheEntries = gauge("idem_cache_entries", "Records in the cache of final records.")
	a.cacheBytes = gauge("idem_cache_bytes", "Size of the cache of final records.")
	a.statsTimestamp = gauge("idem_stats_timestamp_seconds", "Unix time at which the last walk over the records began, or at which the store was given to Watch if none has succeeded since.")
	a.statsDuration = gauge("idem_stats_duration_seconds", "How long the last walk over the records took.")
	return a
}

func (a *askedMetrics) describe(ch chan<- *prometheus.Desc) {
	for _, d := range a.all {
		ch <- d
	}
}

func (a *askedMetrics) sendState(ch chan<- prometheus.Metric, state string) {
	for _, s := range states {
		value := 0.0
		if s == state {
			value = 1
		}
		send(ch, a.state, value, s)
	}
}

func (a *askedMetrics) sendCounts(ch chan<- prometheus.Metric, c *counts) {
	st := &c.stats
	for _, r := range [...]struct {
		state idem.State
		n     int
	}{
		{idem.InFlight, st.InFlight},
		{idem.Released, st.Released},
		{idem.Held, st.Held},
		{idem.Completed, st.Completed},
		{idem.Failed, st.Failed},
	} {
		send(ch, a.records, float64(r.n), r.state.String())
	}
	send(ch, a.lapsed, float64(st.Lapsed))
	send(ch, a.unsettled, float64(st.Unsettled))
	send(ch, a.expired, float64(st.Expired))
	send(ch, a.corrupt, float64(st.Corrupt))
	send(ch, a.oldest, st.OldestInFlight.Seconds())
	send(ch, a.engineBytes, float64(st.EngineBytes))
	send(ch, a.cacheEntries, float64(st.CacheEntries))
	send(ch, a.cacheBytes, float64(st.CacheBytes))
	a.sendStatsTimestamp(ch, c.began)
	send(ch, a.statsDuration, c.took.Seconds())
}

func (a *askedMetrics) sendStatsTimestamp(ch chan<- prometheus.Metric, at time.Time) {
	send(ch, a.statsTimestamp, float64(at.UnixMilli())/1000)
}

func send(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}
