package main

import "math"

// axis maps values to a share of a panel's height.
type axis struct {
	low, high float64
	log       bool
	ticks     []float64
}

// axis spans all lines of p: from zero, or over whole powers of ten.
func (p panel) axis() axis {
	low, high := math.Inf(1), 0.0
	for _, l := range p.lines {
		for _, v := range l.series.value {
			if !math.IsNaN(v) && (v > 0 || !p.log) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if high <= 0 {
		low, high = 1, 1
	}
	if !p.log {
		step := niceStep(high, 4, p.unit)
		a := axis{high: step * math.Ceil(high/step-1e-9)}
		for t := 0.0; t <= a.high*1.0001; t += step {
			a.ticks = append(a.ticks, t)
		}
		return a
	}
	a := axis{log: true, low: math.Pow(10, math.Floor(math.Log10(low)+1e-9)), high: math.Pow(10, math.Ceil(math.Log10(high)-1e-9))}
	if a.high <= a.low {
		a.high = 10 * a.low
	}
	for t := a.low; t <= a.high*1.0001; t *= 10 {
		a.ticks = append(a.ticks, t)
	}
	return a
}

// share is where v lies: 0 at the bottom, 1 at the top.
func (a axis) share(v float64) float64 {
	if a.log {
		return math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return (v - a.low) / (a.high - a.low)
}

// niceStep is a round step that cuts length into about n parts: 1, 2 or 5 times a
// power of ten, or for bytes a power of two.
func niceStep(length float64, n int, u unit) float64 {
	raw := length / float64(n)
	if u == byteUnit {
		return math.Pow(2, math.Ceil(math.Log2(raw)))
	}
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

// timeTicks are round times from zero to end, in seconds: twelve at most.
func timeTicks(end float64) (at []float64) {
	steps := []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400}
	step := steps[len(steps)-1]
	for _, s := range steps {
		if end/s <= 12 {
			step = s
			break
		}
	}
	step *= math.Ceil(end / step / 12)
	for t := 0.0; t <= end*1.0001; t += step {
		at = append(at, t)
	}
	return at
}
