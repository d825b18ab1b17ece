package bench

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wellFormed fails unless text is one XML element, and returns its texts.
func wellFormed(t *testing.T, text string) (texts []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			assert.Zero(t, depth)
			return texts
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			if depth == 0 {
				assert.Equal(t, xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}, token.Name)
			}
			for _, a := range token.Attr {
				assert.NotContains(t, a.Value, "NaN")
				assert.NotContains(t, a.Value, "Inf")
			}
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
}

func TestRangesAreWellFormed(t *testing.T) {
	t.Parallel()
	rows := []rangeRow{
		{label: `a<b>&"c"`, class: "memory", strong: true, at: []float64{100, 120, 500, 9000}, longest: 1e6, columns: []string{"1 < 2", "x"}},
		{label: "few samples", class: "rival1 dashed", at: []float64{1e6, math.NaN(), math.NaN(), math.NaN()}, longest: 1e6, columns: []string{"", "–"}},
	}
	texts := wellFormed(t, ranges("title & more", []string{"ns/op", "p99"}, rows))
	for _, want := range []string{`a<b>&"c"`, "title & more", "1 < 2", "median", "longest", "1 µs", "1 ms", "ns/op"} {
		assert.Contains(t, texts, want)
	}
}

func TestLineChartsAreWellFormed(t *testing.T) {
	t.Parallel()
	c := lineChart{title: "t", xTitle: "callers & such", yTitle: "y", width: 800, height: 400, showX: humanCount, showY: humanNs, curves: []curve{
		{label: "one", class: "bolt", strong: true, points: []point{{1, 100}, {16, 5000}, {256, 1e6}}},
		{label: "two", class: "limit dotted", points: []point{{1, 100}, {16, 100}}},
		{label: "a point", class: "rival2", points: []point{{16, 7}}},
		{label: "nothing", class: "rival3"},
	}}
	texts := wellFormed(t, c.String())
	for _, want := range []string{"one", "two", "a point", "callers & such", "1", "16", "256", "1 ms"} {
		assert.Contains(t, texts, want)
	}
	assert.NotContains(t, texts, "nothing", "a curve without points has no place for its name")
	wellFormed(t, lineChart{width: 800, height: 400, showX: humanCount, showY: humanNs}.String())
}

func TestScaleCoversItsValues(t *testing.T) {
	t.Parallel()
	for _, values := range [][]float64{{1}, {0.3, 7}, {100, 101}, {5, 5e6}, {999, 1001}, {1e-3, 1e9}, {0, -1, math.NaN()}, nil} {
		s := newScale(values, 50, 900)
		require.Less(t, s.low, s.high, "%v", values)
		last := math.Inf(-1)
		for _, v := range values {
			if v > 0 {
				assert.GreaterOrEqual(t, v, s.low, "%v", values)
				assert.LessOrEqual(t, v, s.high, "%v", values)
				assert.Greater(t, s.at(v), last, "more is further right")
				last = s.at(v)
			}
		}
		assert.InDelta(t, 50, s.at(s.low), 1e-9)
		assert.InDelta(t, 900, s.at(s.high), 1e-9)

		const room = 60
		labels, place := 0, math.Inf(-1)
		for _, tick := range s.ticks(room) {
			assert.True(t, tick.value >= s.low*0.999 && tick.value <= s.high*1.001)
			if tick.labeled {
				labels++
				assert.GreaterOrEqual(t, s.at(tick.value)-place, room-1e-6, "labels of %v do not run into each other", values)
				place = s.at(tick.value)
			}
		}
		assert.GreaterOrEqual(t, labels, 2, "an axis of %v can be read", values)
	}
}

func TestSpreadOut(t *testing.T) {
	t.Parallel()
	for _, places := range [][]float64{{}, {50}, {10, 10, 10}, {98, 99, 100}, {0, 20, 21, 60, 61, 62}, {5, 95}} {
		was := append([]float64(nil), places...)
		spreadOut(places, 10, 0, 100)
		for i, p := range places {
			assert.True(t, p >= -1e-9 && p <= 100+1e-9, "%v became %v", was, places)
			if i > 0 {
				assert.GreaterOrEqual(t, p-places[i-1], 10-1e-9, "%v became %v", was, places)
			}
		}
	}
	apart := []float64{10, 30, 70}
	spreadOut(apart, 10, 0, 100)
	assert.Equal(t, []float64{10, 30, 70}, apart, "what is apart stays")
}

func ExampleWriteTable() {
	r := &Results{Header: []Param{{"cpu", "an example"}}, Rows: []Row{row(Idle, "none", "cpu-ns/s", 1e6), row(Idle, "bolt", "cpu-ns/s", 1.5e6)}}
	var b strings.Builder
	_ = WriteTable(&b, r)
	for _, line := range strings.Split(b.String(), "\n") {
		if strings.HasPrefix(line, "bolt: idle store, CPU") {
			fmt.Println(strings.Join(strings.Fields(line), " "))
		}
	}
	// Output: bolt: idle store, CPU beyond the process without it 0.5 ms/s at most 1 ms/s yes
}
