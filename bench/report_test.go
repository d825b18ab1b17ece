package bench

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// full is a run with latencies in every group that has a chart.
func full() *Results {
	r := exemplary()
	r.Header = append([]Param{{"cpu", `CPU <1> & "2"`}, {"commit", "0123abc"}, {"go", "go1.99"}}, Machine(".")...)
	for i, row := range r.Rows {
		if row.Group == Syncs || row.Group == Idle || row.Group == ScaleSize || row.Group == ScaleReopen || row.Group == ScaleGC {
			continue
		}
		values := append([]Value(nil), row.Values...)
		for j, q := range quantiles {
			if _, ok := row.Value(percentileUnit(q)); !ok {
				values = append(values, Value{percentileUnit(q), 1000 * float64(j+1)})
			}
		}
		r.Rows[i].Values = append(values, Value{"max-ns", 1e6})
		if _, ok := row.Value(nsOp); !ok {
			r.Rows[i].Values = append(r.Rows[i].Values, Value{nsOp, 1500})
		}
	}
	for _, rate := range []string{"500", "8000"} {
		r.Rows = append(r.Rows, Row{
			Group: OpenLoop, Params: []Param{{"backend", "redis"}, {"rate", rate}, {"procs", "2"}}, Ops: 1,
			Values: []Value{{"p50-ns", 1e6}, {"p99-ns", 2e6}, {"p99.9-ns", 3e6}, {"achieved/s", 500}},
		})
	}
	r.note("does", "Get/hit redis", "GET <key>")
	r.note("absent", "Cycle/durable badger", "not installed")
	return r
}

func TestReport(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, WriteReport(&b, full()))
	page := b.String()

	svgs := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	assert.Greater(t, len(svgs), 15)
	var texts []string
	for _, svg := range svgs {
		texts = append(texts, wellFormed(t, svg)...)
	}
	for _, want := range []string{"pebble", "limit-log", "pebble p99", "pebble, sweep", "redis", "arrivals a second", "cycles a second"} {
		assert.True(t, slices.Contains(texts, want), want)
	}
	for _, want := range []string{
		"CPU &lt;1&gt; &amp; &#34;2&#34;", "0123abc", "go1.99", "GET &lt;key&gt;", "not installed", "62 of 62 targets",
		"What the figures do not show", `id="lookups"`, `id="cycles"`, `id="effects"`, `id="open"`, `id="scale"`, `id="sweep"`, `id="idle"`,
		"prefers-color-scheme: dark",
	} {
		assert.True(t, strings.Contains(page, want), want)
	}
	// Readable offline, and nothing in it runs.
	assert.Empty(t, regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|\bsrc=|href="[^#]`).FindString(page))
	assert.False(t, strings.Contains(page, "ZgotmplZ"), "nothing was refused by the template")
	assert.False(t, strings.Contains(page, "NaN"))
	for _, class := range regexp.MustCompile(`class="(?:dot|ring|range|curve|leader) ([a-z0-9]+)`).FindAllStringSubmatch(page, -1) {
		if class[1] == "faint" {
			continue
		}
		assert.True(t, strings.Contains(page, "svg ."+class[1]+" {"), "a colour for everyone: "+class[1])
	}
}

func TestReportOfNothing(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, WriteReport(&b, &Results{}))
	assert.False(t, strings.Contains(b.String(), "<svg"))
	assert.True(t, strings.Contains(b.String(), "0 of 0 targets"))
}

// What is saved says all: the table and the report can be made of raw.txt again.
func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := full()
	require.NoError(t, Save(dir+"/new/place", r))
	back, err := Load(dir + "/new/place/raw.txt")
	require.NoError(t, err)
	var was, is strings.Builder
	require.NoError(t, WriteReport(&was, r))
	require.NoError(t, WriteReport(&is, back))
	assert.True(t, was.String() == is.String())
	_, err = Load(dir + "/absent")
	assert.Error(t, err)
}

func TestMachine(t *testing.T) {
	t.Parallel()
	facts := map[string]string{}
	for _, p := range Machine(t.TempDir()) {
		assert.NotEmpty(t, p.Value, p.Name)
		assert.Equal(t, strings.ToLower(p.Name), p.Name)
		facts[p.Name] = p.Value
	}
	for _, name := range []string{"goos", "goarch", "cores", "go", "commit", "clock-cost", "disk-sync"} {
		assert.Contains(t, facts, name)
	}
}
