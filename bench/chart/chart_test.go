package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// texts fails unless svg is well-formed and shows no broken number, and returns its texts.
func texts(t *testing.T, svg string) (all []string) {
	t.Helper()
	require.True(t, strings.HasPrefix(svg, "<svg"))
	assert.NotContains(t, svg, "NaN")
	assert.NotContains(t, svg, "Inf")
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			all = append(all, string(text))
		}
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"640.0ns": Format(640e-9, "p99-sec"), "1.250µs": Format(1.25e-6, "sec/op"), "2.000KiB": Format(2048, "B/op"), "1.25": Format(1.25, "x"),
		"0.98": Format(0.98, "x"), "11.56k": Format(11556, "removed/s"), "0": Format(0, "sec"), "–": Format(math.NaN(), "B"), "4": Format(4, "syncs/op"),
	} {
		assert.Equal(t, want, got)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	curves := []Curve{
		{Label: "a<b>&c", X: []float64{1, 16, 256}, Y: []float64{100, 5000, 1e6}},
		{Label: "gaps", X: []float64{1, 2, 3, 4, 5}, Y: []float64{7, math.NaN(), 0, math.Inf(1), 9}, Strong: true},
		{Label: "nothing", X: []float64{1}, Y: []float64{math.NaN()}},
		{Label: "empty"},
	}
	log := Axis{Label: "callers & such", Log: true}
	p, err := Lines("title", log, Axis{Unit: "sec", Log: true}, curves)
	require.NoError(t, err)
	got := texts(t, SVG(p))
	for _, want := range []string{"title", "a<b>&c", "gaps", "callers & such", "1", "100"} {
		assert.Contains(t, got, want)
	}
	assert.NotContains(t, got, "nothing", "a curve that was not drawn is not in the legend")

	linear, err := Lines("linear", Axis{Unit: "sec"}, Axis{Unit: "B"}, curves[:1])
	require.NoError(t, err)
	linear.Shade(2, "warm-up")
	none, err := Lines("none", log, log, nil)
	require.NoError(t, err)
	got = texts(t, SVG(linear, none))
	for _, want := range []string{"linear", "none", "warm-up"} {
		assert.Contains(t, got, want)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	p, err := Ranges("latency", []string{"median", "p99"}, []Range{
		{Label: "good", Values: []float64{1e-7, 1e-5}}, {Label: "few samples", Values: []float64{1e-3, math.NaN()}}, {Label: "none", Values: []float64{math.NaN()}},
	})
	require.NoError(t, err)
	got := texts(t, SVG(p))
	for _, want := range []string{"latency", "good", "few samples", "median", "p99", "100.0ns"} {
		assert.Contains(t, got, want)
	}
}
