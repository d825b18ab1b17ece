package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"time"
)

// The chart of a run is one SVG that needs nothing else: panels one under another,
// all with the same axis of time, the warm-up in grey.

const (
	chartWidth   = 900
	marginLeft   = 80
	marginRight  = 24
	plotWidth    = chartWidth - marginLeft - marginRight
	panelHeight  = 112
	panelGap     = 46
	chartTop     = 64
	chartBottom  = 44
	legendOffset = 8
)

// line is one series of a panel.
type line struct {
	label  string
	colour string
	series series
}

// panel is one plot. Its axis starts at zero, or is logarithmic.
type panel struct {
	title string
	unit  unit
	log   bool
	lines []line
	note  string // of the verdict
}

const (
	blue   = "#1f5fa8"
	orange = "#c7601a"
	green  = "#2b7f46"
	red    = "#b3262a"
)

func (p *report) chart() []byte {
	of := func(name string) series { return measured(p.samples, name) }
	latency := func(c class, f func(summary) time.Duration) series {
		return seriesOf(p.samples, measure{unit: secondUnit, of: func(s sample) float64 {
			if s.latency[c].n == 0 {
				return math.NaN()
			}
			return f(s.latency[c]).Seconds()
		}})
	}
	p50 := func(s summary) time.Duration { return s.p50 }
	p99 := func(s summary) time.Duration { return s.p99 }
	worst := func(s summary) time.Duration { return s.max }
	size := "bytes on disk"
	if p.engine == "memory" {
		size = "bytes, as the engine counts them"
	}
	panels := []panel{
		{title: "memory", unit: byteUnit, note: p.verdictOf("heap"), lines: []line{
			{"live heap", blue, of("heap")}, {"resident", orange, of("resident")},
		}},
		{title: size, unit: byteUnit, note: p.verdictOf("size"), lines: []line{{"", blue, of("size")}}},
		{title: "goroutines and open files", unit: countUnit, note: p.verdictOf("goroutines", "open files"), lines: []line{
			{"goroutines", blue, of("goroutines")}, {"open files", orange, of("open files")},
		}},
		{title: "records", unit: countUnit, note: p.verdictOf("records live", "records expired"), lines: []line{
			{"live", blue, of("records live")}, {"expired, not swept yet", orange, of("records expired")},
		}},
		{title: "calls per second", unit: countUnit, lines: []line{{"", blue, of("calls/s")}}},
		{title: "latency of granted claims", unit: secondUnit, log: true, lines: []line{
			{"median", blue, latency(claimNew, p50)}, {"p99", orange, latency(claimNew, p99)}, {"max", red, latency(claimNew, worst)},
		}},
		{title: "latency of completions", unit: secondUnit, log: true, lines: []line{
			{"median", blue, latency(complete, p50)}, {"p99", orange, latency(complete, p99)}, {"max", red, latency(complete, worst)},
		}},
		{title: "latency of refused claims", unit: secondUnit, log: true, lines: []line{
			{"median", blue, latency(claimDuplicate, p50)}, {"p99", orange, latency(claimDuplicate, p99)}, {"max", red, latency(claimDuplicate, worst)},
		}},
	}
	end, warm := 1.0, 0.0
	if n := len(p.samples); n > 0 {
		end = p.samples[n-1].at.Seconds()
		warm = p.warmup * end
	}
	return draw("idem soak, "+p.engine+" engine", p.summary(), panels, end, warm)
}

// verdictOf is what is said of the named measures, in short.
func (p *report) verdictOf(names ...string) string {
	var said []string
	for _, v := range p.verdicts {
		for _, name := range names {
			if v.name != name {
				continue
			}
			switch {
			case v.why != "":
				said = append(said, name+": "+v.why)
			case v.flat:
				said = append(said, fmt.Sprintf("%s: flat (%s of %s allowed)", name, signed(v.unit, v.grew), v.unit.format(v.allowed)))
			default:
				said = append(said, fmt.Sprintf("%s: GROWS by %s, %s allowed", name, v.unit.format(v.grew), v.unit.format(v.allowed)))
			}
		}
	}
	return strings.Join(said, "; ")
}

func signed(u unit, v float64) string {
	if v > 0 {
		return "+" + u.format(v)
	}
	return u.format(v)
}

func draw(title, subtitle string, panels []panel, end, warm float64) []byte {
	var b bytes.Buffer
	height := chartTop + len(panels)*(panelHeight+panelGap) + chartBottom
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica, Arial, sans-serif" font-size="11">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, height)
	text(&b, marginLeft, 26, "start", `font-size="18" font-weight="bold" fill="#111"`, title)
	text(&b, marginLeft, 44, "start", `fill="#444"`, subtitle)
	times := timeTicks(end)
	for i, p := range panels {
		top := float64(chartTop + i*(panelHeight+panelGap) + panelGap/2)
		p.draw(&b, top, end, warm, times)
	}
	bottom := float64(chartTop + len(panels)*(panelHeight+panelGap) - panelGap/2)
	for _, t := range times {
		text(&b, atX(t, end), bottom+15, "middle", `fill="#444"`, clock(t, end))
	}
	text(&b, marginLeft+plotWidth/2, bottom+34, "middle", `fill="#444"`, "time since the start; grey: warm-up, not judged")
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (p panel) draw(b *bytes.Buffer, top, end, warm float64, times []float64) {
	text(b, marginLeft, top-legendOffset, "start", `font-weight="bold" fill="#111"`, p.title)
	text(b, chartWidth-marginRight, top-legendOffset, "end", noteStyle(p.note), p.note)
	a := p.axis()
	atY := func(v float64) float64 { return top + panelHeight*(1-a.share(v)) }
	fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="#eee"/>`+"\n", marginLeft, top, warm/end*plotWidth, panelHeight)
	for _, t := range a.ticks {
		fmt.Fprintf(b, `<path d="M%d %.1fh%d" stroke="#ddd"/>`+"\n", marginLeft, atY(t), plotWidth)
		text(b, marginLeft-6, atY(t)+4, "end", `fill="#444"`, p.unit.format(t))
	}
	for _, t := range times {
		fmt.Fprintf(b, `<path d="M%.1f %.1fv4" stroke="#888"/>`+"\n", atX(t, end), top+panelHeight)
	}
	fmt.Fprintf(b, `<path d="M%d %.1fv%dh%d" fill="none" stroke="#888"/>`+"\n", marginLeft, top, panelHeight, plotWidth)
	for i := len(p.lines) - 1; i >= 0; i-- { // the first one on top
		l := p.lines[i]
		if path := l.series.path(end, atY, a); path != "" {
			fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3" stroke-linejoin="round"/>`+"\n", path, l.colour)
		}
	}
	x := marginLeft + textWidth(p.title) + 20
	for _, l := range p.lines {
		if l.label == "" {
			continue
		}
		fmt.Fprintf(b, `<path d="M%.1f %.1fh12" stroke="%s" stroke-width="2.5"/>`+"\n", x, top-legendOffset-4, l.colour)
		text(b, x+16, top-legendOffset, "start", `fill="#222"`, l.label)
		x += 16 + textWidth(l.label) + 14
	}
}

// textWidth is about how wide s is, in the fonts that may be at hand.
func textWidth(s string) float64 { return 6.6 * float64(len(s)) }

func noteStyle(note string) string {
	if strings.Contains(note, "GROWS") {
		return `fill="` + red + `" font-weight="bold"`
	}
	return `fill="` + green + `"`
}

// path draws the values; where one is missing there is a gap.
func (s series) path(end float64, atY func(float64) float64, a axis) string {
	var d strings.Builder
	pen := "M"
	for i, v := range s.value {
		if math.IsNaN(v) || a.log && v <= 0 {
			pen = "M"
			continue
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", pen, atX(s.at[i], end), atY(v))
		pen = "L"
	}
	return d.String()
}

func atX(t, end float64) float64 { return marginLeft + plotWidth*t/end }

// clock writes a tick of the axis of time.
func clock(t, end float64) string {
	if end < 120 {
		return fmt.Sprintf("%g s", t)
	}
	return time.Duration(t * float64(time.Second)).Round(time.Second).String()
}

func text(b *bytes.Buffer, x, y float64, anchor, style, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>`, x, y, anchor, style)
	_ = xml.EscapeText(b, []byte(s)) // a bytes.Buffer takes everything
	b.WriteString("</text>\n")
}
