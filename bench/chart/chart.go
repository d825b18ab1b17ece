// Package chart draws the charts of the reports with gonum.org/v1/plot, as SVG that
// needs nothing else: the report is one file that opens without a network.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strings"
	"sync"

	"golang.org/x/perf/benchunit"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// newPlot is plot.New with a font that browsers have.
func newPlot() *plot.Plot {
	setFont()
	return plot.New()
}

var setFont = sync.OnceFunc(func() { plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"} })

const (
	width       = vg.Length(860)
	legendWidth = vg.Length(190)
)

// Format writes a value of a tidied unit ("sec/op", "p99-sec", "B", "removed/s", "x") for
// people.
func Format(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case strings.Contains(unit, "sec"):
		return benchunit.Scale(v, benchunit.Decimal) + "s"
	case benchunit.ClassOf(unit) == benchunit.Binary:
		return benchunit.Scale(v, benchunit.Binary) + "B"
	case math.Abs(v) >= 1000:
		return benchunit.Scale(v, benchunit.Decimal)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// Axis is an axis and how its values are written.
type Axis struct {
	Label, Unit string
	Log         bool
}

// Curve is a series of points. What is no number, or not positive on a logarithmic axis,
// is a gap.
type Curve struct {
	Label  string
	X, Y   []float64
	Strong bool // what the chart is about
}

// Panel is a plot with its legend.
type Panel struct {
	plot   *plot.Plot
	legend plot.Legend
	height vg.Length
}

// Lines plots curves.
func Lines(title string, x, y Axis, curves []Curve) (Panel, error) {
	p := newPanel(title, 260)
	var xs, ys []float64
	colours := plotutil.DarkColors
	for i, c := range curves {
		style := draw.LineStyle{Color: colours[i%len(colours)], Width: 1.2, Dashes: plotutil.Dashes(i / len(colours))}
		if c.Strong {
			style.Width = 2.4
		}
		var piece plotter.XYs
		drawn := false
		for i := range len(c.X) + 1 {
			if i < len(c.X) && finite(c.Y[i], y.Log) && finite(c.X[i], x.Log) {
				piece = append(piece, plotter.XY{X: c.X[i], Y: c.Y[i]})
				xs, ys = append(xs, c.X[i]), append(ys, c.Y[i])
				continue
			}
			if len(piece) == 0 {
				continue
			}
			line, points, err := plotter.NewLinePoints(piece)
			if err != nil {
				return p, fmt.Errorf("chart %q: %w", title, err)
			}
			line.LineStyle = style
			points.Color, points.Shape, points.Radius = style.Color, draw.CircleGlyph{}, 1.5
			p.plot.Add(line)
			if len(c.X) < 20 {
				p.plot.Add(points)
			}
			piece, drawn = nil, true
		}
		if drawn && c.Label != "" {
			p.legend.Add(c.Label, &plotter.Line{LineStyle: style})
			p.height = max(p.height, vg.Length(len(curves))*14+60)
		}
	}
	scale(&p.plot.X, x, xs)
	scale(&p.plot.Y, y, ys)
	return p, nil
}

// Shade greys out what lies before x, and says why at the bottom.
func (p Panel) Shade(x float64, why string) {
	band, err := plotter.NewPolygon(plotter.XYs{{X: 0, Y: p.plot.Y.Min}, {X: x, Y: p.plot.Y.Min}, {X: x, Y: p.plot.Y.Max}, {X: 0, Y: p.plot.Y.Max}})
	if err == nil {
		band.Color, band.Width = color.NRGBA{A: 24}, 0
		p.plot.Add(band)
	}
	p.plot.X.Label.Text = why
}

// Range is a row of a chart of latencies: values that rise, as the median and p99.
type Range struct {
	Label  string
	Values []float64
	Strong bool // what the chart is about
}

// Ranges plots a row for each, the first on top, over a logarithmic axis of seconds.
// names say what the values are.
func Ranges(title string, names []string, rows []Range) (Panel, error) {
	p := newPanel(title, vg.Length(len(rows))*15+70)
	labels := make([]string, len(rows))
	var all []float64
	shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{}}
	for i, r := range rows {
		colour := color.Color(color.Gray{Y: 110})
		if r.Strong {
			colour = plotutil.DarkColors[2]
		}
		y := float64(len(rows) - 1 - i)
		labels[len(rows)-1-i] = r.Label
		var line plotter.XYs
		for n, v := range r.Values {
			if !finite(v, true) {
				continue
			}
			line = append(line, plotter.XY{X: v, Y: y})
			all = append(all, v)
			point, err := plotter.NewScatter(plotter.XYs{{X: v, Y: y}})
			if err != nil {
				return p, fmt.Errorf("chart %q: %w", title, err)
			}
			point.GlyphStyle = draw.GlyphStyle{Color: colour, Radius: 3, Shape: shapes[n%len(shapes)]}
			p.plot.Add(point)
		}
		if len(line) > 1 {
			l, err := plotter.NewLine(line)
			if err != nil {
				return p, fmt.Errorf("chart %q: %w", title, err)
			}
			l.Color, l.Width = colour, 1
			p.plot.Add(l)
		}
	}
	for n, name := range names {
		p.legend.Add(name, &plotter.Scatter{GlyphStyle: draw.GlyphStyle{Color: color.Black, Radius: 3, Shape: shapes[n%len(shapes)]}})
	}
	scale(&p.plot.X, Axis{Unit: "sec", Log: true}, all)
	p.plot.NominalY(labels...)
	p.plot.Y.Min, p.plot.Y.Max = -0.5, float64(len(rows))-0.5
	return p, nil
}

func newPanel(title string, height vg.Length) Panel {
	p := Panel{plot: newPlot(), legend: plot.NewLegend(), height: height}
	p.plot.Title.Text = title
	p.plot.Add(plotter.NewGrid())
	p.legend.Top, p.legend.Left, p.legend.TextStyle.Font.Size = true, true, 10
	return p
}

// scale fits an axis to its values: from zero, or over whole powers of ten.
func scale(a *plot.Axis, of Axis, values []float64) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	a.Label.Text = of.Label
	format := func(v float64) string { return Format(v, of.Unit) }
	if of.Log {
		if low > high {
			low, high = 1, 10
		}
		a.Min, a.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
		if a.Max <= a.Min {
			a.Max = 10 * a.Min
		}
		a.Scale, a.Tick.Marker = plot.LogScale{}, ticks{plot.LogTicks{}, format}
		return
	}
	if high <= 0 || low > high {
		high = 1
	}
	a.Min, a.Max, a.Tick.Marker = 0, 1.05*high, ticks{plot.DefaultTicks{}, format}
}

// ticks are those of a library, with labels in a unit.
type ticks struct {
	plot.Ticker
	format func(float64) string
}

// Ticks implements plot.Ticker.
func (t ticks) Ticks(low, high float64) []plot.Tick {
	all := t.Ticker.Ticks(low, high)
	for i := range all {
		if all[i].Label != "" {
			all[i].Label = t.format(all[i].Value)
		}
	}
	return all
}

func finite(v float64, positive bool) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (v > 0 || !positive)
}

// SVG draws panels one below the other, as one svg element.
func SVG(panels ...Panel) string {
	height := vg.Length(0)
	for _, p := range panels {
		height += p.height
	}
	canvas := vgsvg.New(width, height)
	all := draw.New(canvas)
	bottom := height
	for _, p := range panels {
		bottom -= p.height
		c := draw.Crop(all, 0, 0, bottom, bottom+p.height-height)
		p.plot.Draw(draw.Crop(c, 4, -legendWidth, 4, -4))
		p.legend.Draw(draw.Crop(c, width-legendWidth+8, 0, 4, -24))
	}
	var b bytes.Buffer
	_, _ = canvas.WriteTo(&b) // a bytes.Buffer takes everything
	_, svg, _ := strings.Cut(b.String(), "<svg")
	return "<svg" + svg
}
