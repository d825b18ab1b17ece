package bench

import (
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxLatency is the longest that a histogram tells apart; longer ones count as it.
const maxLatency = time.Minute

// quantiles are the percentiles that every row has.
var quantiles = []float64{50, 90, 99, 99.9, 99.99}

// histogram counts durations to three significant figures. It belongs to one
// goroutine at a time.
type histogram struct{ h *hdrhistogram.Histogram }

func newHistogram() *histogram {
	return &histogram{hdrhistogram.New(1, int64(maxLatency), 3)}
}

func (h *histogram) record(d time.Duration) {
	_ = h.h.RecordValue(int64(min(max(d, 1), maxLatency))) // in range
}

func (h *histogram) reset()               { h.h.Reset() }
func (h *histogram) add(o *histogram)     { h.h.Merge(o.h) }
func (h *histogram) count() uint64        { return uint64(h.h.TotalCount()) }
func (h *histogram) at(q float64) float64 { return float64(h.h.ValueAtPercentile(q)) }

// percentileUnit is the unit of a percentile: p99.9-ns.
func percentileUnit(q float64) string {
	return "p" + strconv.FormatFloat(q, 'g', -1, 64) + "-ns"
}

// values are the percentiles and the longest, in ns; none of an empty histogram. A
// percentile that fewer than two samples lie beyond would be the longest by another
// name, and is left out.
func (h *histogram) values() []Value {
	if h.count() == 0 {
		return nil
	}
	var out []Value
	for _, q := range quantiles {
		if float64(h.count())*(100-q)/100 >= 2 || q == 50 {
			out = append(out, Value{percentileUnit(q), h.at(q)})
		}
	}
	return append(out, Value{"max-ns", float64(h.h.Max())})
}

// clockCost is what reading the clock twice adds to a latency: the median of many.
func clockCost() time.Duration {
	h := newHistogram()
	for range 20_000 {
		start := time.Now()
		h.record(time.Since(start))
	}
	return time.Duration(h.at(50))
}
