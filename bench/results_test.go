package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"
)

// made adds rounds of one figure.
func (r *results) made(unit string, figures []float64, name ...string) {
	for _, f := range figures {
		r.add(1, []benchfmt.Value{value(f, unit)}, name...)
	}
}

func TestResultsAreParsedBack(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.set("goos", "linux")
	r.set("cpu", "Some CPU @ 2.00GHz:\n fast")
	r.set("empty", "")
	r.set("absent/Get/hit/raw-map-sync.Map", "no: %s", "socket")
	r.add(12345, []benchfmt.Value{value(123.4567891, "ns/op"), value(1e9, "p99.9-ns"), value(0, "allocs/op")}, "Get/hit", "backend=bolt-uncached", "keys=1e6", "procs=2")
	r.add(1, []benchfmt.Value{value(-1234567, "cpu-ns/s")}, "Idle", "backend=none")
	var text, again bytes.Buffer
	require.NoError(t, r.write(&text))
	back, err := parse(bytes.NewReader(text.Bytes()), "raw.txt")
	require.NoError(t, err)
	require.NoError(t, back.write(&again))
	assert.Equal(t, text.String(), again.String())
	assert.Equal(t, "Some CPU @ 2.00GHz: fast", back.get("cpu"))
	assert.Empty(t, back.get("empty"))
	require.Len(t, back.notes("absent"), 1)
	assert.Equal(t, "get/hit/raw-map-sync.map", back.notes("absent")[0].Key)
	assert.Equal(t, "no: socket", string(back.notes("absent")[0].Value))
	assert.Contains(t, text.String(), "\nBenchmarkGet/hit/backend=bolt-uncached/keys=1e6/procs=2 12345 123.4568 ns/op 1e+09 p99.9-ns 0 allocs/op\n")
	assert.Contains(t, text.String(), "Unit removed/s better=higher\n")
	assert.Equal(t, "Get/hit", group(back.rows[0]))
	assert.Equal(t, "Idle", group(back.rows[1]))
	assert.Equal(t, "1e6", param(back.rows[0], "keys"))
	assert.Empty(t, param(back.rows[1], "keys"))

	_, err = parse(strings.NewReader("goos: linux\nBenchmarkGet 1 x ns/op\n"), "raw.txt")
	require.ErrorContains(t, err, "raw.txt:2")
	_, err = load("/no/such/raw.txt")
	require.Error(t, err)
}

func TestCounts(t *testing.T) {
	t.Parallel()
	for n, s := range map[int]string{0: "0", 7: "7", 100: "100", 1500: "1500", 1000: "1e3", 100_000: "1e5", 20_000: "2e4", 12_000: "12e3"} {
		assert.Equal(t, s, count(n))
		assert.InDelta(t, n, number(s), 0)
	}
}

func TestValuesAreInOrder(t *testing.T) {
	t.Parallel()
	r := &results{}
	for _, callers := range []int{256, 1, 16, 256} {
		r.made("ns/op", []float64{1}, "Cycle/durable", "backend=b", fmt.Sprint("callers=", callers))
	}
	r.made("ns/op", []float64{1}, "Cycle/memory", "backend=a", "callers=2")
	assert.Equal(t, []string{"1", "16", "256"}, r.values("callers", "Cycle/durable"))
	assert.Equal(t, []string{"b", "a"}, r.values("backend"))
}

// A summary is a median with an interval that is said to be unknown for fewer than six
// rounds.
func TestSummary(t *testing.T) {
	t.Parallel()
	_, ok := summary(nil)
	assert.False(t, ok)
	_, ok = summary([]float64{math.NaN(), math.Inf(1)})
	assert.False(t, ok)
	figures := []float64{4, 1, math.NaN(), 3, 2}
	s, ok := summary(figures)
	assert.True(t, ok)
	assert.InDelta(t, 2.5, s.Center, 1e-9)
	assert.True(t, math.IsInf(s.Lo, -1) && math.IsInf(s.Hi, 1))
	assert.InDelta(t, 4, figures[0], 0, "left as they were")
	s, _ = summary([]float64{6, 5, 4, 3, 2, 1})
	assert.Equal(t, []float64{3.5, 1, 6}, []float64{s.Center, s.Lo, s.Hi})
}

// The figure is the median of the rounds' ratios, not the ratio of the medians: in a
// round in which the machine was slow, it was slow for both.
func TestRatioIsTakenInEachRound(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.made("x", []float64{100, 1000, 110}, "Get/hit", "backend=a")
	r.made("x", []float64{50, 500, 100}, "Get/hit", "backend=b")
	ratio := func() []float64 {
		return ratios(r.series("x", "Get/hit", "backend=a"), r.series("x", "Get/hit", "backend=b"))
	}
	assert.Equal(t, []float64{2, 2, 1.1}, ratio())
	// A round without the figure, or one that only one of them has, shifts no other.
	r.made("other", []float64{1}, "Get/hit", "backend=a")
	r.made("x", []float64{300, 1}, "Get/hit", "backend=a")
	r.made("x", []float64{1, 100}, "Get/hit", "backend=b")
	got := ratio()
	assert.True(t, math.IsNaN(got[3]))
	assert.InDelta(t, 3, got[4], 1e-9)
	assert.Len(t, got, 5)
	s, _ := summary(got)
	assert.InDelta(t, 2, s.Center, 1e-9)
	assert.Empty(t, ratios(got, nil))
}

// A percentile that only the rounds with many samples have is of the quick ones alone.
func TestMedianWantsEveryRound(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.made("p99-ns", []float64{10}, "g", "backend=a")
	r.made("p50-ns", []float64{20}, "g", "backend=a")
	r.made("p99-ns", []float64{1e9, 3e9}, "g", "backend=b")
	assert.True(t, math.IsNaN(r.median("p99-sec", "g", "backend=a")))
	assert.InDelta(t, 2, r.median("p99-sec", "g", "backend=b"), 1e-9)
	assert.True(t, math.IsNaN(r.median("p99-sec", "g", "backend=c")))
}

func TestFastestIsChosenByItsMedian(t *testing.T) {
	t.Parallel()
	r := &results{}
	r.made("ns/op", []float64{100, 100, 100}, "g", "backend=steady")
	r.made("ns/op", []float64{1, 200, 200}, "g", "backend=lucky")
	tab := &table{results: r}
	assert.Equal(t, "steady", tab.fastest([]string{"lucky", "steady", "absent"}, "g"))
	assert.Empty(t, tab.fastest([]string{"absent"}, "g"))
}
