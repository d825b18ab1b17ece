package bench

import (
	"math"
	"slices"
)

// Spread is a figure with what it varied between.
type Spread struct{ Median, Min, Max float64 }

// spreadOf returns the median of the figures and their extremes; not ok if there
// are none. What is no number does not count.
func spreadOf(figures []float64) (s Spread, ok bool) {
	sorted := slices.Clone(figures)
	sorted = slices.DeleteFunc(sorted, func(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) })
	n := len(sorted)
	if n == 0 {
		return s, false
	}
	slices.Sort(sorted)
	return Spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}, true
}

// ratios divides round by round: both were measured within moments of each other
// in a round, so that what the machine did to the one it did to the other. A round
// that only one of them has is left out.
func ratios(of, to []float64) []float64 {
	out := make([]float64, min(len(of), len(to)))
	for i := range out {
		out[i] = of[i] / to[i]
	}
	return out
}

// Median returns the median of a unit over the rounds; not ok if it was not measured
// in all of them: rounds with samples enough for a high percentile are the quick ones.
func (r *Results) Median(m Match, unit string) (float64, bool) {
	figures := r.Series(m, unit)
	if slices.ContainsFunc(figures, math.IsNaN) {
		return 0, false
	}
	s, ok := spreadOf(figures)
	return s.Median, ok
}

// Ratio returns the spread of the round-by-round ratios of a unit, and whether
// both were measured.
func (r *Results) Ratio(of, to Match, unit string) (Spread, bool) {
	return spreadOf(ratios(r.Series(of, unit), r.Series(to, unit)))
}

// least returns the one of the matches with the least median, and whether any was
// measured. It is chosen once, by its median, and not again in each round: the
// least of several in a round would owe its place to luck.
func (r *Results) least(ms []Match, unit string) (best Match, ok bool) {
	lowest := math.Inf(1)
	for _, m := range ms {
		if v, measured := r.Median(m, unit); measured && v < lowest {
			best, lowest, ok = m, v, true
		}
	}
	return best, ok
}
