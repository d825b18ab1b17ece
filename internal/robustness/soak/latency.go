package main

import (
	"math/bits"
	"sync"
	"time"
)

// histogram counts durations in buckets, 32 to each power of two, so that a
// quantile is off by 3 % at most.
type histogram struct {
	counts [64 * subBuckets]uint32
	n      int
	max    time.Duration
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift)&(subBuckets-1)
}

// ceiling is the longest duration of a bucket.
func ceiling(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	return time.Duration((uint64(subBuckets+bucket&(subBuckets-1))+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns the duration that a share q of all does not exceed; 0 if there
// are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(int(q*float64(h.n)+0.9999999), 1)
	for b, seen := 0, 0; b < len(h.counts); b++ {
		if seen += int(h.counts[b]); seen >= rank {
			return min(ceiling(b), h.max)
		}
	}
	return h.max
}

// summary is what a histogram comes to.
type summary struct {
	n             int
	p50, p99, max time.Duration
}

func (h *histogram) summary() summary {
	return summary{h.n, h.quantile(0.5), h.quantile(0.99), h.max}
}

// meter measures the calls of a run by their class.
type meter struct {
	mu       sync.Mutex
	calls    int64
	interval [classes]histogram // since the last sample
	total    [classes]histogram
}

func (m *meter) add(c class, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.interval[c].add(d)
	m.total[c].add(d)
}

// take returns how many calls there were in all, and the latencies since the last
// time it was called.
func (m *meter) take() (calls int64, since [classes]summary) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.interval {
		since[c] = m.interval[c].summary()
		m.interval[c] = histogram{}
	}
	return m.calls, since
}

// all returns the latencies of the whole run.
func (m *meter) all() (total [classes]summary) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.total {
		total[c] = m.total[c].summary()
	}
	return total
}

// class is a kind of call.
type class int

const (
	claimNew       class = iota // granted, first attempt
	claimNext                   // granted over a lapsed lease or after a release
	claimDuplicate              // refused
	complete
	fail
	release
	hold
	extend
	checkpoint
	get
	wait
	do
	many
	effect
	classes
)

var classNames = [classes]string{
	"claim", "next_claim", "duplicate", "complete", "fail", "release", "hold",
	"extend", "checkpoint", "get", "wait", "do", "many", "effect",
}

func (c class) String() string { return classNames[c] }
