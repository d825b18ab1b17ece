package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// sample is what is seen at one moment.
type sample struct {
	at      time.Duration // since the start
	calls   int64
	value   map[string]float64 // by the name of its measure; NaN: cannot be seen on this system
	latency [classes]summary   // since the sample before
}

const mib = 1 << 20

// measure is a quantity of the samples, as the chart, the table and the verdicts name it.
type measure struct {
	name   string
	suffix string // that makes a unit of it: "-B" of bytes
	limit  *limit // nil: not judged
}

// measures say what is drawn and judged. Resident memory holds what the runtime has not
// given back yet and pages of mapped files, and is only drawn.
var measures = []measure{
	{"heap", "-B", &limit{0.15, 3 * mib}}, // live in the latest garbage collection
	{"resident", "-B", nil},
	{"goroutines", "", &limit{0.05, 5}},
	{"open files", "", &limit{0.05, 5}},
	{"size", "-B", &limit{0.15, 3 * mib}}, // on disk; of the memory engine, what it says of itself
	{"records live", "", &limit{0.15, 200}},
	{"records expired", "", &limit{0.50, 200}}, // not swept yet
	{"calls/s", "", nil},
}

// look takes a sample. The records are counted by walking over them.
func (r *run) look(start time.Time, before sample) sample {
	s := sample{at: time.Since(start)}
	s.calls, s.latency = r.meter.take()
	st, err := r.store.Stats(context.Background())
	if err != nil {
		r.trouble.add("Stats: %v", err)
	}
	if st.Corrupt > 0 {
		r.trouble.add("%d records cannot be read", st.Corrupt)
	}
	size := float64(st.EngineBytes)
	if r.engine != "memory" {
		size = bytesUnder(r.dir)
	}
	s.value = map[string]float64{
		"heap": liveHeap(), "resident": residentBytes(), "goroutines": float64(runtime.NumGoroutine()), "open files": openFiles(), "size": size,
		"records live": float64(st.InFlight + st.Released + st.Held + st.Completed + st.Failed), "records expired": float64(st.Expired),
		"calls/s": float64(s.calls-before.calls) / (s.at - before.at).Seconds(),
	}
	return s
}

func liveHeap() float64 {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(m)
	if m[0].Value.Kind() != metrics.KindUint64 {
		return math.NaN()
	}
	return float64(m[0].Value.Uint64())
}

// residentBytes reads the second field of statm, in pages.
func residentBytes() float64 {
	b, _ := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(b); len(fields) > 1 {
		if pages, err := strconv.ParseFloat(string(fields[1]), 64); err == nil {
			return pages * float64(os.Getpagesize())
		}
	}
	return math.NaN()
}

func openFiles() float64 {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return math.NaN()
	}
	return float64(len(names) - 1) // but for the one that lists them
}

// bytesUnder returns the sizes of the files in dir; some may go while it looks.
func bytesUnder(dir string) float64 {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				total += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return math.NaN()
	}
	return float64(total)
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

func (c class) String() string {
	return [classes]string{
		"claim", "next-claim", "duplicate", "complete", "fail", "release", "hold",
		"extend", "checkpoint", "get", "wait", "do", "many", "effect",
	}[c]
}

// meter measures the calls of a run by their class.
type meter struct {
	mu              sync.Mutex
	calls           int64
	interval, total [classes]*hdrhistogram.Histogram // since the last sample, and of the run
}

const maxLatency = time.Minute

func newMeter() *meter {
	m := &meter{}
	for c := range classes {
		m.interval[c], m.total[c] = hdrhistogram.New(1, int64(maxLatency), 2), hdrhistogram.New(1, int64(maxLatency), 2)
	}
	return m
}

func (m *meter) add(c class, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	d = min(max(d, 1), maxLatency)
	_ = m.interval[c].RecordValue(int64(d)) // in range
	_ = m.total[c].RecordValue(int64(d))
}

// summary is what a histogram comes to.
type summary struct {
	n             int64
	p50, p99, max time.Duration
}

func summarize(h *hdrhistogram.Histogram) summary {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtPercentile(q)) }
	return summary{h.TotalCount(), at(50), at(99), time.Duration(h.Max())}
}

// take returns how many calls there were in all, and the latencies since the last time it
// was called.
func (m *meter) take() (calls int64, since [classes]summary) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, h := range m.interval {
		since[c] = summarize(h)
		h.Reset()
	}
	return m.calls, since
}

// all returns the latencies of the whole run.
func (m *meter) all() (total [classes]summary) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, h := range m.total {
		total[c] = summarize(h)
	}
	return total
}
