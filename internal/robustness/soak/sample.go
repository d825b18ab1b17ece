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
	"time"
)

// sample is what is seen at one moment. NaN: cannot be seen on this system.
type sample struct {
	at         time.Duration // since the start
	calls      int64
	perSecond  float64 // since the sample before
	heap       float64 // bytes that were live in the latest garbage collection
	resident   float64 // bytes
	goroutines float64
	files      float64 // open descriptors
	size       float64 // bytes on disk; of the memory engine, what it says of itself
	live       float64 // records
	expired    float64 // records not swept yet
	latency    [classes]summary
}

// look takes a sample. The records are counted by walking over them.
func (r *run) look(start time.Time, before sample) sample {
	s := sample{at: time.Since(start)}
	s.calls, s.latency = r.meter.take()
	s.perSecond = float64(s.calls-before.calls) / (s.at - before.at).Seconds()
	s.heap = liveHeap()
	s.resident = residentBytes()
	s.goroutines = float64(runtime.NumGoroutine())
	s.files = openFiles()
	st, err := r.store.Stats(context.Background())
	if err != nil {
		r.trouble.add("Stats: %v", err)
	}
	s.live = float64(st.InFlight + st.Released + st.Held + st.Completed + st.Failed)
	s.expired = float64(st.Expired)
	s.size = float64(st.EngineBytes)
	if r.engine != "memory" {
		s.size = bytesUnder(r.dir)
	}
	if st.Corrupt > 0 {
		r.trouble.add("%d records cannot be read", st.Corrupt)
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
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return math.NaN()
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return math.NaN()
	}
	pages, err := strconv.ParseFloat(string(fields[1]), 64)
	if err != nil {
		return math.NaN()
	}
	return pages * float64(os.Getpagesize())
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

// measure is a quantity of the samples, as the chart, the table and the verdicts
// name it.
type measure struct {
	name  string
	unit  unit
	of    func(sample) float64
	limit *limit // nil: not judged
}

const mib = 1 << 20

// measures says what is drawn and judged. Resident memory holds what the runtime has
// not given back yet and pages of mapped files, and is only drawn.
var measures = []measure{
	{"heap", byteUnit, func(s sample) float64 { return s.heap }, &limit{0.15, 3 * mib}},
	{"resident", byteUnit, func(s sample) float64 { return s.resident }, nil},
	{"goroutines", countUnit, func(s sample) float64 { return s.goroutines }, &limit{0.05, 5}},
	{"open files", countUnit, func(s sample) float64 { return s.files }, &limit{0.05, 5}},
	{"size", byteUnit, func(s sample) float64 { return s.size }, &limit{0.15, 3 * mib}},
	{"records live", countUnit, func(s sample) float64 { return s.live }, &limit{0.15, 200}},
	{"records expired", countUnit, func(s sample) float64 { return s.expired }, &limit{0.50, 200}},
	{"calls/s", countUnit, func(s sample) float64 { return s.perSecond }, nil},
}

func seriesOf(samples []sample, m measure) series {
	s := series{name: m.name, unit: m.unit}
	for _, x := range samples {
		s.at = append(s.at, x.at.Seconds())
		s.value = append(s.value, m.of(x))
	}
	return s
}

func measured(samples []sample, name string) series {
	for _, m := range measures {
		if m.name == name {
			return seriesOf(samples, m)
		}
	}
	panic("no measure " + name)
}

// verdicts judges the samples whose time is from on.
func verdicts(samples []sample, from time.Duration) (all []verdict) {
	for _, m := range measures {
		if m.limit != nil {
			all = append(all, judge(seriesOf(samples, m), from.Seconds(), *m.limit))
		}
	}
	return all
}
