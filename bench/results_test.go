package bench

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestResultsAreParsedBack(t *testing.T) {
	t.Parallel()
	r := &Results{
		Header: []Param{{"goos", "linux"}, {"cpu", "Some CPU @ 2.00GHz: fast"}, {"command", "go run ./cmd/bench -out x"}},
		Notes:  []Note{{"does", "Get/hit redis", "GET: over a socket"}, {"absent", "Cycle/durable redis", "bench: absent: not installed"}},
		Rows: []Row{
			{Group: "Get/hit", Params: []Param{{"backend", "bolt-uncached"}, {"keys", "1e6"}, {"procs", "2"}}, Ops: 12345, Values: []Value{{"ns/op", 123.4567}, {"p99.9-ns", 1e9}, {"allocs/op", 0}}},
			{Group: "Idle", Params: []Param{{"backend", "none"}}, Ops: 1, Values: []Value{{"cpu-ns/s", -1234567}}},
		},
	}
	var text bytes.Buffer
	require.NoError(t, r.Write(&text))
	back, err := Parse(bytes.NewReader(text.Bytes()))
	require.NoError(t, err)
	assert.Equal(t, r, back)
	assert.Equal(t, "Some CPU @ 2.00GHz: fast", back.Fact("cpu"))
	assert.Empty(t, back.Fact("absent"))

	// The format as golang.org/design/14313 has it: benchstat drops what differs.
	benchmark := regexp.MustCompile(`^Benchmark[A-Z][^\s]*\t\d+(\t-?[0-9.e+]+ [^\s]+)+$`)
	config := regexp.MustCompile(`^[a-z][^\sA-Z]*: .+$`)
	for _, line := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		known := line == "" || strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "Unit ") || benchmark.MatchString(line) || config.MatchString(line)
		assert.True(t, known, line)
	}
	assert.Contains(t, text.String(), "\nBenchmarkGet/hit/backend=bolt-uncached/keys=1e6/procs=2\t12345\t123.4567 ns/op\t1e+09 p99.9-ns\t0 allocs/op\n")
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"BenchmarkGet\n", "BenchmarkGet 1 2\n", "BenchmarkGet x 2 ns/op\n", "BenchmarkGet 1 x ns/op\n", "BenchmarkGet 1 2 ns/op 3\n",
	} {
		_, err := Parse(strings.NewReader("goos: linux\n" + text))
		require.Error(t, err, text)
		assert.Contains(t, err.Error(), "line 2")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, label := range map[string]string{
		"idem/bolt": "bolt", "idem/bolt/uncached": "bolt-uncached", "raw-pebble/grouped": "raw-pebble-grouped", "redis": "redis",
	} {
		assert.Equal(t, label, Label(name))
	}
	for n, s := range map[int]string{0: "0", 7: "7", 100: "100", 1500: "1500", 1000: "1e3", 100_000: "1e5", 20_000: "2e4", 1_000_000: "1e6", 12_000: "12e3"} {
		assert.Equal(t, s, keyCount(n))
		assert.Equal(t, n, parseKeyCount(s))
	}
	for label, k := range map[string]kind{
		"memory": kindIdem, "bolt-uncached": kindIdem, "pebble-claim-complete": kindIdem, "raw-bbolt-two": kindBare, "raw-map-xsync": kindBare,
		"floor-map-xsync": kindLimit, "limit-log": kindLimit, "redis": kindRival, "badger-grouped": kindRival, "boltdb": kindRival,
	} {
		assert.Equal(t, k, kindOf(label), label)
	}
}

func TestHumanFigures(t *testing.T) {
	t.Parallel()
	for ns, s := range map[float64]string{
		0: "0 ns", 5: "5 ns", 640: "640 ns", 999.4: "999 ns", 999.9: "1 µs", 1250: "1.25 µs", 12_345: "12.3 µs", 35e6: "35 ms", 2e9: "2 s", 0.5: "0.5 ns",
	} {
		assert.Equal(t, s, humanNs(ns))
	}
	assert.Equal(t, "1.5 KB", humanBytes(1500))
	assert.Equal(t, "512 B", humanBytes(512))
	for f, s := range map[float64]string{0: "0", 1.254: "1.25", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1500: "-1,500"} {
		assert.Equal(t, s, humanCount(f))
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	_, ok := spreadOf(nil)
	assert.False(t, ok)
	_, ok = spreadOf([]float64{math.NaN(), math.Inf(1)})
	assert.False(t, ok)
	s, ok := spreadOf([]float64{3, math.NaN(), 1, 2})
	assert.True(t, ok)
	assert.Equal(t, Spread{2, 1, 3}, s)
	figures := []float64{4, 1, 3, 2}
	s, _ = spreadOf(figures)
	assert.Equal(t, Spread{2.5, 1, 4}, s)
	assert.Equal(t, []float64{4, 1, 3, 2}, figures, "left as they were")
}

// The figure is the median of the rounds' ratios, not the ratio of the medians: in a
// round in which the machine was slow, it was slow for both.
func TestRatioIsTakenInEachRound(t *testing.T) {
	t.Parallel()
	r := &Results{}
	for round, of := range []float64{100, 1000, 110} {
		r.Rows = append(r.Rows, row("Get/hit", "a", "ns/op", of), row("Get/hit", "b", "ns/op", []float64{50, 500, 100}[round]))
	}
	s, ok := r.Ratio(where("Get/hit", "backend", "a"), where("Get/hit", "backend", "b"), "ns/op")
	assert.True(t, ok)
	assert.Equal(t, Spread{2, 1.1, 2}, s)

	// A round without the figure, or one that only one of them has, does not count, and
	// shifts no other.
	r.Rows = append(r.Rows, row("Get/hit", "a", "other", 1), row("Get/hit", "b", "ns/op", 1), row("Get/hit", "a", "ns/op", 300),
		row("Get/hit", "b", "ns/op", 100), row("Get/hit", "a", "ns/op", 1))
	s, _ = r.Ratio(where("Get/hit", "backend", "a"), where("Get/hit", "backend", "b"), "ns/op")
	assert.Equal(t, Spread{2, 1.1, 3}, s)
	_, ok = r.Ratio(where("Get/hit", "backend", "a"), where("Get/hit", "backend", "none"), "ns/op")
	assert.False(t, ok)
}

// A percentile that only the rounds with many samples have is of the quick ones alone.
func TestMedianWantsEveryRound(t *testing.T) {
	t.Parallel()
	r := &Results{Rows: []Row{row("g", "a", "p99-ns", 10), row("g", "a", "p50-ns", 20), row("g", "b", "p99-ns", 1), row("g", "b", "p99-ns", 3)}}
	_, ok := r.Median(where("g", "backend", "a"), "p99-ns")
	assert.False(t, ok)
	v, ok := r.Median(where("g", "backend", "b"), "p99-ns")
	assert.True(t, ok)
	assert.InDelta(t, 2, v, 0)
	_, ok = r.Median(where("g", "backend", "c"), "p99-ns")
	assert.False(t, ok)
}

func TestLeastIsChosenByItsMedian(t *testing.T) {
	t.Parallel()
	r := &Results{}
	for round := range 3 {
		r.Rows = append(r.Rows, row("g", "steady", "ns/op", 100), row("g", "lucky", "ns/op", []float64{1, 200, 200}[round]))
	}
	ms := []Match{where("g", "backend", "lucky"), where("g", "backend", "steady"), where("g", "backend", "absent")}
	best, ok := r.least(ms, "ns/op")
	assert.True(t, ok)
	assert.Equal(t, "steady", nameOf(best))
	_, ok = r.least(ms[2:], "ns/op")
	assert.False(t, ok)
}

func row(group, backend, unit string, v float64, params ...string) Row {
	r := Row{Group: group, Params: []Param{{"backend", backend}}, Ops: 1, Values: []Value{{unit, v}}}
	for i := 0; i < len(params); i += 2 {
		r.Params = append(r.Params, Param{params[i], params[i+1]})
	}
	return r
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	h, other := newHistogram(), newHistogram()
	assert.Nil(t, h.values())
	for i := 1; i <= 500; i++ {
		h.record(time.Duration(i) * time.Microsecond)
		other.record(time.Duration(500+i) * time.Microsecond)
	}
	h.add(other)
	assert.Equal(t, uint64(1000), h.count())
	got := map[string]float64{}
	for _, v := range h.values() {
		got[v.Unit] = v.Amount
	}
	assert.InEpsilon(t, 500e3, got["p50-ns"], 0.002)
	assert.InEpsilon(t, 900e3, got["p90-ns"], 0.002)
	assert.InEpsilon(t, 990e3, got["p99-ns"], 0.002)
	assert.InEpsilon(t, 1000e3, got["max-ns"], 0.002)
	assert.NotContains(t, got, "p99.9-ns", "of a thousand, one lies beyond")

	h.reset()
	h.record(0)
	h.record(time.Hour)
	assert.Equal(t, uint64(2), h.count(), "what is out of range counts as the nearest")
}
