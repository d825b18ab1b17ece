package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// drawing is an SVG picture under way. Colours come from the page's style sheet by
// class, so that the same picture serves a light and a dark page.
type drawing struct {
	b             strings.Builder
	width, height float64
}

func newDrawing(width, height float64, title string) *drawing {
	d := &drawing{width: width, height: height}
	fmt.Fprintf(&d.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img"><title>%s</title>`,
		num(width), num(height), num(width), num(height), html.EscapeString(title))
	return d
}

func (d *drawing) String() string { return d.b.String() + "</svg>" }

// num writes a coordinate.
func num(f float64) string { return trimZeros(fmt.Sprintf("%.2f", f)) }

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&d.b, `<line x1="%s" y1="%s" x2="%s" y2="%s" class="%s"/>`, num(x1), num(y1), num(x2), num(y2), class)
}

func (d *drawing) circle(x, y, r float64, class, title string) {
	fmt.Fprintf(&d.b, `<circle cx="%s" cy="%s" r="%s" class="%s">%s</circle>`, num(x), num(y), num(r), class, tip(title))
}

// text writes a line of text; anchor is start, middle or end.
func (d *drawing) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&d.b, `<text x="%s" y="%s" text-anchor="%s" class="%s">%s</text>`, num(x), num(y), anchor, class, html.EscapeString(text))
}

type point struct{ x, y float64 }

func (d *drawing) polyline(points []point, class string) {
	d.b.WriteString(`<polyline points="`)
	for i, p := range points {
		if i > 0 {
			d.b.WriteByte(' ')
		}
		d.b.WriteString(num(p.x) + "," + num(p.y))
	}
	fmt.Fprintf(&d.b, `" class="%s"/>`, class)
}

func tip(title string) string {
	if title == "" {
		return ""
	}
	return "<title>" + html.EscapeString(title) + "</title>"
}

// scale maps values to places on a logarithmic axis. Values must be positive.
type scale struct {
	low, high float64 // values
	from, to  float64 // places
}

// newScale covers the values, from and to half-decade steps around them.
func newScale(values []float64, from, to float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if v > 0 && !math.IsInf(v, 0) {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		low, high = 1, 10
	}
	s := scale{low: stepDown(low * 0.97), high: stepUp(high * 1.03), from: from, to: to}
	return s
}

var steps = []float64{1, 2, 5, 10}

// stepDown is the largest of 1, 2 and 5 times a power of ten that is not over v.
func stepDown(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, s := range []float64{5, 2} {
		if v >= s*decade {
			return s * decade
		}
	}
	return decade
}

// stepUp is the smallest that is not under v.
func stepUp(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, s := range steps {
		if v <= s*decade {
			return s * decade
		}
	}
	return 10 * decade
}

func (s scale) at(v float64) float64 {
	v = min(max(v, s.low), s.high)
	return s.from + (s.to-s.from)*math.Log(v/s.low)/math.Log(s.high/s.low)
}

// tick is a value that has a line, and a label unless it is a minor one.
type tick struct {
	value   float64
	labeled bool
}

// ticks returns 1, 2 and 5 times the powers of ten, all of them with labels if the
// axis has so few that they do not run into each other, room being the places that
// a label takes.
func (s scale) ticks(room float64) (out []tick) {
	decades := math.Log10(s.high / s.low)
	perDecade := math.Abs(s.to-s.from) / decades
	all := perDecade*math.Log10(2) >= room // the narrowest gap, from 1 to 2 and 5 to 10
	every := 1
	for !all && float64(every)*perDecade < room {
		every++
	}
	first := math.Floor(math.Log10(s.low) + 1e-9)
	for power := first; ; power++ {
		for _, step := range steps[:3] {
			v := step * math.Pow(10, power)
			if v > s.high*1.0001 {
				return out
			}
			if v >= s.low*0.9999 {
				out = append(out, tick{v, all || step == 1 && int(power)%every == 0})
			}
		}
	}
}
