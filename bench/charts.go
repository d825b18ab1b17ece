package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const chartWidth = 1080

// rangeRow is a contender's latencies, ns: those of the quantiles that it has, and
// the longest.
type rangeRow struct {
	label, class string
	strong       bool
	at           []float64 // p50, p90, p99, p99.9; NaN where there is none
	longest      float64
	columns      []string // beside the picture
}

// rangeQuantiles are what a row shows.
var rangeQuantiles = []float64{50, 90, 99, 99.9}

// ranges draws a line for each row, from its median to its longest latency, with
// columns of text at its right.
func ranges(title string, headings []string, rows []rangeRow) string {
	const left, top, bottom, step, column = 230, 44, 34, 23, 84
	right := float64(column*len(headings) + 16)
	var all []float64
	for _, r := range rows {
		all = append(append(all, r.at...), r.longest)
	}
	height := float64(top + bottom + step*len(rows))
	d := newDrawing(chartWidth, height, title)
	x := newScale(all, left, chartWidth-right)
	axisX(d, x, top-8, height-bottom, humanNs)
	rangeLegend(d, left)
	place := func(i int) float64 { return chartWidth - 6 - column*float64(len(headings)-1-i) }
	for i, h := range headings {
		d.text(place(i), top-18, "end", "tick", h)
	}
	for i, r := range rows {
		y := float64(top + step*i + step/2)
		weight := "label"
		if r.strong {
			weight = "label strong"
		}
		d.text(left-12, y+4, "end", weight, r.label)
		last := r.longest
		d.line(x.at(r.at[0]), y, x.at(last), y, "range faint "+r.class)
		if end := lastNumber(r.at); end > r.at[0] {
			d.line(x.at(r.at[0]), y, x.at(end), y, "range "+r.class)
		}
		hue, _, _ := strings.Cut(r.class, " ") // the mark itself is never dashed
		d.line(x.at(last), y-5, x.at(last), y+5, "range "+hue)
		for q, v := range r.at {
			if !math.IsNaN(v) {
				d.circle(x.at(v), y, []float64{5.5, 2.5, 4, 2.5}[q], []string{"dot ", "dot ", "ring ", "dot "}[q]+r.class,
					fmt.Sprintf("%s p%s: %s", r.label, strconv.FormatFloat(rangeQuantiles[q], 'g', -1, 64), humanNs(v)))
			}
		}
		for i, text := range r.columns {
			d.text(place(i), y+4, "end", "number", text)
		}
	}
	return d.String()
}

func lastNumber(values []float64) float64 {
	last := math.NaN()
	for _, v := range values {
		if !math.IsNaN(v) {
			last = v
		}
	}
	return last
}

func rangeLegend(d *drawing, x float64) {
	for i, mark := range []string{"median", "p90", "p99", "p99.9", "longest"} {
		at := x + float64(i)*88
		switch i {
		case 0:
			d.circle(at, 10, 5.5, "dot legend", "")
		case 2:
			d.circle(at, 10, 4, "ring legend", "")
		case 4:
			d.line(at, 5, at, 15, "range legend")
		default:
			d.circle(at, 10, 2.5, "dot legend", "")
		}
		d.text(at+10, 14, "start", "tick", mark)
	}
}

// axisX draws a logarithmic axis below a field from top to bottom.
func axisX(d *drawing, x scale, top, bottom float64, show func(float64) string) {
	for _, t := range x.ticks(62) {
		class := "grid"
		if !t.labeled {
			class = "grid minor"
		}
		d.line(x.at(t.value), top, x.at(t.value), bottom, class)
		if t.labeled {
			d.text(x.at(t.value), bottom+16, "middle", "tick", show(t.value))
		}
	}
	d.line(x.from, bottom, x.to, bottom, "axis")
}

func axisY(d *drawing, y scale, left, right float64, show func(float64) string) {
	for _, t := range y.ticks(20) {
		class := "grid"
		if !t.labeled {
			class = "grid minor"
		}
		d.line(left, y.at(t.value), right, y.at(t.value), class)
		if t.labeled {
			d.text(left-8, y.at(t.value)+4, "end", "tick", show(t.value))
		}
	}
}

// curve is a line of a chart.
type curve struct {
	label, class string
	strong       bool
	points       []point // values
}

// lineChart is curves over a logarithmic axis whose ticks are the values of x that
// there are.
type lineChart struct {
	title, xTitle, yTitle string
	width, height         float64
	showX, showY          func(float64) string
	curves                []curve
}

func (c lineChart) String() string {
	const left, top, bottom, endLabels = 74, 30, 52, 180
	d := newDrawing(c.width, c.height, c.title)
	right := c.width - endLabels
	var xs, ys []float64
	for _, l := range c.curves {
		for _, p := range l.points {
			xs, ys = append(xs, p.x), append(ys, p.y)
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	y := newScale(ys, c.height-bottom, top)
	x := scale{low: 1, high: 10, from: left + 14, to: right - 14}
	if len(xs) > 0 {
		x.low, x.high = xs[0], max(xs[len(xs)-1], xs[0]*2)
	}
	axisY(d, y, left, right, c.showY)
	last := math.Inf(-1)
	for _, v := range xs {
		d.line(x.at(v), top, x.at(v), c.height-bottom, "grid minor")
		if x.at(v)-last >= 44 {
			last = x.at(v)
			d.text(last, c.height-bottom+18, "middle", "tick", c.showX(v))
		}
	}
	d.line(left, c.height-bottom, right, c.height-bottom, "axis")
	d.text(left, 16, "start", "axis-title", c.yTitle)
	d.text((left+right)/2, c.height-12, "middle", "axis-title", c.xTitle)
	for _, l := range c.curves {
		var places []point
		for _, p := range l.points {
			places = append(places, point{x.at(p.x), y.at(p.y)})
		}
		class := l.class
		if l.strong {
			class += " bold"
		}
		d.polyline(places, "curve "+class)
		for i, p := range places {
			d.circle(p.x, p.y, 3, "dot "+l.class, fmt.Sprintf("%s, %s: %s", l.label, c.showX(l.points[i].x), c.showY(l.points[i].y)))
		}
	}
	c.endLabels(d, x, y, right, top, c.height-bottom)
	return d.String()
}

// endLabels names each curve at its right end, moved apart where they would overlap.
func (c lineChart) endLabels(d *drawing, x, y scale, right, top, bottom float64) {
	const gap = 15
	type end struct {
		curve
		from  point
		place float64
	}
	var ends []end
	for _, l := range c.curves {
		if n := len(l.points); n > 0 {
			from := point{x.at(l.points[n-1].x), y.at(l.points[n-1].y)}
			ends = append(ends, end{l, from, from.y})
		}
	}
	slices.SortStableFunc(ends, func(a, b end) int { return cmp.Compare(a.place, b.place) })
	places := make([]float64, len(ends))
	for i := range ends {
		places[i] = ends[i].place
	}
	spreadOut(places, gap, top, bottom+30)
	for i, e := range ends {
		class := "label"
		if e.strong {
			class = "label strong"
		}
		d.polyline([]point{{e.from.x + 4, e.from.y}, {right + 2, places[i]}, {right + 10, places[i]}}, "leader "+e.class)
		d.text(right+14, places[i]+4, "start", class, e.label)
	}
}

// spreadOut moves sorted places at least gap apart and, if they fit, between low and
// high, and no further than they must.
func spreadOut(places []float64, gap, low, high float64) {
	at := low
	for i, p := range places {
		places[i] = max(p, at)
		at = places[i] + gap
	}
	at = high
	for i := len(places) - 1; i >= 0; i-- {
		places[i] = min(places[i], at)
		at = places[i] - gap
	}
}
