package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// series is one measured quantity over the time of a run. A value that could not be
// measured is NaN.
type series struct {
	name  string
	unit  string
	at    []float64 // seconds since the start, rising
	value []float64
}

// limit is what a series may grow by over the judged part of a run: a share of its
// median, or a fixed amount, whichever is more. The amount is for what is small and
// steps: one more table of Pebble's, one more chunk of a file.
type limit struct {
	share  float64
	amount float64
}

// verdict says whether a series is flat after the warm-up.
type verdict struct {
	name    string
	unit    string
	median  float64 // of the judged part
	grew    float64 // slope times length of the judged part
	allowed float64
	flat    bool
	why     string // where there is more to say
}

// minJudged is how many samples it takes to judge.
const minJudged = 12

// judge looks at s from the second from on. The slope is that of Theil and Sen, the
// median of the slopes between all pairs of samples: up to 29 % of the samples may be
// wild, and a saw-tooth with some teeth has none. What shrinks is flat. What nobody
// could measure is not judged; what was measured too seldom is not flat.
func judge(s series, from float64, l limit) verdict {
	var at, value []float64
	measured := false
	for i, v := range s.value {
		if math.IsNaN(v) {
			continue
		}
		measured = true
		if s.at[i] >= from {
			at, value = append(at, s.at[i]), append(value, v)
		}
	}
	v := verdict{name: s.name, unit: s.unit}
	if !measured {
		v.flat, v.why = true, "not measured on this system"
		return v
	}
	if len(at) < minJudged {
		v.why = fmt.Sprintf("%d samples after the warm-up are too few, it takes %d: soak for longer", len(at), minJudged)
		return v
	}
	v.median = median(value)
	v.grew = theilSen(at, value) * (at[len(at)-1] - at[0])
	v.allowed = max(l.share*math.Abs(v.median), l.amount)
	v.flat = v.grew <= v.allowed
	return v
}

// theilSen returns the median of the slopes of all pairs; there are two at least.
func theilSen(at, value []float64) float64 {
	slopes := make([]float64, 0, len(at)*(len(at)-1)/2)
	for i := range at {
		for j := i + 1; j < len(at); j++ {
			if at[j] > at[i] {
				slopes = append(slopes, (value[j]-value[i])/(at[j]-at[i]))
			}
		}
	}
	return median(slopes)
}

// median returns the middle of values, 0 if there are none, and leaves them alone.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// word is the verdict, as the table and the chart have it.
func (v verdict) word() string {
	switch {
	case v.why != "":
		return v.why
	case v.flat:
		return "flat"
	}
	return "GROWS"
}

func seriesOf(samples []sample, m measure) series {
	s := series{name: m.name, unit: strings.TrimPrefix(m.suffix, "-")}
	for _, x := range samples {
		s.at = append(s.at, x.at.Seconds())
		s.value = append(s.value, x.value[m.name])
	}
	return s
}

// verdicts judges the samples whose time is from on.
func verdicts(samples []sample, from time.Duration) (all []verdict) {
	for _, m := range measures {
		if m.limit != nil {
			all = append(all, judge(seriesOf(samples, m), from.Seconds(), *m.limit))
		}
	}
	return all
}
